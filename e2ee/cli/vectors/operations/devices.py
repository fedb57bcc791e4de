"""Whole devices in vectors: their secrets, what they publish, their store.

Owns: building a device from its private keys, and what it publishes.
Does not know about: the steps of a conversation (conversation.py).
"""

from typing import Final, final

from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.cli.vectors.model import Fields, JsonObject
from e2ee.cli.vectors.operations.parts import ADDRESS, address_of
from e2ee.cli.vectors.operations.primitives import rejected_secret
from e2ee.cli.vectors.schema import Schema, array, hex_bytes, integer, one_of, record, timestamp
from e2ee.cli.vectors.script import Encapsulation
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.primitives.rng import Rng
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
    RatchetEncapsulate,
    SeedBytes32,
    SeedBytes64,
)
from e2ee.session import Session
from e2ee.stores.memory import MemoryStore
from e2ee.stores.records import load_prekey, save_account, save_own_device_list, save_prekey
from e2ee.stores.session_records import sending_session, sessions_with
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle

_PRIVATE: Final = record(prekey_id=integer(), private_key=hex_bytes(32))

DEVICE: Final = record(
    **ADDRESS,
    account_seed=hex_bytes(32),
    device_signing_seed=hex_bytes(32),
    identity_private_key=hex_bytes(32),
    created_at=timestamp("of the device list and of all prekeys, Unix milliseconds"),
    signed_prekeys=array(_PRIVATE),
    one_time_prekeys=array(_PRIVATE),
    kem_prekeys=array(record(kind=one_of(1, 2), prekey_id=integer(), seed=hex_bytes(64))),
)
"""A user's only device. Lists expire after 30 days and prekeys after 90."""

PUBLISHED: Final[Schema] = record(
    device_list=hex_bytes(),
    signed_prekeys=array(hex_bytes()),
    one_time_prekeys=array(hex_bytes()),
    kem_prekeys=array(hex_bytes()),
    rejected_secrets=array(hex_bytes(32), description="of the KEM prekeys, Decaps of 1,568 bytes 0x5a"),
)


@final
class VectorDevice:
    """A device on a store in memory. Randomness and time come with every step."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.account = Account(
            address_of(fields),
            AccountKeyPair(SeedBytes32(fields.hex("account_seed"))),
            DeviceSigningKeyPair(SeedBytes32(fields.hex("device_signing_seed"))),
            IdentityKeyPair(SeedBytes32(fields.hex("identity_private_key"))),
        )
        self.store = MemoryStore()
        self._prekeys = _prekeys(fields)
        with self.store.write() as tx:
            save_account(tx, self.account)
            save_own_device_list(tx, self.account.first_device_list(fields.number("created_at")))
            for each in self._prekeys:
                save_prekey(tx, each)

    def anew(self) -> "VectorDevice":
        """Return this device as it was before it received anything."""
        return VectorDevice(self._fields)

    @property
    def address(self) -> DeviceAddress:
        return self.account.address

    @property
    def user_id(self) -> UserId:
        return self.account.address.user_id

    def messenger(self, now: int, rng: Rng, encapsulate: RatchetEncapsulate | None = None) -> Messenger:
        """Return the device at one moment. A Messenger holds no state, so one per step is as good as one for all."""
        return Messenger(
            self.store, self.account, rng=rng, clock=lambda: now, encapsulate=encapsulate or Encapsulation()
        )

    def device_list(self) -> SignedDeviceList:
        return self.messenger(0, _no_randomness).own_device_list().signed

    def bundle(self, signed_prekey_id: int, one_time_prekey_id: int | None, kem_prekey_id: int) -> PreKeyBundle:
        """Return a bundle as a key server assembles it."""
        one_time = None if one_time_prekey_id is None else self._prekey(one_time_prekey_id)
        return PreKeyBundle(
            self.address,
            self.account.signed_prekey(self._prekey(signed_prekey_id)),
            None if one_time is None else self.account.one_time_prekey(one_time),
            self.account.kem_prekey(self._prekey(kem_prekey_id)),
        )

    def published_json(self) -> JsonObject:
        """Return what the device publishes, and what shows that its KEM seeds are right as a whole."""
        of_kind = {kind: [each for each in self._prekeys if each.kind is kind] for kind in PreKeyKind}
        kem = [each for each in self._prekeys if each.kind.is_kem]
        signed, one_time = of_kind[PreKeyKind.SIGNED], of_kind[PreKeyKind.ONE_TIME]
        seeds = [each.pair.seed.expose() for each in kem if isinstance(each.pair, KemPreKeyPair)]
        return {
            "device_list": self.device_list().encode().hex(),
            "signed_prekeys": [self.account.signed_prekey(each).encode().hex() for each in signed],
            "one_time_prekeys": [self.account.one_time_prekey(each).encode().hex() for each in one_time],
            "kem_prekeys": [self.account.kem_prekey(each).encode().hex() for each in kem],
            "rejected_secrets": [rejected_secret(seed).hex() for seed in seeds],
        }

    def sessions(self, peer: DeviceAddress) -> list[Session]:
        with self.store.read() as tx:
            return sessions_with(tx, peer)

    def sending_session(self, peer: DeviceAddress, now: int) -> Session:
        """Return the session that a message to the peer goes on."""
        with self.store.read() as tx:
            session = sending_session(tx, peer, now)
        if session is None:
            raise ValueError("the vector sends without a session")
        return session

    def skipped_keys(self) -> int:
        """Return how many skipped keys are stored, of both ratchets and all sessions."""
        with self.store.read() as tx:
            # A mark of an evicted key has no value.
            return sum(1 for record in tx.scan(Table.SKIPPED_KEYS) if record.value)

    def holds_prekey(self, prekey_id: int) -> bool:
        with self.store.read() as tx:
            return load_prekey(tx, PreKeyId(prekey_id)) is not None

    def _prekey(self, prekey_id: int) -> OwnPreKey:
        return next(each for each in self._prekeys if each.prekey_id == prekey_id)


def _prekeys(fields: Fields) -> list[OwnPreKey]:
    created_at = fields.number("created_at")
    found = []
    for name, kind in (("signed_prekeys", PreKeyKind.SIGNED), ("one_time_prekeys", PreKeyKind.ONE_TIME)):
        for each in fields.records(name):
            pair = PreKeyPair(SeedBytes32(each.hex("private_key")))
            found.append(OwnPreKey(kind, PreKeyId(each.number("prekey_id")), pair, created_at))
    for each in fields.records("kem_prekeys"):
        kind = PreKeyKind.ONE_TIME_KEM if each.number("kind") == 1 else PreKeyKind.LAST_RESORT_KEM
        kem_pair = KemPreKeyPair(SeedBytes64(each.hex("seed")))
        found.append(OwnPreKey(kind, PreKeyId(each.number("prekey_id")), kem_pair, created_at))
    return found


def _no_randomness(length: int) -> bytes:
    raise ValueError(f"no randomness is prescribed here, {length} bytes were drawn")
