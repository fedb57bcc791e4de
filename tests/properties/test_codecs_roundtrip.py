"""Every wire type: one value has one encoding, and bytes that nobody encoded are refused with a typed error."""

import pytest
from hypothesis import given, settings, strategies as st

from e2ee.errors import E2EEError, MalformedMessageError
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, MessageId
from tests.properties.strategies import WIRE_TYPES, WireType, addresses

every_wire_type = pytest.mark.parametrize("wire", WIRE_TYPES, ids=repr)
self_delimiting = pytest.mark.parametrize("wire", [wire for wire in WIRE_TYPES if wire.self_delimiting], ids=repr)


@every_wire_type
@settings(max_examples=60)
@given(data=st.data())
def test_a_value_survives_its_encoding_and_has_only_that_one(wire: WireType, data: st.DataObject) -> None:
    value = data.draw(wire.values)
    encoded = wire.encode(value)

    assert wire.decode(encoded) == value
    assert wire.encode(wire.decode(encoded)) == encoded


@self_delimiting
@settings(max_examples=30)
@given(data=st.data())
def test_truncated_bytes_are_refused(wire: WireType, data: st.DataObject) -> None:
    encoded = data.draw(wire.encodings())
    kept = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(MalformedMessageError):
        wire.decode(encoded[:kept])


@self_delimiting
@settings(max_examples=30)
@given(data=st.data())
def test_trailing_bytes_are_refused(wire: WireType, data: st.DataObject) -> None:
    encoded, tail = data.draw(wire.encodings()), data.draw(st.binary(min_size=1, max_size=40))

    with pytest.raises(MalformedMessageError):
        wire.decode(encoded + tail)


@every_wire_type
@settings(max_examples=100)
@given(data=st.data())
def test_arbitrary_bytes_raise_only_typed_errors(wire: WireType, data: st.DataObject) -> None:
    assert_refused_or_canonical(wire, data.draw(st.binary(max_size=500)))


@every_wire_type
@settings(max_examples=100)
@given(data=st.data())
def test_mutated_bytes_are_refused_or_are_the_one_encoding_of_what_they_decode_to(
    wire: WireType, data: st.DataObject
) -> None:
    encoded = data.draw(wire.encodings())
    mutate = data.draw(st.sampled_from((flip_bits, truncate, extend, splice, overwrite)))

    assert_refused_or_canonical(wire, mutate(wire, encoded, data))


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_base64url_round_trips_and_has_no_padding(data: bytes) -> None:
    text = to_base64url(data)

    assert from_base64url(text) == data
    assert "=" not in text


@settings(max_examples=300)
@given(text=st.text(max_size=40) | st.text("AQgw-_+/=\n BCZaz09", max_size=12))
def test_base64url_accepts_one_spelling_only(text: str) -> None:
    try:
        data = from_base64url(text)
    except MalformedMessageError:
        return
    assert to_base64url(data) == text


@given(address=addresses)
def test_the_text_form_of_an_address_round_trips(address: DeviceAddress) -> None:
    assert DeviceAddress.parse(str(address)) == address


@given(text=st.text(max_size=80) | st.text("ab/0", max_size=60))
def test_arbitrary_text_parses_to_an_address_only_in_its_one_spelling(text: str) -> None:
    try:
        address = DeviceAddress.parse(text)
    except MalformedMessageError:
        return
    assert str(address) == text


@pytest.mark.parametrize("kind", [DeviceId, EnvelopeId, MessageId])
@given(text=st.text(max_size=40) | st.text("0123456789abcdefABCDEF \n", min_size=30, max_size=34))
def test_hex_ids_have_one_spelling(kind: type[DeviceId | EnvelopeId | MessageId], text: str) -> None:
    try:
        parsed = kind.from_hex(text)
    except MalformedMessageError:
        return
    assert str(parsed) == text


def assert_refused_or_canonical(wire: WireType, encoded: bytes) -> None:
    """No malleability: two byte strings never mean the same value. Whatever is not an E2EEError fails the test."""
    try:
        value = wire.decode(encoded)
    except E2EEError:
        return
    assert wire.encode(value) == encoded


def flip_bits(_wire: WireType, encoded: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        # The front holds versions, types, flags and lengths: half of the flips go there.
        last = data.draw(st.sampled_from((min(len(changed), 60), len(changed)))) - 1
        changed[data.draw(st.integers(0, last))] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


def truncate(_wire: WireType, encoded: bytes, data: st.DataObject) -> bytes:
    return encoded[: data.draw(st.integers(0, len(encoded)))]


def extend(_wire: WireType, encoded: bytes, data: st.DataObject) -> bytes:
    return encoded + data.draw(st.binary(min_size=1, max_size=100))


def splice(wire: WireType, encoded: bytes, data: st.DataObject) -> bytes:
    other = data.draw(wire.encodings())
    at = data.draw(st.integers(0, min(len(encoded), len(other))))
    return encoded[:at] + other[at:]


def overwrite(_wire: WireType, encoded: bytes, data: st.DataObject) -> bytes:
    at = data.draw(st.integers(0, len(encoded)))
    patch = data.draw(
        st.sampled_from((b"\xff", b"\0")).flatmap(lambda fill: st.integers(1, 34).map(lambda n: fill * n))
    )
    return (encoded[:at] + patch + encoded[at + len(patch) :])[: max(len(encoded), at + len(patch))]
