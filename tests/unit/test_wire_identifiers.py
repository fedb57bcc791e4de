"""Identifiers: what is valid, and that one kind is never taken for another."""

import copy
import pickle
from itertools import combinations

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.wire.codec import Reader
from e2ee.wire.device_list import DeviceListHash
from e2ee.wire.identifiers import (
    DeviceAddress,
    DeviceId,
    EnvelopeId,
    FixedBytes,
    MessageId,
    UserId,
    decode_ascii,
    parse_conversation_id,
    parse_user_id,
)
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, EphemeralKey, IdentityKey, PreKeyPublicKey

SIXTEEN = bytes(range(16))
KINDS_OF_16 = (DeviceId, EnvelopeId, MessageId)
KINDS_OF_32 = (DeviceListHash, AccountKey, DeviceSigningKey, IdentityKey, EphemeralKey, PreKeyPublicKey)

CONTROL_SPACE_AND_NON_ASCII = [
    "a b",
    " a",
    "a ",
    "a\n",
    "\ta",
    "a\x00",
    "a\x7f",
    "é",
    "a\u200b",  # zero width space
    "\u0430lice",  # Cyrillic a
    "a\ud800",
]


@pytest.mark.parametrize("text", ["a", "!", "~", "alice@example.org", "a/b", "x" * 128])
def test_a_user_id_is_printable_ascii_without_space(text: str) -> None:
    assert parse_user_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, *CONTROL_SPACE_AND_NON_ASCII])
def test_other_user_ids_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse_user_id(text)


def test_a_conversation_id_may_be_empty_and_holds_at_most_128_characters() -> None:
    assert parse_conversation_id("") == ""
    assert parse_conversation_id("c" * 128) == "c" * 128
    with pytest.raises(MalformedMessageError):
        parse_conversation_id("c" * 129)


@pytest.mark.parametrize("text", CONTROL_SPACE_AND_NON_ASCII)
def test_other_conversation_ids_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse_conversation_id(text)


def test_bytes_above_0x7f_are_not_ascii() -> None:
    assert decode_ascii(bytes(range(128))) == "".join(map(chr, range(128)))
    with pytest.raises(MalformedMessageError):
        decode_ascii(b"a\x80")


@pytest.mark.parametrize("kind", KINDS_OF_16)
@pytest.mark.parametrize("raw", [b"", SIXTEEN[:15], SIXTEEN + b"x", bytearray(SIXTEEN), "0" * 16])
def test_an_identifier_has_its_exact_length_and_is_bytes(kind: type[FixedBytes], raw: bytes) -> None:
    with pytest.raises(ValueError):
        kind(raw)


@pytest.mark.parametrize("kind", KINDS_OF_16)
@pytest.mark.parametrize(
    "text",
    ["", "00" * 15, "00" * 17, "0A" * 16, "0g" * 16, "00" * 15 + "0\n", " " + "0" * 31, "0x" + "0" * 30, "\u0660" * 32],
)
def test_hex_in_any_other_form_is_refused(kind: type[FixedBytes], text: str) -> None:
    with pytest.raises(MalformedMessageError):
        kind.from_hex(text)


@pytest.mark.parametrize("kinds", [*combinations(KINDS_OF_16, 2), *combinations(KINDS_OF_32, 2)])
def test_two_kinds_with_equal_bytes_are_unequal_and_do_not_sort(
    kinds: tuple[type[FixedBytes], type[FixedBytes]],
) -> None:
    one, other = (kind(bytes(kind.LENGTH)) for kind in kinds)

    assert one != other
    assert {one: 1}.get(other) is None
    with pytest.raises(TypeError):
        _ = one < other


def test_equal_values_of_one_kind_are_equal_and_sort_by_bytes() -> None:
    assert DeviceId(SIXTEEN) == DeviceId(SIXTEEN)
    assert hash(DeviceId(SIXTEEN)) == hash(DeviceId(SIXTEEN))
    assert sorted([DeviceId(b"\xff" * 16), DeviceId(SIXTEEN)])[0] == DeviceId(SIXTEEN)


def test_different_values_and_different_kinds_have_different_hashes() -> None:
    assert len({hash(DeviceId(SIXTEEN)), hash(DeviceId(bytes(16))), hash(EnvelopeId(SIXTEEN))}) == 3


def test_one_value_does_not_sort_before_itself() -> None:
    assert not DeviceId(SIXTEEN) < DeviceId(SIXTEEN)


def test_an_identifier_survives_copying_and_pickling() -> None:
    identifier = DeviceId(SIXTEEN)

    assert copy.copy(identifier) == identifier
    assert pickle.loads(pickle.dumps(identifier)) == identifier


def test_an_identifier_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        DeviceId(SIXTEEN).raw = b"x" * 16


def test_an_address_reads_as_user_and_device() -> None:
    address = DeviceAddress(UserId("team/alice"), DeviceId(SIXTEEN))

    assert str(address) == "team/alice/000102030405060708090a0b0c0d0e0f"
    assert DeviceAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "/", "alice", "alice/", "/" + "00" * 16, "alice/" + "00" * 15, "al ice/" + "00" * 16]
)
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        DeviceAddress.parse(text)


@pytest.mark.parametrize("user_id", [b"", b"a" * 129, b"a b", b"\xc3\xa9"])
def test_an_encoded_address_with_an_invalid_user_id_is_refused(user_id: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        DeviceAddress.decode(Reader(bytes([len(user_id)]) + user_id + SIXTEEN))
