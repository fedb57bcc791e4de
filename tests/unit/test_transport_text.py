"""Frames as text: every frame survives it, and nothing but the one spelling is read."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from tests.unit.test_transport_frames import ALL_FRAMES, CLAIM, CLIENT_FRAMES, SERVER_FRAMES, names
from transport_adapters.frames import ClientFrame, Deliver, Send, ServerFrame, parse_client_frame, parse_server_frame
from transport_adapters.text import MAX_TEXT, decode_frame, encode_frame


@pytest.mark.parametrize("frame", ALL_FRAMES, ids=names(ALL_FRAMES))
def test_a_frame_survives_its_text(frame: ClientFrame | ServerFrame) -> None:
    event, fields = decode_frame(encode_frame(frame))
    if frame in CLIENT_FRAMES:
        assert parse_client_frame(event, fields) == frame
    if frame in SERVER_FRAMES:
        assert parse_server_frame(event, fields) == frame


@given(envelope=st.binary(max_size=2_000))
def test_any_envelope_survives_its_text(envelope: bytes) -> None:
    frame = Deliver(1, 2, envelope)
    assert parse_server_frame(*decode_frame(encode_frame(frame))) == frame


def test_the_largest_frames_are_within_the_limit() -> None:
    assert len(encode_frame(Send((1 << 63) - 1, CLAIM, CLAIM, bytes(MAX_ENVELOPE)))) < MAX_TEXT
    assert len(encode_frame(Deliver((1 << 63) - 1, (1 << 63) - 1, bytes(MAX_ENVELOPE)))) < MAX_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[]",
        '["pong"]',
        '["pong",{},{}]',
        '["pong",{}] x',
        '["credit",{"messages":NaN,"bytes":0}]',
        '["deliver",{"epoch":1,"seq":1,"envelope":"AA=="}]',
        '["deliver",{"epoch":1,"seq":1,"envelope":"AB"}]',
        '["deliver",{"epoch":1,"seq":1,"envelope":"+/+/"}]',
        '["deliver",{"epoch":1,"seq":1,"envelope":"AA AA"}]',
        "[" * 100_000,
        "1" * 100_000,
    ],
    ids=range(14),
)
def test_what_is_no_frame_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        decode_frame(text)


@given(text=st.text() | st.text('[]{},:"1aeE-.\\').map(lambda inner: f'["deliver",{{"envelope":{inner}}}]'))
def test_arbitrary_text_is_malformed_and_nothing_else(text: str) -> None:
    with contextlib.suppress(MalformedMessageError):
        parse_client_frame(*decode_frame(text))
