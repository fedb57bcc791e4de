"""What ends when a device leaves: everything at once, in the transaction that lets it go.

Owns: the list of those things.
Does not know about: why a device leaves. Its connections are cut after the commit (`OnRetired`).
"""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.repository import devices, logins, prekeys, push

OnRetired = Callable[[Sequence[DeviceAddress]], None]
"""Told after the commit which devices left, so that their connections are cut."""

RemoveInboxes = Callable[[Connection, Collection[DeviceAddress]], None]
"""Deletes mailboxes with what waits in them, in the transaction that retires their devices."""


def retire(
    connection: Connection, user_id: UserId, leaving: Sequence[DeviceId], now: int, remove_inboxes: RemoveInboxes
) -> None:
    """Retire devices: tokens, logins, prekeys, subscriptions to be woken, mailboxes."""
    devices.retire(connection, user_id, leaving, now)
    prekeys.withdraw(connection, user_id, leaving, now)
    push.unsubscribe(connection, user_id, leaving)
    logins.end(connection, user_id, leaving)
    remove_inboxes(connection, [DeviceAddress(user_id, device_id) for device_id in leaving])
