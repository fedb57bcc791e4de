"""Withdrawing access: of all of a user's logins, or of one device for good.

Owns: what ends with it. Both are the operator's or the host application's act; no client asks for them.
Does not know about: live connections (the relay cuts them), who decides.
"""

from sqlalchemy import Connection

from e2ee.limits import SECOND_MS
from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.problems import TokenRevokedProblem
from keyserver.repository import devices, logins
from keyserver.service.retiring import RemoveInboxes, retire
from keyserver.tables import DeviceStatus


def revoke_user(connection: Connection, user_id: UserId, now: int) -> None:
    """End all logins of a user. The next needs a host token that was issued later than this second."""
    devices.ensure_user(connection, user_id, now)  # the token may be older than the first device
    devices.find_user(connection, user_id, lock=True)
    devices.revoke_user(connection, user_id, now)
    logins.end_all(connection, user_id)


def revoke_device(connection: Connection, address: DeviceAddress, now: int, remove_inboxes: RemoveInboxes) -> bool:
    """Retire a device, with all that ends with it. False if there is no such device, or not any more.

    Its user's newest list still names it, until a device of the user signs one that does not; senders skip it so long.
    """
    devices.find_user(connection, address.user_id, lock=True)
    device = devices.find_device(connection, address)
    if device is None or device.status is DeviceStatus.RETIRED:
        return False
    retire(connection, address.user_id, [address.device_id], now, remove_inboxes)
    return True


def refuse_revoked(connection: Connection, user_id: UserId, issued_at: int) -> None:
    """Let a host token pass if it was issued after the last revocation. `issued_at` is Unix seconds, 0 if not known.

    Raises:
        TokenRevokedProblem: it was not. A token from within the second of the revocation may be from before it.
    """
    revoked_at = devices.revoked_at(connection, user_id)
    if revoked_at is not None and issued_at * SECOND_MS <= revoked_at:
        raise TokenRevokedProblem
