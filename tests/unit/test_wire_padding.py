"""Padding at its edges: 0, 1, block-1, block, block+1; other filler and other lengths."""

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.wire.padding import pad, padded_length, padme, unpad


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (0, 256),
        (1, 256),
        (254, 256),
        (255, 256),  # 255 bytes and the mark fill the smallest block
        (256, 272),  # the mark is the 257th byte: E = 8, S = 4, so 4 bits are rounded up
        (257, 272),
        (271, 272),
        (272, 288),
        (511, 512),
        (512, 544),  # E = 9, S = 4: 5 bits
        (1_023, 1_024),
        (1_024, 1_088),
        (65_535, 65_536),
        (65_536, 67_584),  # E = 16, S = 5: 11 bits
    ],
)
def test_lengths_around_block_edges(length: int, padded: int) -> None:
    assert padded_length(length) == padded
    assert len(pad(bytes(length))) == padded
    assert unpad(pad(bytes(length))) == bytes(length)


@pytest.mark.parametrize(
    ("length", "rounded"), [(0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (99, 104), (100, 104)]
)
def test_padme_values_worked_out_by_hand(length: int, rounded: int) -> None:
    # 9: E = 3, S = 2, one bit; 99: E = 6, S = 3, three bits.
    assert padme(length) == rounded


@pytest.mark.parametrize("at", [-1, -2, -100, -251])
def test_a_filler_byte_other_than_zero_is_refused(at: int) -> None:
    for filler in {*range(1, 256)} - {0x80}:  # which would be a mark, and what stands before it the content
        padded = bytearray(pad(b"hello"))
        padded[at] = filler

        with pytest.raises(MalformedMessageError):
            unpad(bytes(padded))


@pytest.mark.parametrize("length", [0, 1, 255, 257, 271, 273, 512, 1_088])
def test_a_length_that_pad_does_not_make_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessageError):
        unpad(b"hello\x80".ljust(length, b"\0")[:length])


@pytest.mark.parametrize("padded", [b"", bytes(256), bytes(272), b"\x80", b"a" * 256])
def test_bytes_without_a_mark_in_place_are_refused(padded: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        unpad(padded)


def test_a_short_content_in_a_longer_block_than_needed_is_refused() -> None:
    # Otherwise the length of the padding would be a channel that nobody sees.
    assert unpad((b"a" * 255 + b"\x80").ljust(256, b"\0"))
    with pytest.raises(MalformedMessageError):
        unpad((b"a" * 255 + b"\x80").ljust(272, b"\0"))
