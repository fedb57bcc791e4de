"""Call signals: their bytes, and that the largest fits where calls must go."""

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_CALL_DATA, MAX_DEVICES, MAX_USER_ID
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.content import Content, ContentKind
from e2ee.wire.device_list import NO_PREVIOUS_LIST, ListPosition
from e2ee.wire.identifiers import CallId, ConversationId, DeviceId, MessageId
from e2ee.wire.padding import padded_length
from tests.wire_objects import NOW, make_device, make_list, sign_list
from transport_adapters.server.settings import DEFAULT_RELAY

CALL, DEVICE = CallId(bytes(range(16))), DeviceId(b"d" * 16)
FIRST_MESSAGE = 1_719 + 4
"""The handshake header, and the length of what follows."""
RATCHET_MESSAGE = 97 + 1_216 + 16
"""Prefix, the larger post-quantum payload, tag (protocol.md section 11)."""


def test_the_layout_of_a_signal() -> None:
    assert CallSignal(CALL, CallAction.RING, b"sdp").encode() == CALL.raw + b"\x01sdp"
    assert CallSignal(CALL, CallAction.ANSWERED, b"x", DEVICE).encode() == CALL.raw + b"\x05" + DEVICE.raw + b"x"


@pytest.mark.parametrize("action", CallAction)
@pytest.mark.parametrize("data", [b"", b"data", bytes(MAX_CALL_DATA)], ids=len)
def test_a_signal_survives_its_bytes(action: CallAction, data: bytes) -> None:
    signal = CallSignal(CALL, action, data, DEVICE if action is CallAction.ANSWERED else None)
    assert CallSignal.decode(signal.encode()) == signal


@pytest.mark.parametrize(
    "body",
    [
        b"",
        CALL.raw,
        CALL.raw + b"\x00",
        CALL.raw + b"\x07",
        CALL.raw + b"\x05" + bytes(15),
        CALL.raw + b"\x01" + bytes(MAX_CALL_DATA + 1),
    ],
    ids=["empty", "no action", "action 0", "action 7", "cut device", "too long"],
)
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        CallSignal.decode(body)


def test_what_decode_would_refuse_cannot_be_made() -> None:
    with pytest.raises(ValueError):
        CallSignal(CALL, CallAction.RING, bytes(MAX_CALL_DATA + 1))
    with pytest.raises(ValueError):
        CallSignal(CALL, CallAction.RING, device_id=DEVICE)
    with pytest.raises(ValueError):
        CallSignal(CALL, CallAction.ANSWERED)


def test_the_largest_signal_fits_in_lane_0_in_the_first_message_of_the_largest_account() -> None:
    user = "u" * MAX_USER_ID
    devices = [make_device(user, number) for number in range(1, MAX_DEVICES + 1)]
    signed = sign_list(make_list(devices), devices[0].account)
    position = ListPosition(1, NO_PREVIOUS_LIST)
    body = CallSignal(CALL, CallAction.ANSWERED, bytes(MAX_CALL_DATA), DEVICE).encode()
    content = Content(
        MessageId(bytes(16)), ContentKind.CALL, ConversationId(""), NOW, position, position, body, signed
    ).encode()
    size = FIRST_MESSAGE + RATCHET_MESSAGE + padded_length(len(content))
    assert size <= DEFAULT_RELAY.max_control_body < size + 256  # and there is no room for more
