"""The one vocabulary of frames, on every transport.

Owns: the frames, their fields as JSON-like values.
Does not know about: the codes of errors (codes.py), how a transport carries a frame, what the two ends do with it.

    client to server: hello  send  ack  credit  refresh  presence  watch  typing  pong
    server to client: hello  sent  deliver  presence  typing  error  ping

A frame is an event name and one object of fields. An envelope is a byte string (base64url on text-only transports);
device, envelope and instance ids are lower-case hex; an address is `user/device`. `from_fields` is strict: a missing
or unknown field, another type or a value out of range raises `MalformedMessageError`. A field that is None is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, final

from e2ee.errors import MalformedMessageError
from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, EnvelopeId, FixedBytes, UserId
from transport_adapters.base import ListClaim, PresenceState, SeqRange
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.fields import MAX_U32, Fields

FRAMES_VERSION: Final = 1
MAX_TOKEN: Final = 4_096
"""Characters of a device token."""
MAX_DETAIL: Final = 200
"""Characters of an error's explanation."""
MIN_LEASE: Final = 10
MAX_LEASE: Final = 30
"""Seconds without a sign of life after which a device counts as offline: the shortest that may be asked for, and the
default."""
MAX_STATES: Final = 100
"""Users in one `presence` frame of the server."""


@final
class InstanceId(FixedBytes):
    """16 random bytes naming one running transport object; its connections are numbered."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame on every connection: who, since where, and how much may be delivered."""

    EVENT: ClassVar[str] = "hello"
    token: str = field(repr=False)
    instance: InstanceId
    connection: int
    epoch: int
    watermark: int
    credit_messages: int
    credit_bytes: int

    def to_fields(self) -> dict[str, object]:
        return {
            "version": FRAMES_VERSION,
            "token": self.token,
            "instance": str(self.instance),
            "connection": self.connection,
            "epoch": self.epoch,
            "watermark": self.watermark,
            "credit_messages": self.credit_messages,
            "credit_bytes": self.credit_bytes,
        }

    @classmethod
    def from_fields(cls, fields: object) -> "Hello":
        names = "version token instance connection epoch watermark credit_messages credit_bytes"
        take = Fields(fields, names)
        if take.integer("version", MAX_U32) != FRAMES_VERSION:
            raise MalformedMessageError(f"frames of another version than {FRAMES_VERSION}")
        return cls(
            token=take.text("token", MAX_TOKEN),
            instance=InstanceId.from_hex(take.text("instance", 2 * InstanceId.LENGTH)),
            connection=take.integer("connection", MAX_U32),
            epoch=take.integer("epoch"),
            watermark=take.integer("watermark"),
            credit_messages=take.integer("credit_messages", MAX_U32),
            credit_bytes=take.integer("credit_bytes", MAX_U32),
        )


@final
@dataclass(frozen=True, slots=True)
class Send:
    """One envelope for one device, the sender's counter n, and the device lists it was made under."""

    EVENT: ClassVar[str] = "send"
    counter: int
    recipient_list: ListClaim
    sender_list: ListClaim
    envelope: bytes = field(repr=False)

    def to_fields(self) -> dict[str, object]:
        return {
            "counter": self.counter,
            "recipient_list": _claim_fields(self.recipient_list),
            "sender_list": _claim_fields(self.sender_list),
            "envelope": self.envelope,
        }

    @classmethod
    def from_fields(cls, fields: object) -> "Send":
        take = Fields(fields, "counter recipient_list sender_list envelope")
        return cls(
            counter=take.integer("counter"),
            recipient_list=take.claim("recipient_list"),
            sender_list=take.claim("sender_list"),
            envelope=take.blob("envelope"),
        )


@final
@dataclass(frozen=True, slots=True)
class Ack:
    """What the client's store has committed: ascending, disjoint, inclusive ranges of one epoch."""

    EVENT: ClassVar[str] = "ack"
    epoch: int
    ranges: tuple[SeqRange, ...]

    def to_fields(self) -> dict[str, object]:
        return {"epoch": self.epoch, "ranges": [list(each) for each in self.ranges]}

    @classmethod
    def from_fields(cls, fields: object) -> "Ack":
        take = Fields(fields, "epoch ranges")
        return cls(epoch=take.integer("epoch"), ranges=take.ranges("ranges"))


@final
@dataclass(frozen=True, slots=True)
class Credit:
    """Adds to what may be delivered."""

    EVENT: ClassVar[str] = "credit"
    messages: int
    bytes: int

    def to_fields(self) -> dict[str, object]:
        return {"messages": self.messages, "bytes": self.bytes}

    @classmethod
    def from_fields(cls, fields: object) -> "Credit":
        take = Fields(fields, "messages bytes")
        return cls(messages=take.integer("messages", MAX_U32), bytes=take.integer("bytes", MAX_U32))


@final
@dataclass(frozen=True, slots=True)
class Refresh:
    """A fresh device token for the same device, on a connection that stays."""

    EVENT: ClassVar[str] = "refresh"
    token: str = field(repr=False)

    def to_fields(self) -> dict[str, object]:
        return {"token": self.token}

    @classmethod
    def from_fields(cls, fields: object) -> "Refresh":
        return cls(token=Fields(fields, "token").text("token", MAX_TOKEN))


@final
@dataclass(frozen=True, slots=True)
class Presence:
    """What the application says about its user at this device. Saying it is the consent to its being shown.

    `lease` is in seconds, 10 to 30; None is 30. `offline` takes the consent back; it comes without a lease.
    """

    EVENT: ClassVar[str] = "presence"
    state: PresenceState
    lease: int | None = None

    def to_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"state": self.state.value}
        return fields if self.lease is None else fields | {"lease": self.lease}

    @classmethod
    def from_fields(cls, fields: object) -> "Presence":
        take = Fields(fields, "state", "lease")
        state, lease = _state(take.text("state", 16)), None
        if "lease" in take:
            lease = take.integer("lease", MAX_LEASE)
            if lease < MIN_LEASE or state is PresenceState.OFFLINE:
                raise MalformedMessageError(f"a lease is {MIN_LEASE} to {MAX_LEASE} seconds of online or away")
        return cls(state, lease)


@final
@dataclass(frozen=True, slots=True)
class Watch:
    """Whose presence this connection is told, at most 500 users: all of them, in place of those named before."""

    EVENT: ClassVar[str] = "watch"
    users: tuple[UserId, ...]

    def to_fields(self) -> dict[str, object]:
        return {"users": list(self.users)}

    @classmethod
    def from_fields(cls, fields: object) -> "Watch":
        return cls(Fields(fields, "users").user_ids("users"))


@final
@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody writes, or stopped. To the server `user` is for whom, to a client it is who. Never stored."""

    EVENT: ClassVar[str] = "typing"
    user: UserId
    active: bool
    conversation: ConversationId | None = None

    def to_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"user": self.user, "active": self.active}
        return fields if self.conversation is None else fields | {"conversation": self.conversation}

    @classmethod
    def from_fields(cls, fields: object) -> "Typing":
        take = Fields(fields, "user active", "conversation")
        conversation = take.conversation_id("conversation") if "conversation" in take else None
        return cls(take.user_id("user"), take.flag("active"), conversation)


@final
@dataclass(frozen=True, slots=True)
class PresenceReport:
    """How 1 to 100 watched users stand; who is not named stands as before."""

    EVENT: ClassVar[str] = "presence"
    states: Mapping[UserId, PresenceState]

    def to_fields(self) -> dict[str, object]:
        return {"states": {user: state.value for user, state in self.states.items()}}

    @classmethod
    def from_fields(cls, fields: object) -> "PresenceReport":
        states = Fields(fields, "states").by_user("states", MAX_STATES)
        return cls({user: _state(state) for user, state in states.items()})


@final
@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to `ping`: this client is there."""

    EVENT: ClassVar[str] = "pong"

    def to_fields(self) -> dict[str, object]:
        return {}

    @classmethod
    def from_fields(cls, fields: object) -> "Pong":
        Fields(fields, "")
        return cls()


@final
@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to `hello`."""

    EVENT: ClassVar[str] = "hello"
    epoch: int
    head_seq: int
    accepted_counter: int
    acked_epoch: int
    acked_seq: int
    settled_through: int
    dropped_through: int
    server_time: int

    def to_fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _WELCOME}

    @classmethod
    def from_fields(cls, fields: object) -> "Welcome":
        take = Fields(fields, " ".join(_WELCOME))
        return cls(**{name: take.integer(name) for name in _WELCOME})


_WELCOME: Final = (
    "epoch",
    "head_seq",
    "accepted_counter",
    "acked_epoch",
    "acked_seq",
    "settled_through",
    "dropped_through",
    "server_time",
)


@final
@dataclass(frozen=True, slots=True)
class Sent:
    """The envelope is stored; `duplicate` if it was before."""

    EVENT: ClassVar[str] = "sent"
    envelope_id: EnvelopeId
    duplicate: bool

    def to_fields(self) -> dict[str, object]:
        return {"envelope_id": str(self.envelope_id), "duplicate": self.duplicate}

    @classmethod
    def from_fields(cls, fields: object) -> "Sent":
        take = Fields(fields, "envelope_id duplicate")
        return cls(envelope_id=take.envelope_id("envelope_id"), duplicate=take.flag("duplicate"))


DROPPED_TTL: Final = "ttl"


@final
@dataclass(frozen=True, slots=True)
class Deliver:
    """A row of the mailbox: an envelope, or the sender and id of one that expired (`dropped`)."""

    EVENT: ClassVar[str] = "deliver"
    epoch: int
    seq: int
    envelope: bytes | None = field(default=None, repr=False)
    sender: DeviceAddress | None = None
    envelope_id: EnvelopeId | None = None
    dropped: str | None = None

    def to_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"epoch": self.epoch, "seq": self.seq}
        if self.envelope is not None:
            return fields | {"envelope": self.envelope}
        return fields | {"sender": str(self.sender), "envelope_id": str(self.envelope_id), "dropped": self.dropped}

    @classmethod
    def from_fields(cls, fields: object) -> "Deliver":
        if isinstance(fields, Mapping) and "envelope" in fields:
            take = Fields(fields, "epoch seq envelope")
            return cls(take.integer("epoch"), take.integer("seq"), take.blob("envelope"))
        take = Fields(fields, "epoch seq sender envelope_id dropped")
        if take.text("dropped", 16) != DROPPED_TTL:
            raise MalformedMessageError("unknown reason of a dropped envelope")
        return cls(
            epoch=take.integer("epoch"),
            seq=take.integer("seq"),
            sender=take.address("sender"),
            envelope_id=take.envelope_id("envelope_id"),
            dropped=DROPPED_TTL,
        )


@final
@dataclass(frozen=True, slots=True)
class Error:
    """A refusal. With `envelope_id`, of that envelope; with `close_code`, of the connection, which then ends."""

    EVENT: ClassVar[str] = "error"
    code: ErrorCode
    detail: str
    envelope_id: EnvelopeId | None = None
    retry_after: float | None = None
    close_code: CloseCode | None = None
    user_id: UserId | None = None
    seq: int | None = None
    device_ids: tuple[DeviceId, ...] | None = None

    @property
    def fatal(self) -> bool:
        """True if the connection ends with this frame."""
        return self.close_code is not None

    def to_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"code": self.code.value, "detail": self.detail, "fatal": self.fatal}
        if self.envelope_id is not None:
            fields["envelope_id"] = str(self.envelope_id)
        if self.retry_after is not None:
            fields["retry_after"] = self.retry_after
        if self.close_code is not None:
            fields["close_code"] = int(self.close_code)
        if self.user_id is not None:
            fields["user_id"] = self.user_id
        if self.seq is not None:
            fields["seq"] = self.seq
        if self.device_ids is not None:
            fields["device_ids"] = [str(each) for each in self.device_ids]
        return fields

    @classmethod
    def from_fields(cls, fields: object) -> "Error":
        take = Fields(fields, "code detail fatal", "envelope_id retry_after close_code user_id seq device_ids")
        code, close_code = take.text("code", 32), take.integer("close_code", 9_999) if "close_code" in take else None
        if code not in ErrorCode.__members__.values() or (close_code is not None and close_code not in set(CloseCode)):
            raise MalformedMessageError("unknown error or close code")
        if take.flag("fatal") != (close_code is not None):
            raise MalformedMessageError("a fatal error has a close code, another has none")
        return cls(
            code=ErrorCode(code),
            detail=take.text("detail", MAX_DETAIL),
            envelope_id=take.envelope_id("envelope_id") if "envelope_id" in take else None,
            retry_after=take.seconds("retry_after") if "retry_after" in take else None,
            close_code=None if close_code is None else CloseCode(close_code),
            user_id=take.user_id("user_id") if "user_id" in take else None,
            seq=take.integer("seq") if "seq" in take else None,
            device_ids=take.device_ids("device_ids") if "device_ids" in take else None,
        )


@final
@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life, and is one, on transports that have no heartbeat of their own."""

    EVENT: ClassVar[str] = "ping"

    def to_fields(self) -> dict[str, object]:
        return {}

    @classmethod
    def from_fields(cls, fields: object) -> "Ping":
        Fields(fields, "")
        return cls()


ClientFrame = Hello | Send | Ack | Credit | Refresh | Presence | Watch | Typing | Pong
ServerFrame = Welcome | Sent | Deliver | PresenceReport | Typing | Error | Ping

_CLIENT_FRAMES: Final[dict[str, type[ClientFrame]]] = {
    each.EVENT: each for each in (Hello, Send, Ack, Credit, Refresh, Presence, Watch, Typing, Pong)
}
_SERVER_FRAMES: Final[dict[str, type[ServerFrame]]] = {
    each.EVENT: each for each in (Welcome, Sent, Deliver, PresenceReport, Typing, Error, Ping)
}
CLIENT_EVENTS: Final = tuple(_CLIENT_FRAMES)
SERVER_EVENTS: Final = tuple(_SERVER_FRAMES)


def parse_client_frame(event: object, fields: object) -> ClientFrame:
    """Parse what a client sent.

    Raises:
        MalformedMessageError: unknown event, or fields that are not exactly those of the frame.
    """
    if not isinstance(event, str) or event not in _CLIENT_FRAMES:
        raise MalformedMessageError("unknown frame")
    return _CLIENT_FRAMES[event].from_fields(fields)


def parse_server_frame(event: object, fields: object) -> ServerFrame:
    """Parse what a server sent.

    Raises:
        MalformedMessageError: unknown event, or fields that are not exactly those of the frame.
    """
    if not isinstance(event, str) or event not in _SERVER_FRAMES:
        raise MalformedMessageError("unknown frame")
    return _SERVER_FRAMES[event].from_fields(fields)


def _claim_fields(claim: ListClaim) -> dict[str, object]:
    return {"seq": claim.seq, "hash": claim.hash.hex()}


def _state(value: object) -> PresenceState:
    if type(value) is not str or value not in PresenceState.__members__.values():
        raise MalformedMessageError("unknown presence state")
    return PresenceState(value)
