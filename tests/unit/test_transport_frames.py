"""Frames: one value, one set of fields; everything else is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE, MAX_TIMESTAMP
from e2ee.wire.identifiers import ConversationId, DeviceId, EnvelopeId, UserId
from tests.contract.relay_world import address
from transport_adapters.base import ListClaim, PresenceState, SeqRange
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.fields import MAX_U32
from transport_adapters.frames import (
    MAX_TOKEN,
    Ack,
    ClientFrame,
    Credit,
    Deliver,
    Error,
    Hello,
    InstanceId,
    Ping,
    Pong,
    Presence,
    PresenceReport,
    Refresh,
    Send,
    Sent,
    ServerFrame,
    Typing,
    Watch,
    Welcome,
    parse_client_frame,
    parse_server_frame,
)

CLAIM = ListClaim(3, bytes(32))
HELLO = Hello("token", InstanceId(bytes(16)), 1, 2, 3, 4, 5)
SEND = Send(7, CLAIM, CLAIM, b"envelope")
ACK = Ack(1, (SeqRange(1, 1), SeqRange(3, 9)))
DROPPED = Deliver(1, 2, sender=address("bob"), envelope_id=EnvelopeId(bytes(16)), dropped="ttl")
STALE = Error(
    ErrorCode.STALE_DEVICE_LIST,
    "detail",
    EnvelopeId(bytes(16)),
    user_id=UserId("bob"),
    seq=4,
    device_ids=(DeviceId(bytes(16)),),
)

PRESENCE = Presence(PresenceState.ONLINE, 10)
WATCH = Watch((UserId("bob"), UserId("carol")))
TYPING = Typing(UserId("bob"), active=True, conversation=ConversationId("team-7"))
REPORT = PresenceReport({UserId("bob"): PresenceState.OFFLINE, UserId("carol"): PresenceState.AWAY})

CLIENT_FRAMES: list[ClientFrame] = [
    HELLO,
    SEND,
    ACK,
    Credit(0, MAX_U32),
    Refresh("token"),
    Presence(PresenceState.AWAY),
    PRESENCE,
    WATCH,
    TYPING,
    Pong(),
]
SERVER_FRAMES: list[ServerFrame] = [
    Welcome(1, 2, 3, 4, 5, 6, 7, 8),
    Sent(EnvelopeId(bytes(16)), duplicate=True),
    Deliver(1, 2, b""),
    DROPPED,
    REPORT,
    TYPING,
    Typing(UserId("bob"), active=False),
    STALE,
    Error(ErrorCode.RATE_LIMITED, "", EnvelopeId(bytes(16)), retry_after=0.5),
    Error(ErrorCode.REPLACED, "detail", close_code=CloseCode.REPLACED),
    Ping(),
]
ALL_FRAMES: list[ClientFrame | ServerFrame] = [*CLIENT_FRAMES, *SERVER_FRAMES]


def names(frames: Sequence[ClientFrame | ServerFrame]) -> list[str]:
    return [f"{type(frame).__name__}-{n}" for n, frame in enumerate(frames)]


@pytest.mark.parametrize("frame", CLIENT_FRAMES, ids=names(CLIENT_FRAMES))
def test_a_client_frame_survives_its_fields(frame: ClientFrame) -> None:
    assert parse_client_frame(frame.EVENT, frame.to_fields()) == frame


@pytest.mark.parametrize("frame", SERVER_FRAMES, ids=names(SERVER_FRAMES))
def test_a_server_frame_survives_its_fields(frame: ServerFrame) -> None:
    assert parse_server_frame(frame.EVENT, frame.to_fields()) == frame


@pytest.mark.parametrize("frame", ALL_FRAMES, ids=names(ALL_FRAMES))
def test_a_missing_or_an_unknown_field_is_refused(frame: ClientFrame | ServerFrame) -> None:
    parse = type(frame).from_fields
    optional: set[str] = set()
    match frame:
        case Error():
            optional = {"envelope_id", "retry_after", "user_id", "seq", "device_ids"}
        case Presence():
            optional = {"lease"}
        case Typing():
            optional = {"conversation"}
        case _:
            pass
    for name in frame.to_fields().keys() - optional:
        with pytest.raises(MalformedMessageError):
            parse({key: value for key, value in frame.to_fields().items() if key != name})
    with pytest.raises(MalformedMessageError):
        parse(frame.to_fields() | {"another": 1})


@pytest.mark.parametrize(
    ("frame", "name", "value"),
    [
        (HELLO, "version", 2),
        (HELLO, "connection", -1),
        (HELLO, "connection", MAX_U32 + 1),
        (HELLO, "connection", True),
        (HELLO, "connection", 1.0),
        (HELLO, "epoch", MAX_TIMESTAMP + 1),
        (HELLO, "credit_bytes", 1 << 64),
        (HELLO, "token", "x" * (MAX_TOKEN + 1)),
        (HELLO, "token", "\ud800"),
        (HELLO, "token", b"token"),
        (HELLO, "instance", "0" * 31),
        (HELLO, "instance", "A" * 32),
        (SEND, "envelope", "text"),
        (SEND, "envelope", bytes(MAX_ENVELOPE + 1)),
        (SEND, "recipient_list", {"seq": 1}),
        (SEND, "recipient_list", {"seq": 1, "hash": "00"}),
        (SEND, "recipient_list", [1, "00"]),
        (ACK, "ranges", []),
        (ACK, "ranges", [[1, 2]] * 2),
        (ACK, "ranges", [[3, 3], [1, 1]]),
        (ACK, "ranges", [[2, 1]]),
        (ACK, "ranges", [[0, 1]]),
        (ACK, "ranges", [[1, 1 << 63]]),
        (ACK, "ranges", [[True, 2]]),
        (ACK, "ranges", [[1, 2, 3]]),
        (ACK, "ranges", [[n * 2 + 1, n * 2 + 1] for n in range(1_001)]),
        (DROPPED, "dropped", "lost"),
        (DROPPED, "sender", "bob"),
        (STALE, "code", "another"),
        (STALE, "close_code", 4000),
        (STALE, "fatal", True),
        (STALE, "retry_after", float("nan")),
        (STALE, "retry_after", -1),
        (STALE, "retry_after", True),
        (STALE, "device_ids", ["00"] * 11),
        (STALE, "device_ids", [1]),
        (PRESENCE, "state", "busy"),
        (PRESENCE, "state", "ONLINE"),
        (PRESENCE, "state", "offline"),
        (PRESENCE, "state", ["online"]),
        (PRESENCE, "lease", 9),
        (PRESENCE, "lease", 31),
        (PRESENCE, "lease", 15.0),
        (WATCH, "users", None),
        (WATCH, "users", ["bob", "bob"]),
        (WATCH, "users", ["bob", 1]),
        (WATCH, "users", ["bob", ""]),
        (WATCH, "users", [f"user-{n}" for n in range(501)]),
        (TYPING, "user", "bob smith"),
        (TYPING, "active", 1),
        (TYPING, "conversation", "a b"),
        (TYPING, "conversation", "x" * 129),
        (TYPING, "conversation", None),
        (REPORT, "states", {}),
        (REPORT, "states", []),
        (REPORT, "states", {"bob": "busy"}),
        (REPORT, "states", {"bob": {}}),
        (REPORT, "states", {"bob smith": "away"}),
        (REPORT, "states", {f"user-{n}": "away" for n in range(101)}),
    ],
)
def test_a_value_out_of_range_is_refused(frame: ClientFrame | ServerFrame, name: str, value: Any) -> None:
    with pytest.raises(MalformedMessageError):
        type(frame).from_fields(frame.to_fields() | {name: value})


def test_neighbouring_ranges_are_one_value_too() -> None:
    assert parse_client_frame("ack", {"epoch": 1, "ranges": [[1, 2], [3, 4]]}) == Ack(
        1, (SeqRange(1, 2), SeqRange(3, 4))
    )


@pytest.mark.parametrize("event", ["sent", "deliver", "error", "connect", "", None, 1, ["hello"], {}])
def test_an_unknown_event_is_refused(event: object) -> None:
    with pytest.raises(MalformedMessageError):
        parse_client_frame(event, {})


def test_a_frames_text_form_holds_no_token_and_no_ciphertext() -> None:
    frames = [Hello("secret", InstanceId(bytes(16)), 1, 2, 3, 4, 5), Refresh("secret")]
    frames_with_bodies = [Send(1, CLAIM, CLAIM, b"secret"), Deliver(1, 2, b"secret")]
    assert "secret" not in repr(frames) + repr(frames_with_bodies)


def test_terminal_codes_are_those_that_reconnecting_cannot_cure() -> None:
    assert [int(code) for code in CloseCode if code.terminal] == [4403, 4409, 4413]
