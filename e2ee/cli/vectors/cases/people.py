"""The people of the vectors: devices with names for all of their keys.

Owns: their keys, prekeys, lists and bundles.
Does not know about: cases.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, final

from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import JsonObject
from e2ee.limits import DEVICE_LIST_LIFETIME_MS
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
    SeedBytes32,
    SeedBytes64,
)
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
from e2ee.wire.prekey_bundle import PreKeyBundle

NOW: Final = 1_800_000_000_000
"""The time at which all devices were made, Unix milliseconds."""


@final
@dataclass(frozen=True)
class Person:
    """A user with one device. All prekeys were made at `NOW`."""

    account: Account
    signed_prekey: OwnPreKey
    one_time_prekeys: tuple[OwnPreKey, ...]
    one_time_kem: OwnPreKey
    last_resort: OwnPreKey

    @property
    def address(self) -> DeviceAddress:
        return self.account.address

    @property
    def user_id(self) -> UserId:
        return self.account.address.user_id

    @property
    def listed(self) -> ListedDevice:
        party = self.account.party
        return ListedDevice(self.address.device_id, party.device_signing_key, party.identity_key)

    def device_list(self) -> VerifiedDeviceList:
        return self.account.first_device_list(NOW)

    def bundle(self, *, one_time: bool = True, last_resort: bool = False) -> PreKeyBundle:
        first = self.one_time_prekeys[0]
        return PreKeyBundle(
            self.address,
            self.account.signed_prekey(self.signed_prekey),
            self.account.one_time_prekey(first) if one_time else None,
            self.account.kem_prekey(self.last_resort if last_resort else self.one_time_kem),
        )

    def device_json(self) -> JsonObject:
        """Return the device with all of its secrets, as vectors write it."""
        account = self.account
        return {
            "user_id": self.user_id,
            "device_id": str(self.address.device_id),
            "account_seed": account.account_key_pair.seed.expose().hex(),
            "device_signing_seed": account.device_signing_key_pair.seed.expose().hex(),
            "identity_private_key": account.identity_key_pair.private.expose().hex(),
            "created_at": NOW,
            "signed_prekeys": [_private_json(self.signed_prekey)],
            "one_time_prekeys": [_private_json(each) for each in self.one_time_prekeys],
            "kem_prekeys": [_kem_json(self.one_time_kem), _kem_json(self.last_resort)],
        }


@cache
def person(name: str, device: int = 1, account_of: str = "") -> Person:
    """Return a user's device; equal arguments give an equal one. `account_of` names another user's account key."""
    tag = name if device == 1 else f"{name} {device}"

    def pair(what: str) -> PreKeyPair:
        return PreKeyPair(_seed32(f"{tag}: {what}"))

    def kem(what: str) -> KemPreKeyPair:
        return KemPreKeyPair(SeedBytes64(drawn(f"{tag}: {what}", 64)))

    def prekey(kind: PreKeyKind, what: str, made: PreKeyPair | KemPreKeyPair) -> OwnPreKey:
        prekey_id = PreKeyId(int.from_bytes(drawn(f"{tag}: id of {what}", 4), "big"))
        return OwnPreKey(kind, prekey_id, made, NOW)

    account = Account(
        DeviceAddress(UserId(name), DeviceId(drawn(f"{tag}: device id", 16))),
        AccountKeyPair(_seed32(f"{account_of or name}: account key")),
        DeviceSigningKeyPair(_seed32(f"{tag}: device signing key")),
        IdentityKeyPair(_seed32(f"{tag}: identity key")),
    )
    zero = OwnPreKey(PreKeyKind.ONE_TIME, PreKeyId(0), pair("one-time prekey"), NOW)  # zero is a valid id
    return Person(
        account,
        prekey(PreKeyKind.SIGNED, "signed prekey", pair("signed prekey")),
        (zero, prekey(PreKeyKind.ONE_TIME, "one-time prekey 2", pair("one-time prekey 2"))),
        prekey(PreKeyKind.ONE_TIME_KEM, "one-time KEM prekey", kem("one-time KEM prekey")),
        prekey(PreKeyKind.LAST_RESORT_KEM, "last-resort KEM prekey", kem("last-resort KEM prekey")),
    )


def kem_keys() -> tuple[bytes, ...]:
    """Return the KEM prekeys that vectors encapsulate to."""
    return tuple(
        kem_pair(each).public.raw
        for who in (person("alice"), person("bob"))
        for each in (who.one_time_kem, who.last_resort)
    )


def x25519_pair(prekey: OwnPreKey) -> PreKeyPair:
    """Return the pair of a signed or one-time prekey."""
    if not isinstance(prekey.pair, PreKeyPair):
        raise TypeError("not an X25519 prekey")
    return prekey.pair


def kem_pair(prekey: OwnPreKey) -> KemPreKeyPair:
    """Return the pair of a KEM prekey."""
    if not isinstance(prekey.pair, KemPreKeyPair):
        raise TypeError("not a KEM prekey")
    return prekey.pair


def list_of(
    owner: Person, devices: Iterable[ListedDevice], seq: int = 1, previous: DeviceListHash = NO_PREVIOUS_LIST
) -> DeviceList:
    """Return a user's unsigned list of these devices."""
    created_at = NOW + seq
    return DeviceList(
        owner.user_id,
        owner.account.account_key_pair.public,
        seq,
        previous,
        created_at,
        created_at + DEVICE_LIST_LIFETIME_MS,
        ordered(devices),
    )


def signed(owner: Person, content: DeviceList) -> SignedDeviceList:
    """Sign a list with the owner's account key."""
    return SignedDeviceList(content, owner.account.account_key_pair.sign(content.signed_bytes()))


def _seed32(name: str) -> SeedBytes32:
    return SeedBytes32(drawn(name, 32))


def _private_json(prekey: OwnPreKey) -> JsonObject:
    return {"prekey_id": prekey.prekey_id, "private_key": x25519_pair(prekey).private.expose().hex()}


def _kem_json(prekey: OwnPreKey) -> JsonObject:
    kind = 1 if prekey.kind is PreKeyKind.ONE_TIME_KEM else 2
    return {"kind": kind, "prekey_id": prekey.prekey_id, "seed": kem_pair(prekey).seed.expose().hex()}
