"""Attack: padding that comes off wrong, throws, or hides a channel (docs/attacks.md row 17).

An audit of SimpleX found padding that failed at the edges. Here every length is tried, one padding fits one content,
and removal raises nothing but a typed error.
"""

import pytest
from hypothesis import given, settings, strategies as st

from e2ee.errors import MalformedMessageError
from e2ee.wire.padding import pad, padded_length, unpad


@pytest.mark.parametrize("block", [256, 272, 512, 1_024, 1_088, 65_536])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1])
def test_contents_around_a_block_edge_keep_their_exact_bytes(block: int, offset: int) -> None:
    for fill in (b"\0", b"\x80", b"a"):
        content = fill * (block + offset)
        assert unpad(pad(content)) == content


@settings(max_examples=300)
@given(content=st.binary(max_size=600), at=st.integers(0, 10_000), difference=st.integers(1, 255))
def test_a_changed_byte_of_padding_is_refused_or_changes_the_content_it_stands_for(
    content: bytes, at: int, difference: int
) -> None:
    padded = bytearray(pad(content))
    padded[at % len(padded)] ^= difference
    try:
        other = unpad(bytes(padded))
    except MalformedMessageError:
        return
    assert other != content
    assert pad(other) == bytes(padded)


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 1_000])
def test_longer_or_shorter_padding_than_the_rule_says_is_refused(length: int) -> None:
    content = b"a" * length
    for other in {padded_length(length) + change for change in (-256, -16, -1, 1, 16, 256)}:
        forged = (content + b"\x80").ljust(max(other, 0), b"\0")[: max(other, 0)]
        if len(forged) == padded_length(length):
            continue
        with pytest.raises(MalformedMessageError):
            unpad(forged)


def test_messages_of_different_length_in_one_block_have_one_size() -> None:
    assert {len(pad(bytes(length))) for length in range(256)} == {256}
    assert {len(pad(bytes(length))) for length in range(1_024, 1_088)} == {1_088}
