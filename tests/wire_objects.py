"""Wire objects with real keys and real signatures, for tests of the wire layer.

Owns: a device of a user, the prekeys and lists that it signs.
Does not know about: stores, sessions, the key server.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from e2ee.limits import DAY_MS, DEVICE_LIST_LIFETIME_MS, PREKEY_LIFETIME_MS
from e2ee.primitives.rng import Rng
from e2ee.private_keys import AccountKeyPair, DeviceSigningKeyPair, IdentityKeyPair, KemPreKeyPair, PreKeyPair
from e2ee.wire.device_list import (
    NO_PREVIOUS_LIST,
    DeviceList,
    DeviceListHash,
    ListedDevice,
    SignedDeviceList,
    VerifiedDeviceList,
    ordered,
)
from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, PreKeyBundle, SignedPreKey

NOW: Final = 1_800_000_000_000
EXPIRY: Final = NOW + PREKEY_LIFETIME_MS


def seeded_rng(seed: int | str) -> Rng:
    """Return a reproducible source of bytes. Never for anything but tests."""
    return Random(seed).randbytes


@dataclass(frozen=True)
class Device:
    """One device with all of its secrets; several devices of one user share the account key pair."""

    address: DeviceAddress
    account: AccountKeyPair
    signing: DeviceSigningKeyPair
    identity: IdentityKeyPair
    prekey: PreKeyPair
    one_time: PreKeyPair
    kem: KemPreKeyPair

    def listed(self) -> ListedDevice:
        return ListedDevice(self.address.device_id, self.signing.public, self.identity.public)

    def signed_prekey(self, prekey_id: int = 7, expires_at: int = EXPIRY) -> SignedPreKey:
        unsigned = SignedPreKey(PreKeyId(prekey_id), expires_at, self.prekey.public, bytes(64))
        signature = self.signing.sign(unsigned.signed_bytes(self.address))
        return SignedPreKey(PreKeyId(prekey_id), expires_at, self.prekey.public, signature)

    def one_time_prekey(self, prekey_id: int = 8) -> OneTimePreKey:
        return OneTimePreKey(PreKeyId(prekey_id), self.one_time.public)

    def kem_prekey(
        self, kind: KemPreKeyKind = KemPreKeyKind.ONE_TIME, prekey_id: int = 9, expires_at: int = EXPIRY
    ) -> KemPreKey:
        unsigned = KemPreKey(kind, PreKeyId(prekey_id), expires_at, self.kem.public, bytes(64))
        signature = self.signing.sign(unsigned.signed_bytes(self.address))
        return KemPreKey(kind, PreKeyId(prekey_id), expires_at, self.kem.public, signature)

    def bundle(self) -> PreKeyBundle:
        return PreKeyBundle(self.address, self.signed_prekey(), self.one_time_prekey(), self.kem_prekey())


def make_device(user: str = "alice", number: int = 1, account: AccountKeyPair | None = None) -> Device:
    """Make the `number`th device of a user; equal arguments give an equal device."""
    rng = seeded_rng(f"{user}/{number}")
    return Device(
        DeviceAddress(UserId(user), DeviceId(bytes([number]) + rng(15))),
        account or AccountKeyPair.generate(seeded_rng(user)),
        DeviceSigningKeyPair.generate(rng),
        IdentityKeyPair.generate(rng),
        PreKeyPair.generate(rng),
        PreKeyPair.generate(rng),
        KemPreKeyPair.generate(rng),
    )


def make_list(
    devices: Iterable[Device], seq: int = 1, previous: DeviceListHash | None = None, *, of: Device | None = None
) -> DeviceList:
    """Make the list of these devices' user; `of` says whose it is where there are no devices."""
    devices = tuple(devices)
    owner = of or devices[0]
    return DeviceList(
        user_id=owner.address.user_id,
        account_key=owner.account.public,
        seq=seq,
        previous_hash=previous or (NO_PREVIOUS_LIST if seq == 1 else DeviceListHash(bytes([seq % 256]) * 32)),
        created_at=NOW - DAY_MS,
        expires_at=NOW - DAY_MS + DEVICE_LIST_LIFETIME_MS,
        devices=ordered(device.listed() for device in devices),
    )


def sign_list(content: DeviceList, account: AccountKeyPair) -> SignedDeviceList:
    """Sign a list as its user's account does."""
    return SignedDeviceList(content, account.sign(content.signed_bytes()))


def verified_list(*devices: Device, seq: int = 1, previous: DeviceListHash | None = None) -> VerifiedDeviceList:
    """Make, sign and verify the list of these devices of one user."""
    owner = devices[0]
    signed = sign_list(make_list(devices, seq, previous), owner.account)
    return signed.verify(owner.address.user_id)
