"""Registering devices.

Owns: the rules of registration.
Does not know about: HTTP, SQL, what the mailbox keeps for a device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection

from e2ee.limits import DAY_MS, MAX_DEVICES
from e2ee.wire.device_list import ListedDevice, SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import (
    DeviceExistsProblem,
    DeviceRetiredProblem,
    ListedKeysProblem,
    RateLimitedProblem,
    TooManyDevicesProblem,
)
from keyserver.repository import device_lists, devices, rate_limits
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.retiring import RemoveInboxes, retire
from keyserver.service.revocation import revoke_device
from keyserver.tables import DeviceStatus

CreateInbox = Callable[[Connection, DeviceAddress, int], None]
"""Makes the device's mailbox in the transaction that registers it; the last argument is the time."""

MAX_PENDING_DEVICES: Final = MAX_DEVICES
"""Devices of one user that may wait to be listed."""

PENDING_MS: Final = DAY_MS
"""How long a waiting device is safe from being displaced by newer ones."""


@final
@dataclass(frozen=True, slots=True)
class DeviceService:
    """Registers devices."""

    database: Database
    now: Clock
    limit: RateLimit
    create_inbox: CreateInbox
    remove_inboxes: RemoveInboxes

    async def register(self, user_id: UserId, device: ListedDevice) -> DeviceStatus:
        """Register a device of `user_id`; the same keys again change nothing. Return its status.

        A new device is pending until a list contains it, unless the newest list already does.

        Raises:
            DeviceExistsProblem, DeviceRetiredProblem, ListedKeysProblem: the id is taken.
            TooManyDevicesProblem, RateLimitedProblem: enough for now.
        """
        return await self.database.write(lambda connection: self._register(connection, user_id, device))

    async def revoke(self, address: DeviceAddress) -> bool:
        """Retire a device for good. False if there is no such device, or not any more."""
        return await self.database.write(
            lambda connection: revoke_device(connection, address, self.now(), self.remove_inboxes)
        )

    async def present(self, user_id: UserId) -> Sequence[tuple[DeviceId, DeviceStatus, int]]:
        """Return a user's devices that have not left, and when each was registered, oldest first."""
        return await self.database.read(lambda connection: devices.present(connection, user_id))

    def _register(self, connection: Connection, user_id: UserId, device: ListedDevice) -> DeviceStatus:
        now, address = self.now(), DeviceAddress(user_id, device.device_id)
        devices.ensure_user(connection, user_id, now)
        devices.find_user(connection, user_id, lock=True)
        known = devices.find_device(connection, address)
        if known is not None:
            return _same(known, device)
        wait = rate_limits.take(connection, f"register {user_id}", self.limit, now)
        if wait:
            raise RateLimitedProblem(wait)
        listed = _listed(connection, address)
        if listed is not None and listed != device:
            raise ListedKeysProblem
        if listed is None:
            self._make_room(connection, user_id, now)
        devices.add_device(connection, address, (device.device_signing_key, device.identity_key), now)
        self.create_inbox(connection, address, now)
        if listed is None:
            return DeviceStatus.PENDING
        devices.activate(connection, user_id, [device.device_id])
        return DeviceStatus.ACTIVE

    def _make_room(self, connection: Connection, user_id: UserId, now: int) -> None:
        """Retire the oldest device that was never listed, if there are too many. It had a day for it."""
        pending = devices.pending(connection, user_id)
        if len(pending) < MAX_PENDING_DEVICES:
            return
        oldest, created_at = pending[0]
        if created_at > now - PENDING_MS:
            raise TooManyDevicesProblem
        retire(connection, user_id, [oldest], now, self.remove_inboxes)


def _same(known: devices.DeviceRow, device: ListedDevice) -> DeviceStatus:
    if (known.device_signing_key, known.identity_key) != (device.device_signing_key, device.identity_key):
        raise DeviceExistsProblem
    if known.status is DeviceStatus.RETIRED:
        raise DeviceRetiredProblem
    return known.status


def _listed(connection: Connection, address: DeviceAddress) -> ListedDevice | None:
    newest = device_lists.newest(connection, address.user_id)
    return None if newest is None else SignedDeviceList.decode(newest).unverified.device(address.device_id)
