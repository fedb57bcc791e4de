"""What the relay asks of the key service: how devices stand, whom a token speaks for, where a device is woken.

Owns: the answers to the relay's ports.
Does not know about: who joins the two (app.py).
"""

from typing import final

from sqlalchemy import Connection

from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.auth import DeviceAuthenticator
from keyserver.problems import UnauthorizedProblem
from keyserver.repository import device_lists, devices, push
from keyserver.repository.push import PushRow
from keyserver.tables import DeviceStatus
from transport_adapters.server.ports import (
    OK,
    ListClaim,
    Principal,
    SendCheck,
    StaleList,
    TokenRefusedError,
    Unavailable,
)
from transport_adapters.server.push.ports import Paused, PushKind, Subscription


@final
class Directory:
    """Tells the relay how devices stand (`DeviceDirectory`)."""

    def check_send(
        self,
        connection: Connection,
        sender: DeviceAddress,
        recipient: DeviceAddress,
        sender_list: ListClaim,
        recipient_list: ListClaim,
    ) -> SendCheck:
        for address, claim in ((recipient, recipient_list), (sender, sender_list)):
            standing = devices.standing(connection, address)
            if standing is None:
                return StaleList(address.user_id, 0, ())
            if (standing.list_seq, standing.list_hash) != claim:
                return StaleList(address.user_id, standing.list_seq, _listed(connection, address.user_id))
            if standing.status is not DeviceStatus.ACTIVE:
                return Unavailable()
        return OK


def _listed(connection: Connection, user_id: UserId) -> tuple[DeviceId, ...]:
    newest = device_lists.newest(connection, user_id)
    if newest is None:
        return ()
    return tuple(device.device_id for device in SignedDeviceList.decode(newest).unverified.devices)


@final
class Subscriptions:
    """Tells the push gateway where devices are woken (`Subscriptions`)."""

    def claim(
        self, connection: Connection, address: DeviceAddress, now: int, pause_ms: int
    ) -> Subscription | Paused | None:
        claimed = push.claim(connection, address, now, pause_ms)
        if isinstance(claimed, PushRow):
            return Subscription(address, PushKind(claimed.kind), *claimed[1:])
        return None if claimed is None else Paused(claimed)

    def remove(self, connection: Connection, subscription: Subscription) -> None:
        push.remove(connection, subscription.address, subscription.target)


@final
class TokenVerifier:
    """Tells the relay whom a token speaks for (`TokenVerifier`)."""

    def __init__(self, authenticator: DeviceAuthenticator) -> None:
        self._authenticator = authenticator

    async def verify(self, token: str) -> Principal:
        try:
            principal = await self._authenticator.verify(token)
        except UnauthorizedProblem as problem:
            raise TokenRefusedError(problem.code) from None
        return Principal(principal.address, principal.token_version, principal.expires_at)
