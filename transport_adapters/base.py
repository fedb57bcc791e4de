"""What an application sees of a transport: send, receive, ack, signal, close.

Owns: the values that cross the interface, the protocol, the errors of the network.
Does not know about: frames, reconnecting, any particular transport.

    TransportError
    ├─ TransportUnavailableError      not connected, or the connection was lost before the answer
    ├─ TransportRefusedError          the server ended it for good
    └─ InsecureUrlError               plaintext beyond this machine
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol, final

from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, EnvelopeId, UserId


class ListClaim(NamedTuple):
    """Which device list a sender used: its number and the SHA-256 of its bytes (32 bytes)."""

    seq: int
    hash: bytes


class SeqRange(NamedTuple):
    """An inclusive range of mailbox sequence numbers."""

    first: int
    last: int


@final
@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a store has come: everything up to `watermark` of this mailbox epoch is committed. (0, 0) at first."""

    epoch: int
    watermark: int


@final
@dataclass(frozen=True, slots=True, repr=False)
class Outgoing:
    """One envelope to send. `counter` is the store's counter n of this device; `envelope` the encoded envelope."""

    counter: int
    envelope: bytes
    envelope_id: EnvelopeId
    recipient_list: ListClaim
    sender_list: ListClaim

    def __repr__(self) -> str:
        return f"<Outgoing {self.envelope_id} counter {self.counter}, {len(self.envelope)} bytes>"


@final
@dataclass(frozen=True, slots=True)
class Accepted:
    """The server stored the envelope; `duplicate` says that it had done so before."""

    envelope_id: EnvelopeId
    duplicate: bool


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not store the envelope. `code` is stable; the last three fields explain `stale_device_list`."""

    envelope_id: EnvelopeId
    code: str
    detail: str
    retry_after: float | None = None
    stale_user_id: UserId | None = None
    stale_seq: int | None = None
    device_ids: tuple[DeviceId, ...] = ()


SendResult = Accepted | Refused


@final
@dataclass(frozen=True, slots=True)
class Connected:
    """The server's answer to `hello`; comes first on every connection, so again after every reconnect.

    `accepted_counter` is the highest n it accepted from this device, `acked_epoch` and `acked_seq` the highest
    position this device acked. Nothing up to `settled_through` will be delivered any more: it was acked, or is gone. Of
    the sequence numbers up to `dropped_through`, those never delivered are gone.
    """

    epoch: int
    head_seq: int
    accepted_counter: int
    acked_epoch: int
    acked_seq: int
    server_time: int
    settled_through: int = 0
    dropped_through: int = 0


@final
@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """One row of the mailbox: an envelope, or (`dropped` set) word of one that expired undelivered."""

    epoch: int
    seq: int
    envelope: bytes | None
    sender: DeviceAddress | None = None
    envelope_id: EnvelopeId | None = None
    dropped: str | None = None

    def __repr__(self) -> str:
        what = f"dropped {self.dropped}" if self.envelope is None else f"{len(self.envelope)} bytes"
        return f"<Delivery {self.epoch}:{self.seq} {what}>"


@final
class PresenceState(StrEnum):
    """Whether somebody is there: by their application's word, and by signs of life of their devices."""

    ONLINE = "online"
    AWAY = "away"
    OFFLINE = "offline"
    """Not there, or not to be seen: the two look alike."""


@final
@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """How a watched user stands, as the server says."""

    user_id: UserId
    state: PresenceState


@final
@dataclass(frozen=True, slots=True)
class TypingSeen:
    """A watched user writes to us, or stopped, as the server says. It ends by itself after a few seconds."""

    user_id: UserId
    conversation: ConversationId | None
    active: bool


Incoming = Connected | Delivery | PresenceSeen | TypingSeen


@final
@dataclass(frozen=True, slots=True)
class Announce:
    """Show our state to those whom the server's rules let see it, on this connection and every later one.

    Nothing is shown before; `OFFLINE` takes it back. `lease`: seconds without a sign of life until we count as offline,
    10 to 30 (None: 30).
    """

    state: PresenceState
    lease: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Watch:
    """Tell us how these users stand, at most 500, in place of those before; on this connection and every later one."""

    users: tuple[UserId, ...]


@final
@dataclass(frozen=True, slots=True)
class TypeTo:
    """Tell a user that we write to them, or stopped."""

    user_id: UserId
    active: bool
    conversation: ConversationId | None = None


Signal = Announce | Watch | TypeTo


class EnvelopeTransport(Protocol):
    """Carries envelopes. At least once and in any order; the caller's store makes it exactly once."""

    async def send(self, outgoing: Outgoing) -> SendResult:
        """Hand one envelope to the server and wait for its answer. Many sends may be under way at once.

        Raises:
            TransportUnavailableError: not connected, or the connection ended before the answer came. The envelope
                may have been stored: send the same bytes again later.
        """
        ...

    def receive(self) -> AsyncIterator[Incoming]:
        """Connect, stay connected, and yield what arrives until `aclose`. One iteration at a time.

        Raises:
            TransportRefusedError: the server ended the connection with a terminal code.
        """
        ...

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        """Tell the server what is committed. Best effort: an ack lost with its connection is not repeated."""
        ...

    async def signal(self, signal: Signal) -> None:
        """Say something about presence. Never an error: without a connection typing is lost, the rest is said later."""
        ...

    async def aclose(self) -> None:
        """Disconnect for good. Idempotent; ends `receive`."""
        ...


class TransportError(Exception):
    """Base of the errors of the network. `code` is stable and may be matched by programs; the text may change."""

    code: ClassVar[str] = "transport_error"
    remedy: ClassVar[str] = ""

    def __new__(cls, *_args: object) -> "TransportError":
        if cls is TransportError:
            raise TypeError("TransportError is abstract: raise one of its subclasses")
        return super().__new__(cls)

    def __str__(self) -> str:
        cause = super().__str__()
        return f"{cause}. {self.remedy}" if self.remedy else cause


@final
class TransportUnavailableError(TransportError):
    """There is no connection, or it ended before the answer."""

    code = "transport_unavailable"
    remedy = "Send the same bytes again when connected; the server stores them once"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The transport is unavailable: {reason}")


@final
class TransportRefusedError(TransportError):
    """The server ended the connection for good. `reason` is the server's stable code, `close_code` its number."""

    code = "transport_refused"
    remedy = "Reconnecting will not help: revoked needs a new device, replaced means another program runs this device"

    def __init__(self, reason: str, close_code: int) -> None:
        super().__init__(f"The server refused the connection: {reason} ({close_code})")
        self.reason = reason
        self.close_code = close_code


@final
class InsecureUrlError(TransportError):
    """A plaintext URL that leads beyond this machine."""

    code = "insecure_url"
    remedy = "Use https:// or wss://; plaintext is for loopback only"

    def __init__(self, scheme: str) -> None:
        super().__init__(f"Refusing a {scheme}:// URL that is not loopback")
