"""Padding: every length is hidden among its neighbours, and only what `pad` makes is taken off again."""

import pytest
from hypothesis import given, strategies as st

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE, MIN_PADDED
from e2ee.wire.padding import pad, padded_length, padme, unpad

ALL_LENGTHS = range(5_001)


def test_padding_comes_off_again_at_every_length_up_to_5000() -> None:
    for length in ALL_LENGTHS:
        content = b"\x80" * length
        padded = pad(content)
        assert len(padded) == padded_length(length)
        assert unpad(padded) == content


@given(content=st.binary(max_size=1_000), zeros=st.integers(0, 300), marks=st.integers(0, 300))
def test_contents_that_look_like_padding_survive(content: bytes, zeros: int, marks: int) -> None:
    for lookalike in (content + bytes(zeros), content + b"\x80" + bytes(zeros), content + b"\x80" * marks):
        assert unpad(pad(lookalike)) == lookalike


@given(padded=st.binary(max_size=600) | st.binary(max_size=300).map(lambda head: (head + b"\x80").ljust(256, b"\0")))
def test_only_what_pad_makes_is_accepted(padded: bytes) -> None:
    try:
        content = unpad(padded)
    except MalformedMessageError:
        return
    assert pad(content) == padded


def test_padded_lengths_never_shrink_and_always_leave_room_for_the_mark() -> None:
    lengths = [padded_length(length) for length in range(MAX_ENVELOPE)]

    assert lengths == sorted(lengths)
    assert all(padded > length for length, padded in enumerate(lengths))


def test_a_message_below_256_bytes_has_the_smallest_size() -> None:
    assert {padded_length(length) for length in range(MIN_PADDED)} == {MIN_PADDED}


def test_padme_adds_at_most_12_percent() -> None:
    assert max((padme(length) - length) / length for length in range(1, MAX_ENVELOPE)) <= 0.12


def test_few_distinct_sizes_leave_the_padding() -> None:
    # O(log log n) bits of a length leak: all 98,304 lengths fall into fewer classes than would fill a byte.
    assert len({padded_length(length) for length in range(MAX_ENVELOPE)}) < 256


@pytest.mark.parametrize("length", [255, 256, 257, 1_000, 5_000, 65_536])
def test_padding_twice_hides_no_more_than_once(length: int) -> None:
    assert padme(padme(length)) == padme(length)
