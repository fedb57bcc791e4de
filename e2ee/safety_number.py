"""Safety numbers: what two people compare to know that nobody stands between them (protocol.md section 4.3).

    h_0     = SHA-512(u8 len(label) || label || account key || user id),   label = "E2EE/1 safety number"
    h_(i+1) = SHA-512(h_i || account key), 5,200 hashes in all
    half    = the first 30 bytes of the last hash, in six groups of 5 bytes: each modulo 100,000 as five digits

Owns: the sixty digits, over user ids and account keys only, so that they stay when devices come and go.
Does not know about: who compared them, and what that changes.

The iterations follow Signal's construction: they make a search for a key with the same digits 5,200 times dearer.
"""

from hashlib import sha512
from typing import Final

from e2ee.wire.codec import Writer
from e2ee.wire.identifiers import UserId
from e2ee.wire.public_keys import AccountKey

SAFETY_NUMBER_LABEL: Final = b"E2EE/1 safety number"
"""Domain separation and version of the construction."""

_HASHES = 5_200
_GROUPS = 6
_GROUP_BYTES = 5


def half_of(user_id: UserId, account_key: AccountKey) -> str:
    """Return one user's half: 30 digits."""
    raw = account_key.raw
    digest = sha512(Writer().bytes8(SAFETY_NUMBER_LABEL).raw(raw).finish() + user_id.encode()).digest()
    for _ in range(_HASHES - 1):
        digest = sha512(digest + raw).digest()
    groups = (digest[at * _GROUP_BYTES : (at + 1) * _GROUP_BYTES] for at in range(_GROUPS))
    return "".join(f"{int.from_bytes(group, 'big') % 100_000:05}" for group in groups)


def safety_number(one: tuple[UserId, AccountKey], other: tuple[UserId, AccountKey]) -> str:
    """Return the 60 digits that both ends see alike, in either order of the arguments: the smaller half comes first."""
    return "".join(sorted((half_of(*one), half_of(*other))))
