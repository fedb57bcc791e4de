"""This device's long-term keys and the private halves of its prekeys.

Owns: making the account, the first device list, prekeys with their signatures.
Does not know about: storage, publication, sessions.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import final

from e2ee.limits import DEVICE_LIST_LIFETIME_MS, LATE_ENVELOPE_MS, PREKEY_LIFETIME_MS
from e2ee.pqxdh import Party
from e2ee.primitives.rng import Rng
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
)
from e2ee.wire.device_list import (
    NO_PREVIOUS_LIST,
    DeviceList,
    ListedDevice,
    SignedDeviceList,
    VerifiedDeviceList,
)
from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import (
    SIGNED_PREKEY_LABEL,
    KemPreKey,
    KemPreKeyKind,
    OneTimePreKey,
    SignedPreKey,
    kem_prekey_label,
    prekey_signed_bytes,
)


@final
class PreKeyKind(IntEnum):
    """The four kinds of prekeys; they share one id space per device."""

    SIGNED = 1
    ONE_TIME = 2
    ONE_TIME_KEM = 3
    LAST_RESORT_KEM = 4

    @property
    def is_one_time(self) -> bool:
        return self in (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM)

    @property
    def is_kem(self) -> bool:
        return self in (PreKeyKind.ONE_TIME_KEM, PreKeyKind.LAST_RESORT_KEM)


@final
@dataclass(frozen=True, slots=True)
class OwnPreKey:
    """A prekey with its private half. Times are Unix milliseconds."""

    kind: PreKeyKind
    prekey_id: PreKeyId
    pair: PreKeyPair | KemPreKeyPair
    created_at: int
    published: bool = False
    """Whether the server has confirmed it. Stored before the upload, so a repeated upload has the same bytes."""
    replaced_at: int | None = None
    """When a newer one of its kind took over; the private half lives 45 days longer. Signed and last-resort only."""

    @property
    def expires_at(self) -> int:
        """Expiry that the signature covers; one-time X25519 prekeys carry none on the wire."""
        return self.created_at + PREKEY_LIFETIME_MS

    @property
    def is_due(self) -> bool:
        """Whether the server should be given it: it was not confirmed, and no newer one took over meanwhile."""
        return not self.published and self.replaced_at is None

    def obsolete(self, now: int) -> bool:
        """Whether no late first message can need the private half any more."""
        return self.replaced_at is not None and now - self.replaced_at > LATE_ENVELOPE_MS


@final
@dataclass(frozen=True, slots=True)
class Account:
    """The keys of this device of this user, private halves included."""

    address: DeviceAddress
    account_key_pair: AccountKeyPair
    device_signing_key_pair: DeviceSigningKeyPair
    identity_key_pair: IdentityKeyPair

    @classmethod
    def generate(cls, user_id: UserId, rng: Rng) -> "Account":
        """Make a new account with its first device."""
        return cls(
            DeviceAddress(user_id, DeviceId(rng(16))),
            AccountKeyPair.generate(rng),
            DeviceSigningKeyPair.generate(rng),
            IdentityKeyPair.generate(rng),
        )

    @property
    def party(self) -> Party:
        """The public side, as the handshake's transcript names it."""
        return Party(
            self.address,
            self.account_key_pair.public,
            self.device_signing_key_pair.public,
            self.identity_key_pair.public,
        )

    @property
    def listed(self) -> ListedDevice:
        """This device as a list names it."""
        party = self.party
        return ListedDevice(self.address.device_id, party.device_signing_key, party.identity_key)

    def first_device_list(self, now: int) -> VerifiedDeviceList:
        """Return a signed list with this device alone, seq 1."""
        return self.sign_device_list(
            DeviceList(
                user_id=self.address.user_id,
                account_key=self.account_key_pair.public,
                seq=1,
                previous_hash=NO_PREVIOUS_LIST,
                created_at=now,
                expires_at=now + DEVICE_LIST_LIFETIME_MS,
                devices=(self.listed,),
            )
        )

    def sign_device_list(self, content: DeviceList) -> VerifiedDeviceList:
        """Sign a list with the account key."""
        signed = SignedDeviceList(content, self.account_key_pair.sign(content.signed_bytes()))
        return signed.verify(self.address.user_id)

    def signed_prekey(self, prekey: OwnPreKey) -> SignedPreKey:
        """Return the public, signed form of a signed prekey."""
        if not isinstance(prekey.pair, PreKeyPair):
            raise TypeError("a signed prekey is an X25519 key")
        public = prekey.pair.public
        signature = self._sign(SIGNED_PREKEY_LABEL, prekey, public.raw)
        return SignedPreKey(prekey.prekey_id, prekey.expires_at, public, signature)

    def one_time_prekey(self, prekey: OwnPreKey) -> OneTimePreKey:
        """Return the public form of a one-time prekey."""
        if not isinstance(prekey.pair, PreKeyPair):
            raise TypeError("a one-time prekey is an X25519 key")
        return OneTimePreKey(prekey.prekey_id, prekey.pair.public)

    def kem_prekey(self, prekey: OwnPreKey) -> KemPreKey:
        """Return the public, signed form of a KEM prekey of either kind."""
        if not isinstance(prekey.pair, KemPreKeyPair):
            raise TypeError("a KEM prekey is an ML-KEM key")
        kind = KemPreKeyKind.ONE_TIME if prekey.kind is PreKeyKind.ONE_TIME_KEM else KemPreKeyKind.LAST_RESORT
        public = prekey.pair.public
        signature = self._sign(kem_prekey_label(kind), prekey, public.raw)
        return KemPreKey(kind, prekey.prekey_id, prekey.expires_at, public, signature)

    def _sign(self, label: bytes, prekey: OwnPreKey, public_key: bytes) -> bytes:
        signed = prekey_signed_bytes(label, self.address, prekey.prekey_id, prekey.expires_at, public_key)
        return self.device_signing_key_pair.sign(signed)


def generate_prekey(kind: PreKeyKind, prekey_id: PreKeyId, now: int, rng: Rng) -> OwnPreKey:
    """Make a prekey of a kind under an id that was never used before."""
    pair = KemPreKeyPair.generate(rng) if kind.is_kem else PreKeyPair.generate(rng)
    return OwnPreKey(kind, prekey_id, pair, now)
