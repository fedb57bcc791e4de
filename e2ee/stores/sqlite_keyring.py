"""The header of a store: its random data key, sealed under a passphrase or under a key of the application.

Owns: the header's bytes, Argon2id parameters and their bounds, wrapping and unwrapping.
Does not know about: SQLite, or what the data key seals (sqlite_sealing.py).

    header = "E2EE store" | format u8 | kind u8 | [memory KiB u32 | iterations u32 | lanes u32 | salt 16]
             | nonce 12 | sealed data key 48 | checksum 8

The bracket is there for kind 1 (passphrase), absent for kind 2 (key). The data key is sealed with AES-256-GCM under
kdf(Argon2id output or key, "E2EE/1 store wrap")[:32]; associated data = everything before the nonce. The checksum
(SHA-256, truncated) proves nothing against an attacker: it tells a damaged file from a wrong passphrase.
"""

import os
import unicodedata
from typing import Final, final

from e2ee.errors import (
    AuthenticationError,
    CorruptStateError,
    MalformedMessageError,
    StoreUnavailableError,
    StoreVersionError,
    WrongPassphraseError,
)
from e2ee.primitives import aead
from e2ee.primitives.kdf import kdf, sha256
from e2ee.primitives.password import SALT_LENGTH, Argon2Cost, derive_key
from e2ee.private_keys import SecretBytes
from e2ee.wire.codec import Reader, Writer

_MAGIC: Final = b"E2EE store"
_FORMAT: Final = 1
_KIND_PASSPHRASE: Final = 1
_KIND_KEY: Final = 2
_WRAP_LABEL: Final = b"E2EE/1 store wrap"
_SEALED_LENGTH: Final = 32 + aead.TAG_LENGTH
_CHECKSUM_LENGTH: Final = 8


@final
class DataKey(SecretBytes):
    """The random key from which all keys of one store are derived."""

    __slots__ = ()


@final
class StoreKey(SecretBytes):
    """A key that the application keeps (in a system keychain, say) and opens the store with."""

    __slots__ = ()


Opener = str | StoreKey
"""What opens a store: a passphrase or a key."""


def opener(passphrase: str | None, key: bytes | None) -> Opener:
    """Return the one that was given.

    Raises:
        ValueError: both or none was given, or the key is not 32 bytes.
    """
    if passphrase is not None and key is None:
        return passphrase
    if key is not None and passphrase is None:
        return StoreKey(key)
    raise ValueError("give either a passphrase or a key")


def wrap(data_key: DataKey, under: Opener, cost: Argon2Cost) -> bytes:
    """Return a header from which `unwrap` gets the data key back.

    Raises:
        ValueError: the passphrase is empty, or the cost is out of bounds.
        StoreUnavailableError: the machine does not have the memory that the cost asks for.
    """
    if under == "":
        raise ValueError("an empty passphrase protects nothing")
    if not cost.is_allowed():
        raise ValueError("Argon2id cost out of bounds")
    writer = Writer().raw(_MAGIC).u8(_FORMAT)
    if isinstance(under, str):
        salt = os.urandom(SALT_LENGTH)
        writer.u8(_KIND_PASSPHRASE).u32(cost.memory_kib).u32(cost.iterations).u32(cost.lanes).raw(salt)
        wrapping_key = _stretch(under, salt, cost)
    else:
        writer.u8(_KIND_KEY)
        wrapping_key = _separate(under.expose())
    bound = writer.finish()
    nonce = os.urandom(aead.NONCE_LENGTH)
    header = bound + nonce + aead.seal(wrapping_key, nonce, data_key.expose(), bound)
    return header + _checksum(header)


def unwrap(header: bytes, under: Opener) -> DataKey:
    """Return the data key.

    Raises:
        WrongPassphraseError: another passphrase or key sealed it.
        CorruptStateError: the header is damaged, or asks for more than an honest store would.
        StoreVersionError: a newer release wrote it.
        StoreUnavailableError: the machine does not have the memory that the header asks for.
    """
    try:
        return _unwrap(header, under)
    except MalformedMessageError:
        raise CorruptStateError("the header is malformed") from None
    except AuthenticationError:
        raise WrongPassphraseError from None


def _unwrap(header: bytes, under: Opener) -> DataKey:
    reader = Reader(header)
    if reader.fixed(len(_MAGIC)) != _MAGIC:
        raise CorruptStateError("the file is not a store")
    if (found := reader.u8()) != _FORMAT:
        raise StoreVersionError(found, _FORMAT)
    body, checksum = header[:-_CHECKSUM_LENGTH], header[-_CHECKSUM_LENGTH:]
    if _checksum(body) != checksum:
        raise CorruptStateError("the header is damaged")
    kind = reader.u8()
    if kind not in (_KIND_PASSPHRASE, _KIND_KEY):
        raise CorruptStateError("the header names an unknown kind of key")
    stretching: tuple[bytes, Argon2Cost] | None = None
    if kind == _KIND_PASSPHRASE:
        cost = Argon2Cost(reader.u32(), reader.u32(), reader.u32())
        stretching = reader.fixed(SALT_LENGTH), cost
    bound = header[: reader.position()]
    nonce, sealed = reader.fixed(aead.NONCE_LENGTH), reader.fixed(_SEALED_LENGTH)
    reader.fixed(_CHECKSUM_LENGTH)
    reader.finish()
    return DataKey(aead.unseal(_wrapping_key(under, stretching), nonce, sealed, bound))


def _wrapping_key(under: Opener, stretching: tuple[bytes, Argon2Cost] | None) -> bytes:
    """Derive the key that sealed the data key; the header says whether from a passphrase or from a key."""
    if stretching is None:
        if isinstance(under, str):
            raise WrongPassphraseError
        return _separate(under.expose())
    salt, cost = stretching
    if not cost.is_allowed():
        raise CorruptStateError("the header asks for an Argon2id cost out of bounds")
    if not isinstance(under, str):
        raise WrongPassphraseError
    return _stretch(under, salt, cost)


def _stretch(passphrase: str, salt: bytes, cost: Argon2Cost) -> bytes:
    # One spelling of accented characters: keyboards and systems differ in which one they produce.
    # Lone surrogates stand for undecodable bytes of a command line; they are taken as they are.
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    try:
        return _separate(derive_key(text, salt, cost))
    except MemoryError:
        raise StoreUnavailableError(f"not enough memory: Argon2id needs {cost.memory_kib} KiB") from None


def _separate(key: bytes) -> bytes:
    """Derive the wrapping key, so that a key of the application may serve other purposes too."""
    return kdf(key, _WRAP_LABEL)[: aead.KEY_LENGTH]


def _checksum(body: bytes) -> bytes:
    return sha256(body)[:_CHECKSUM_LENGTH]
