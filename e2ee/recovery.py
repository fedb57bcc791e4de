"""An account that survives the loss of all its devices: a code on paper, and a file that it opens.

Protocol.md section 16:

    key    = HKDF-SHA-512(salt = 64 zero bytes, IKM = the code's 20 bytes, info = the purpose, 32)
    sealed = header || nonce 12 || AES-256-GCM(key, nonce, payload, associated data = header)

Owns: the code as people write it down, sealing and opening.
Does not know about: where the file is kept, what a device does with it then (messenger.py).

The code is drawn, never chosen, so that no guessing helps; whoever has both has the account. A file holds the account's
key, contacts and what was decided about them, never sessions: live ratchets must not exist twice.
"""

import hmac
from base64 import b32decode, b32encode
from binascii import Error as BadBase32
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, final

from e2ee.errors import (
    AuthenticationError,
    InvalidSignatureError,
    MalformedMessageError,
    UnsupportedVersionError,
    WrongRecoveryCodeError,
)
from e2ee.primitives import aead, kdf
from e2ee.primitives.rng import Rng
from e2ee.private_keys import SecretBytes
from e2ee.transfer import ExportPayload
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import UserId, decode_ascii, parse_user_id
from e2ee.wire.public_keys import AccountKey

CHECK_LABEL: Final = b"E2EE/1 recovery check"

_VERSION: Final = 1
_CHECK: Final = 5
_GROUP: Final = 5
_CHARACTERS: Final = 40


@final
class Purpose(Enum):
    """What is sealed: each purpose has a key of its own, so that one is never taken for the other."""

    EXPORT = b"E2EE/1 export"
    """A file that the person keeps."""
    RECOVERY = b"E2EE/1 recovery"
    """What the key server keeps: the account's key and list, nobody else."""


@final
class RecoveryCode(SecretBytes):
    """160 random bits. `text` is for the person, and for nothing else."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 20

    @classmethod
    def generate(cls, rng: Rng) -> "RecoveryCode":
        """Draw a fresh code."""
        return cls(rng(cls.LENGTH))

    def text(self) -> str:
        """Return the code as it is written down: eight groups of five characters of base32."""
        raw = self.expose()
        code = b32encode(raw + _check(raw)).decode()
        return "-".join(code[at : at + _GROUP] for at in range(0, _CHARACTERS, _GROUP))

    @classmethod
    def parse(cls, text: str) -> "RecoveryCode":
        """Read a code as people type it: in either case, with spaces or hyphens anywhere.

        Raises:
            MalformedMessageError: it is none, or was mistyped.
        """
        code = "".join(text.split()).replace("-", "").upper()
        try:
            raw = b32decode(code.encode("ascii")) if len(code) == _CHARACTERS else b""
        except (BadBase32, UnicodeEncodeError):
            raw = b""
        secret, check = raw[: cls.LENGTH], raw[cls.LENGTH :]
        if not raw or not hmac.compare_digest(check, _check(secret)):
            raise MalformedMessageError("a recovery code has 40 letters and digits; this one was mistyped")
        return cls(secret)


@final
@dataclass(frozen=True, slots=True)
class ExportFile:
    """An export before it is opened. The header is plain: it says whose it is."""

    user_id: UserId
    account_key: AccountKey
    nonce: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """`0x01 | user id u8 length | account key 32 | nonce 12 | ciphertext and tag`."""
        return self._header() + self.nonce + self.sealed

    @classmethod
    def decode(cls, data: bytes) -> "ExportFile":
        """Parse an export.

        Raises:
            MalformedMessageError, UnsupportedVersionError: it is none.
        """
        reader = Reader(data)
        if data[:1] != bytes((_VERSION,)):
            raise UnsupportedVersionError("export", reader.u8())
        _, user_id, account_key = read_export_header(reader)
        nonce = reader.fixed(aead.NONCE_LENGTH)
        if len(data) - reader.position() < aead.TAG_LENGTH:
            raise MalformedMessageError("an export ends with a tag of 16 bytes")
        return cls(user_id, account_key, nonce, data[reader.position() :])

    def open(self, code: RecoveryCode, purpose: Purpose = Purpose.EXPORT) -> ExportPayload:
        """Open with a code what was sealed for this purpose, and check that it holds the account of the header.

        Raises:
            WrongRecoveryCodeError: another code, or a file that was changed.
            InvalidSignatureError: the account's key, its list, or a contact's list does not fit.
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: the contents do not decode.
        """
        return open_payload(export_key(code, purpose), self.nonce, self.sealed, self._header())

    def _header(self) -> bytes:
        return export_header(_VERSION, self.user_id, self.account_key)


def seal_export(
    code: RecoveryCode, user_id: UserId, payload: ExportPayload, rng: Rng, purpose: Purpose = Purpose.EXPORT
) -> ExportFile:
    """Seal a payload. The nonce is random: one code may seal many exports."""
    account_key, nonce = payload.account_key_pair.public, rng(aead.NONCE_LENGTH)
    header = ExportFile(user_id, account_key, nonce, b"")._header()
    return ExportFile(
        user_id, account_key, nonce, aead.seal(export_key(code, purpose), nonce, payload.encode(), header)
    )


def open_payload(key: bytes, nonce: bytes, sealed: bytes, header: bytes) -> ExportPayload:
    """Open the account of an export, and check that it is the one of the header.

    Raises:
        See `ExportFile.open`.
    """
    try:
        payload = ExportPayload.decode(aead.unseal(key, nonce, sealed, header))
    except AuthenticationError:
        raise WrongRecoveryCodeError from None
    user_id, account_key = read_export_header(Reader(header))[1:]
    if payload.account_key_pair.public != account_key:
        raise InvalidSignatureError("export: the private key is another account's")
    verified = payload.device_list.verify(user_id)
    if verified.content.account_key != account_key:
        raise InvalidSignatureError("export: the device list is another account's")
    for contact in payload.contacts:
        contact.verify(user_id)
    return payload


def export_header(version: int, user_id: UserId, account_key: AccountKey) -> bytes:
    """`version u8 | user id u8 length | account key 32`: plain, and the associated data of everything after it."""
    return Writer().u8(version).ascii8(user_id).raw(account_key.raw).finish()


def read_export_header(reader: Reader) -> tuple[int, UserId, AccountKey]:
    """Take version, user id and account key off a reader.

    Raises:
        MalformedMessageError: they do not decode.
    """
    version = reader.u8()
    return version, parse_user_id(decode_ascii(reader.bytes8())), AccountKey.decode(reader)


def export_key(code: RecoveryCode, purpose: Purpose) -> bytes:
    """Return the 32-byte key under which a code seals for a purpose."""
    return kdf.hkdf_sha512(b"", code.expose(), purpose.value, aead.KEY_LENGTH)


def _check(secret: bytes) -> bytes:
    return kdf.sha256(Writer().bytes8(CHECK_LABEL).raw(secret).finish())[:_CHECK]
