"""What the relay needs from others: a database, a device directory, token verification, the host's contact rules.

Owns: the protocols and the values that cross them.
Does not know about: who implements them (the key service does, and `keyserver.app` joins the two).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, final

from sqlalchemy import Connection

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from transport_adapters.base import ListClaim

__all__ = [
    "OK",
    "ContactPolicy",
    "Database",
    "DeviceDirectory",
    "ListClaim",
    "Meter",
    "NoMeter",
    "Ok",
    "Principal",
    "SendCheck",
    "StaleList",
    "TokenRefusedError",
    "TokenVerifier",
    "Unavailable",
    "Waker",
]

T = TypeVar("T")


class Database(Protocol):
    """Runs synchronous work in transactions, off the event loop."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; return its result after the commit. What it raises rolls it back.

        Calls made one after the other, without waiting in between, run in that order.
        """
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads; it sees every write whose call has returned."""
        ...


class Principal(NamedTuple):
    """Who a device token speaks for. `expires_at` is in Unix milliseconds."""

    address: DeviceAddress
    token_version: int
    expires_at: int


@final
@dataclass(frozen=True, slots=True)
class Ok:
    """Both device lists are current, and both devices are listed and active."""


@final
@dataclass(frozen=True, slots=True)
class StaleList:
    """The claim about this user's device list is not the newest accepted one, which is (seq, device ids)."""

    user_id: UserId
    seq: int
    device_ids: tuple[DeviceId, ...]


@final
@dataclass(frozen=True, slots=True)
class Unavailable:
    """The recipient's device is listed, but cannot receive: revoked, or in the middle of linking."""


OK = Ok()
SendCheck = Ok | StaleList | Unavailable


class DeviceDirectory(Protocol):
    """Which devices a user has, as of the newest accepted list."""

    def check_send(
        self,
        connection: Connection,
        sender: DeviceAddress,
        recipient: DeviceAddress,
        sender_list: ListClaim,
        recipient_list: ListClaim,
    ) -> SendCheck:
        """Judge a send inside the transaction that would store the envelope."""
        ...


@final
class TokenRefusedError(Exception):
    """A device token does not count (any more). `code`: token_invalid, token_expired or device_revoked."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TokenVerifier(Protocol):
    """Knows which device tokens count."""

    async def verify(self, token: str) -> Principal:
        """Verify a token against its signature, its device and its login.

        Raises:
            TokenRefusedError: it does not count.
        """
        ...


class ContactPolicy(Protocol):
    """The host application's rules about who may reach whom."""

    async def may_contact(self, sender: UserId, recipient: UserId) -> bool:
        """Say whether `sender` may send to `recipient`."""
        ...

    async def may_see(self, watcher: UserId, watched: UserId) -> bool:
        """Say whether `watcher` may see the presence of `watched`."""
        ...


class Meter(Protocol):
    """Counts what happens, for whoever watches the server. Called in the event loop; never waits and never fails."""

    def delivered(self, waited_ms: int) -> None:
        """An envelope was handed to a connection, so many milliseconds after it was stored. Again, if it was before."""
        ...

    def refused(self, code: str) -> None:
        """A frame was answered by an error, or a connection ended by one."""
        ...


@final
class NoMeter:
    """Nobody watches."""

    def delivered(self, waited_ms: int) -> None:
        """Do nothing."""

    def refused(self, code: str) -> None:
        """Do nothing."""


class Waker(Protocol):
    """Wakes devices that are not connected. Called in the event loop; never waits and never fails."""

    def stored(self, address: DeviceAddress, lane: Lane) -> None:
        """An envelope for the device was stored in this lane, and committed."""
        ...

    def left(self, address: DeviceAddress) -> None:
        """The device's live connection has ended; what it did not take may still wait."""
        ...
