"""Keeping what a user needs to recover an account: ciphertext that only a code on paper opens.

Owns: who may store, read and delete it.
Does not know about: HTTP, SQL, what is in it.
"""

from dataclasses import dataclass
from typing import final

from sqlalchemy import Connection

from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import DeviceNotListedProblem, RateLimitedProblem
from keyserver.repository import devices, rate_limits, recovery_blobs
from keyserver.repository.rate_limits import RateLimit
from keyserver.tables import DeviceStatus


@final
@dataclass(frozen=True, slots=True)
class RecoveryService:
    """Keeps one blob per user. An account reset deletes it (device_lists.py): the code of before is worth nothing."""

    database: Database
    now: Clock
    limit: RateLimit

    async def store(self, device: DeviceAddress, body: bytes | None) -> None:
        """Store the blob of a device's user in the place of the one before; None deletes it.

        Raises:
            DeviceNotListedProblem: the device is in no list: whoever has only the host's token must not replace it.
            RateLimitedProblem: too often.
        """
        await self.database.write(lambda connection: self._store(connection, device, body))

    async def blob(self, user_id: UserId) -> bytes | None:
        """Return the user's blob, if there is one."""
        return await self.database.read(lambda connection: recovery_blobs.find(connection, user_id))

    def _store(self, connection: Connection, device: DeviceAddress, body: bytes | None) -> None:
        known = devices.find_device(connection, device)
        if known is None or known.status is not DeviceStatus.ACTIVE:
            raise DeviceNotListedProblem
        wait = rate_limits.take(connection, f"recovery {device.user_id}", self.limit, self.now())
        if wait:
            raise RateLimitedProblem(wait)
        if body is None:
            recovery_blobs.forget(connection, device.user_id)
        else:
            recovery_blobs.store(connection, device.user_id, body, self.now())
