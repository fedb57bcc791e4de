"""Safety numbers: what two people compare to know that nobody stands between them (protocol.md section 4.3).

Read aloud as 60 digits, or shown as a QR code that the other end's camera reads.

    h_0     = SHA-512(u8 len(label) || label || account key || user id),   label = "E2EE/1 safety number"
    h_(i+1) = SHA-512(h_i || account key), 5,200 hashes in all
    half    = the first 30 bytes of the last hash, in six groups of 5 bytes: each modulo 100,000 as five digits

Owns: the sixty digits, over user ids and account keys only, so that they stay when devices come and go.
Does not know about: who compared them, and what that changes.

The iterations follow Signal's construction: they make a search for a key with the same digits 5,200 times dearer.
"""

import hmac
from base64 import b32encode
from hashlib import sha512
from typing import Final

from e2ee.errors import MalformedMessageError
from e2ee.wire.codec import Writer
from e2ee.wire.identifiers import UserId
from e2ee.wire.public_keys import AccountKey

SAFETY_NUMBER_LABEL: Final = b"E2EE/1 safety number"
"""Domain separation and version of the construction."""

_HASHES = 5_200
_GROUPS = 6
_GROUP_BYTES = 5
_QR_TEXT = 103


QR_PREFIX: Final = "E2EE1-SAFETY:"
"""In front of the base32 in a QR code; all of it is in the code's alphanumeric set, which makes it small."""

_QR_HALF = 32
"""Bytes of each side's last hash in a QR code."""

Side = tuple[UserId, AccountKey]
"""One of the two people: user id and account key."""


def half_of(user_id: UserId, account_key: AccountKey) -> str:
    """Return one user's half: 30 digits."""
    digest = _last_hash(user_id, account_key)
    groups = (digest[at * _GROUP_BYTES : (at + 1) * _GROUP_BYTES] for at in range(_GROUPS))
    return "".join(f"{int.from_bytes(group, 'big') % 100_000:05}" for group in groups)


def safety_number(one: Side, other: Side) -> str:
    """Return the 60 digits that both ends see alike, in either order of the arguments: the smaller half comes first."""
    return "".join(sorted((half_of(*one), half_of(*other))))


def qr_text(ours: Side, theirs: Side) -> str:
    """Return what our QR code says: prefix, then base32 of 32 bytes of our last hash and 32 of theirs."""
    raw = _last_hash(*ours)[:_QR_HALF] + _last_hash(*theirs)[:_QR_HALF]
    return QR_PREFIX + b32encode(raw).decode().rstrip("=")


def is_their_qr_text(text: str, ours: Side, theirs: Side) -> bool:
    """Say whether `text`, read off the other end's screen, names the keys that we know. Compares in constant time.

    Raises:
        MalformedMessageError: it is not a safety number's QR code of this version.
    """
    # Checked first, so that a photograph of something else is not taken for an attack.
    if not text.startswith(QR_PREFIX) or len(text) != len(QR_PREFIX) + _QR_TEXT or not text.isascii():
        raise MalformedMessageError("not the QR code of a safety number")
    return hmac.compare_digest(text.encode(), qr_text(theirs, ours).encode())


def _last_hash(user_id: UserId, account_key: AccountKey) -> bytes:
    raw = account_key.raw
    digest = sha512(Writer().bytes8(SAFETY_NUMBER_LABEL).raw(raw).finish() + user_id.encode()).digest()
    for _ in range(_HASHES - 1):
        digest = sha512(digest + raw).digest()
    return digest
