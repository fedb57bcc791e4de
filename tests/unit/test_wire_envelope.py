"""Envelope: the one thing a server sees, so its bounds hold against everybody."""

from dataclasses import replace

import pytest

from e2ee.errors import MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_ENVELOPE, MAX_TTL_SECONDS
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId

ENVELOPE = Envelope(
    envelope_id=EnvelopeId(bytes(range(16))),
    sender=DeviceAddress(UserId("alice"), DeviceId(b"a" * 16)),
    recipient=DeviceAddress(UserId("bob"), DeviceId(b"b" * 16)),
    lane=Lane.CHAT,
    ttl=3600,
    body=b"body",
)
LANE_AT = 1 + 16 + 22 + 20
BODY_AT = LANE_AT + 1 + 4


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_the_layout_of_an_envelope() -> None:
    assert ENVELOPE.encode() == b"".join(
        (
            b"\x01",
            bytes(range(16)),
            b"\x05alice" + b"a" * 16,
            b"\x03bob" + b"b" * 16,
            b"\x01",
            (3600).to_bytes(4, "big"),
            b"\0\0\0\x04body",
        )
    )
    assert Envelope.decode(ENVELOPE.encode()) == ENVELOPE


def test_an_envelope_is_at_most_96_kib() -> None:
    room = MAX_ENVELOPE - len(replace(ENVELOPE, body=b"").encode())
    largest = replace(ENVELOPE, body=bytes(room))

    assert Envelope.decode(largest.encode()) == largest
    with pytest.raises(ValueError, match="at most 98304"):
        replace(ENVELOPE, body=bytes(room + 1)).encode()
    longer = changed(largest.encode(), BODY_AT, (room + 1).to_bytes(4, "big")) + b"x"
    with pytest.raises(MalformedMessageError, match="at most 98304"):
        Envelope.decode(longer)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused_and_named(version: int) -> None:
    with pytest.raises(UnsupportedVersionError) as refused:
        Envelope.decode(changed(ENVELOPE.encode(), 0, bytes([version])))
    assert refused.value.version == version


@pytest.mark.parametrize("lane", Lane)
def test_every_lane_round_trips(lane: Lane) -> None:
    envelope = replace(ENVELOPE, lane=lane)

    decoded = Envelope.decode(envelope.encode())
    assert decoded == envelope
    assert decoded.lane is lane


@pytest.mark.parametrize("lane", [4, 128, 255])
def test_an_unknown_lane_is_refused(lane: int) -> None:
    with pytest.raises(MalformedMessageError):
        Envelope.decode(changed(ENVELOPE.encode(), LANE_AT, bytes([lane])))


@pytest.mark.parametrize("ttl", [1, 60, MAX_TTL_SECONDS])
def test_a_time_to_live_of_1_second_to_28_days_is_accepted(ttl: int) -> None:
    assert Envelope.decode(replace(ENVELOPE, ttl=ttl).encode()).ttl == ttl


@pytest.mark.parametrize("ttl", [0, MAX_TTL_SECONDS + 1, 2**32 - 1])
def test_another_time_to_live_is_refused(ttl: int) -> None:
    with pytest.raises(ValueError, match="ttl"):
        replace(ENVELOPE, ttl=ttl)
    with pytest.raises(MalformedMessageError):
        Envelope.decode(changed(ENVELOPE.encode(), LANE_AT + 1, ttl.to_bytes(4, "big")))


@pytest.mark.parametrize("length", [0, 3, 5, 2**16, 2**32 - 1])
def test_a_body_length_other_than_its_own_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessageError):
        Envelope.decode(changed(ENVELOPE.encode(), BODY_AT, length.to_bytes(4, "big")))


def test_an_empty_body_is_a_matter_of_the_ends() -> None:
    empty = replace(ENVELOPE, body=b"")

    assert Envelope.decode(empty.encode()) == empty
