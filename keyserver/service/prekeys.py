"""Publishing prekeys.

Owns: what the server accepts as a prekey, and that an id never comes back with other bytes.
Does not know about: HTTP, SQL, who claims.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from sqlalchemy import Connection

from e2ee.limits import MAX_ONE_TIME_PREKEYS
from e2ee.primitives.kdf import sha256
from e2ee.wire.identifiers import DeviceAddress, PreKeyId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, SignedPreKey
from e2ee.wire.public_keys import DeviceSigningKey
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import (
    DeviceRevokedProblem,
    PreKeyConflictProblem,
    PreKeyExpiredProblem,
    RateLimitedProblem,
    TooManyPreKeysProblem,
)
from keyserver.repository import devices, prekeys, rate_limits
from keyserver.repository.prekeys import NewPreKey
from keyserver.repository.rate_limits import RateLimit
from keyserver.tables import DeviceStatus, PreKeyKind

PublishedPreKey = SignedPreKey | OneTimePreKey | KemPreKey

ROTATING: Final = (PreKeyKind.SIGNED, PreKeyKind.LAST_RESORT_KEM)
"""One of these is offered at a time; a new one replaces it."""

ONE_TIME: Final = (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM)


class Counts(NamedTuple):
    """What a device offers."""

    one_time: int
    one_time_kem: int
    signed_prekey_id: PreKeyId | None
    last_resort_id: PreKeyId | None


@final
@dataclass(frozen=True, slots=True)
class PreKeyService:
    """Publishes a device's prekeys, all kinds in one transaction."""

    database: Database
    now: Clock
    limit: RateLimit

    async def publish(self, address: DeviceAddress, upload: Sequence[PublishedPreKey]) -> Counts:
        """Publish prekeys; return what is offered then. What was published before with the same bytes changes nothing.

        Raises:
            InvalidSignatureError: a prekey is not signed by this device.
            PreKeyConflictProblem: an id was published before with other bytes. Nothing of the upload is stored.
            PreKeyExpiredProblem, TooManyPreKeysProblem: nobody could use them.
            RateLimitedProblem: too often; what changes nothing is not counted.
        """
        device = await self.database.read(lambda connection: devices.find_device(connection, address))
        if device is None:
            raise DeviceRevokedProblem
        # A hundred signatures are milliseconds, and libsodium gives the interpreter free meanwhile.
        fresh = await asyncio.to_thread(_check_all, upload, address, device.device_signing_key)
        return await self.database.write(lambda connection: self._publish(connection, address, fresh))

    async def counts(self, address: DeviceAddress) -> Counts:
        """Return what the device offers."""
        return await self.database.read(lambda connection: _counts(connection, address, self.now()))

    def _publish(self, connection: Connection, address: DeviceAddress, upload: Sequence[NewPreKey]) -> Counts:
        now = self.now()
        # The lock keeps two uploads of one device from passing the checks side by side.
        device = devices.find_device(connection, address, lock=True)
        if device is None or device.status is DeviceStatus.RETIRED:
            raise DeviceRevokedProblem
        fresh = _unknown(connection, address, upload)
        # Every id stays for as long as the device exists, so how many there are is a matter of time.
        wait = rate_limits.take(connection, f"publish {address}", self.limit, now) if fresh else 0
        if wait:
            raise RateLimitedProblem(wait)
        for each in fresh:
            if each.expires_at is not None and each.expires_at <= now:
                raise PreKeyExpiredProblem(each.prekey_id)
            if each.kind in ROTATING:
                prekeys.replace(connection, address, each.kind, now)
        prekeys.add(connection, address, fresh, now)
        counts = _counts(connection, address, now)
        if max(counts.one_time, counts.one_time_kem) > MAX_ONE_TIME_PREKEYS:
            raise TooManyPreKeysProblem(MAX_ONE_TIME_PREKEYS)
        return counts


def _check_all(upload: Sequence[PublishedPreKey], address: DeviceAddress, key: DeviceSigningKey) -> Sequence[NewPreKey]:
    return [_check(each, address, key) for each in upload]


def _check(prekey: PublishedPreKey, address: DeviceAddress, key: DeviceSigningKey) -> NewPreKey:
    """Verify a prekey's signature and note what is stored of it."""
    if isinstance(prekey, OneTimePreKey):
        kind, expires_at = PreKeyKind.ONE_TIME, None
    else:
        prekey.verify(address, key)
        kind, expires_at = _signed_kind(prekey), prekey.expires_at
    body = prekey.encode()
    return NewPreKey(prekey.prekey_id, kind, body, sha256(body), expires_at)


def _signed_kind(prekey: SignedPreKey | KemPreKey) -> PreKeyKind:
    if isinstance(prekey, SignedPreKey):
        return PreKeyKind.SIGNED
    return PreKeyKind.ONE_TIME_KEM if prekey.kind is KemPreKeyKind.ONE_TIME else PreKeyKind.LAST_RESORT_KEM


def _unknown(connection: Connection, address: DeviceAddress, upload: Sequence[NewPreKey]) -> Sequence[NewPreKey]:
    """Return what is new of an upload.

    Raises:
        PreKeyConflictProblem: an id is known with another kind or other bytes, from this upload or long ago.
    """
    known = dict(prekeys.fingerprints(connection, address, [each.prekey_id for each in upload]))
    fresh = []
    for each in upload:
        mark = prekeys.Fingerprint(each.kind, each.hash)
        stored = known.setdefault(each.prekey_id, mark)
        if stored != mark:
            raise PreKeyConflictProblem(each.prekey_id, stored.hash)
        if stored is mark:
            fresh.append(each)
    return fresh


def _counts(connection: Connection, address: DeviceAddress, now: int) -> Counts:
    numbers = prekeys.count_offered(connection, address, now)
    return Counts(
        numbers.get(PreKeyKind.ONE_TIME, 0),
        numbers.get(PreKeyKind.ONE_TIME_KEM, 0),
        prekeys.offered(connection, address, PreKeyKind.SIGNED, now),
        prekeys.offered(connection, address, PreKeyKind.LAST_RESORT_KEM, now),
    )
