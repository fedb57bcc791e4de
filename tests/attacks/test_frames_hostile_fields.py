"""Attack: frames of hostile shape. Arbitrary JSON-like values raise the one error, and never anything else."""

import contextlib
from typing import Any

from hypothesis import given, settings, strategies as st

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import CLIENT_EVENTS, SERVER_EVENTS, parse_client_frame, parse_server_frame

NAMES = [
    "version",
    "token",
    "instance",
    "connection",
    "epoch",
    "watermark",
    "credit_messages",
    "credit_bytes",
    "counter",
    "recipient_list",
    "sender_list",
    "envelope",
    "ranges",
    "messages",
    "bytes",
    "state",
    "seq",
    "sender",
    "envelope_id",
    "dropped",
    "code",
    "detail",
    "fatal",
    "close_code",
    "hash",
]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 5)
    | st.floats()
    | st.text(max_size=40)
    | st.text("0123456789abcdef", min_size=32, max_size=32)
    | st.text("0123456789abcdef", min_size=64, max_size=64)
    | st.binary(max_size=40)
    | st.sampled_from(["ttl", "away", "internal", 4401])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = VALUES | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))
# Fields with the right names, so that the values are reached.
NAMED = st.one_of(
    st.fixed_dictionaries(dict.fromkeys(NAMES[:8], VALUES)),
    st.fixed_dictionaries(dict.fromkeys(NAMES[8:12], VALUES)),
    st.fixed_dictionaries({"epoch": VALUES, "ranges": VALUES}),
    st.fixed_dictionaries({"messages": VALUES, "bytes": VALUES}),
    st.fixed_dictionaries(dict.fromkeys(["epoch", "seq", "sender", "envelope_id", "dropped"], VALUES)),
    st.fixed_dictionaries({"code": VALUES, "detail": VALUES, "fatal": VALUES}, optional={"close_code": VALUES}),
)


@settings(max_examples=400)
@given(event=st.sampled_from(CLIENT_EVENTS) | VALUES, fields=FIELDS | NAMED)
def test_hostile_fields_of_a_client_are_malformed_and_nothing_else(event: Any, fields: Any) -> None:
    with contextlib.suppress(MalformedMessageError):
        frame = parse_client_frame(event, fields)
        assert parse_client_frame(frame.EVENT, frame.to_fields()) == frame


@settings(max_examples=400)
@given(event=st.sampled_from(SERVER_EVENTS) | VALUES, fields=FIELDS | NAMED)
def test_hostile_fields_of_a_server_are_malformed_and_nothing_else(event: Any, fields: Any) -> None:
    with contextlib.suppress(MalformedMessageError):
        frame = parse_server_frame(event, fields)
        assert parse_server_frame(frame.EVENT, frame.to_fields()) == frame


@settings(max_examples=100)
@given(fields=VALUES)
def test_an_error_names_fields_and_never_their_values(fields: Any) -> None:
    hello = {"version": 1, "token": ["secret-token"], "instance": "secret-token", "connection": fields}
    try:
        parse_client_frame("hello", hello | dict.fromkeys(NAMES[4:8], "secret-token"))
    except MalformedMessageError as error:
        assert "secret" not in str(error)
