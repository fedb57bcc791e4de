"""Accepting and serving signed device lists.

Owns: the chain's rules on the server: who may bring a list, what it must follow, what it does to devices.
Does not know about: HTTP, SQL. Clients check signatures and chain again and never rely on this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from sqlalchemy import Connection

from e2ee.wire.device_list import DeviceList, ListPosition, SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import (
    AccountKeyChangedProblem,
    ContactRefusedProblem,
    DeviceListConflictProblem,
    DeviceRetiredProblem,
    FirstListProblem,
    ListedKeysProblem,
    RateLimitedProblem,
    ResetListsProblem,
)
from keyserver.repository import device_lists, devices, rate_limits, recovery_blobs
from keyserver.repository.devices import UserRow
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.policy import NOBODY, ContactPolicy
from keyserver.service.retiring import OnRetired, RemoveInboxes, retire
from keyserver.tables import DeviceStatus

HISTORY_PAGE: Final = 64
"""Lists in one answer."""


class History(NamedTuple):
    """Consecutive encoded lists, oldest first, and the number of the newest (0: none)."""

    lists: Sequence[bytes]
    newest_seq: int


@final
@dataclass(frozen=True, slots=True)
class DeviceListService:
    """Accepts lists by compare-and-set and serves them."""

    database: Database
    now: Clock
    policy: ContactPolicy
    limit: RateLimit
    on_retired: OnRetired
    remove_inboxes: RemoveInboxes

    async def publish(self, caller: UserId, signed: SignedDeviceList) -> ListPosition:
        """Accept a list that follows the newest one; one that was accepted before changes nothing.

        Where there is none, the first may have any number: an emptied server is given back what its owners have.

        Raises:
            InvalidSignatureError: the account key named in the list did not sign it.
            ContactRefusedProblem, FirstListProblem: the caller may not bring it.
            DeviceListConflictProblem, AccountKeyChangedProblem: it does not follow.
            ListedKeysProblem, DeviceRetiredProblem: it names a device wrongly.
            ResetListsProblem: it is the last one of its key, which comes with the first of a new one (`reset`).
        """
        content = signed.unverified
        if not await self.policy.may_contact(caller, content.user_id):
            raise ContactRefusedProblem
        signed.verify(content.user_id)
        retired = await self.database.write(lambda connection: self._publish(connection, caller, signed))
        if retired:
            self.on_retired([DeviceAddress(content.user_id, device_id) for device_id in retired])
        return content.position

    async def reset(self, caller: UserId, closing: SignedDeviceList | None, first: SignedDeviceList) -> ListPosition:
        """Give the caller's account a new key: `first` is its first list, after a last, empty one of the old key.

        Without `closing`, whose key may be lost, `first` follows the newest list. All other devices leave.

        Raises:
            InvalidSignatureError: not the caller's lists, or wrong signatures.
            ResetListsProblem: the lists are not of this form, or the key is not a new one.
            DeviceListConflictProblem: they do not follow.
            ListedKeysProblem, DeviceRetiredProblem, RateLimitedProblem: see `publish`.
        """
        for signed in (first, closing):
            if signed is not None:
                signed.verify(caller)
        retired = await self.database.write(lambda connection: self._reset(connection, caller, closing, first))
        if retired:
            self.on_retired([DeviceAddress(caller, device_id) for device_id in retired])
        return first.unverified.position

    async def history(self, caller: UserId, user_id: UserId, from_seq: int) -> History:
        """Return a page of the user's lists from `from_seq` on. An unknown user, or one out of reach, has none."""
        allowed = await self.policy.may_contact(caller, user_id)
        whose = user_id if allowed else NOBODY

        def load(connection: Connection) -> History:
            user = devices.find_user(connection, whose)
            lists = device_lists.history(connection, whose, from_seq, HISTORY_PAGE)
            return History(lists, 0 if user is None else user.list_seq)

        return await self.database.read(load)

    def _publish(self, connection: Connection, caller: UserId, signed: SignedDeviceList) -> Sequence[DeviceId]:
        content, now = signed.unverified, self.now()
        if caller == content.user_id:
            devices.ensure_user(connection, content.user_id, now)
        user = devices.find_user(connection, content.user_id, lock=True)
        if user is None or (user.account_key is None and caller != content.user_id):
            raise FirstListProblem
        if user.account_key not in (None, content.account_key):
            raise AccountKeyChangedProblem
        if _accepted_before(connection, user, content):
            return ()
        current = ListPosition(user.list_seq, user.list_hash)
        follows = content.seq == current.seq + 1 and content.previous_hash == current.hash
        if user.account_key is not None and not follows:
            raise DeviceListConflictProblem(current.seq, current.hash.raw)
        if content.closes:
            # Without the first list of a new key it would lock the user out, whoever brought it.
            raise ResetListsProblem
        wait = rate_limits.take(connection, f"list {content.user_id}", self.limit, now)
        if wait:
            raise RateLimitedProblem(wait)
        if not devices.advance_list(connection, content.user_id, content.account_key, current, content.position):
            raise DeviceListConflictProblem(current.seq, current.hash.raw)
        device_lists.add(connection, signed, now)
        return self._apply(connection, content, now)

    def _reset(
        self, connection: Connection, caller: UserId, closing: SignedDeviceList | None, first: SignedDeviceList
    ) -> Sequence[DeviceId]:
        content, now = first.unverified, self.now()
        user = devices.find_user(connection, caller, lock=True)
        if user is None or user.account_key is None:
            raise ResetListsProblem
        if _accepted_before(connection, user, content):
            return ()
        closes = closing is None or (
            closing.unverified.account_key == user.account_key and not closing.unverified.devices
        )
        if not closes or content.account_key == user.account_key or not content.devices:
            raise ResetListsProblem
        current = ListPosition(user.list_seq, user.list_hash)
        position = current
        for signed in (first,) if closing is None else (closing, first):
            if signed.unverified.seq != position.seq + 1 or signed.unverified.previous_hash != position.hash:
                raise DeviceListConflictProblem(current.seq, current.hash.raw)
            position = signed.unverified.position
        wait = rate_limits.take(connection, f"list {caller}", self.limit, now)
        if wait:
            raise RateLimitedProblem(wait)
        if not devices.advance_list(connection, caller, content.account_key, current, position):
            raise DeviceListConflictProblem(current.seq, current.hash.raw)
        for signed in (first,) if closing is None else (closing, first):
            device_lists.add(connection, signed, now)
        recovery_blobs.forget(connection, caller)
        return self._apply(connection, content, now)

    def _apply(self, connection: Connection, content: DeviceList, now: int) -> Sequence[DeviceId]:
        """Activate who is listed, retire who is not listed any more; return the retired."""
        user_id, listed = content.user_id, {device.device_id: device for device in content.devices}
        for registered in devices.devices_of(connection, user_id, listed):
            entry, known = listed[registered.device_id], (registered.device_signing_key, registered.identity_key)
            if (entry.device_signing_key, entry.identity_key) != known:
                raise ListedKeysProblem
            if registered.status is DeviceStatus.RETIRED:
                raise DeviceRetiredProblem
        leaving = [device_id for device_id in devices.active(connection, user_id) if device_id not in listed]
        devices.activate(connection, user_id, listed)
        if leaving:
            retire(connection, user_id, leaving, now, self.remove_inboxes)
        return leaving


def _accepted_before(connection: Connection, user: UserRow, content: DeviceList) -> bool:
    return (
        content.seq <= user.list_seq
        and device_lists.hash_of(connection, content.user_id, content.seq) == content.hash()
    )
