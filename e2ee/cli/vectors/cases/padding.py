"""Cases of padding.json."""

from collections.abc import Iterator

from e2ee.cli.vectors.cases.mutations import flip, invalid, put, valid
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup
from e2ee.cli.vectors.operations import padding
from e2ee.wire.padding import pad, padded_length

_LENGTHS = (0, 1, 121, 254, 255, 256, 257, 271, 272, 300, 360, 511, 512, 513, 600, 1000, 1023, 1024, 10_000, 65_700)
_PADDED = (0, 1, 121, 254, 255, 256, 271, 272, 511, 512, 1024)


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(padding.PADDED_LENGTH, "lengths alone", tuple(_lengths()))
    yield CaseGroup(padding.PAD, "content is padded", tuple(_pad()))
    yield CaseGroup(padding.UNPAD, "padding is removed", tuple(_unpad()))


def _content(length: int) -> bytes:
    # It ends with what looks like padding, where there is room for that.
    ending = b"\x80\0\0"
    return drawn("padding", length) if length < 300 else drawn("padding", length - 3) + ending


def _flag(length: int) -> str:
    """Say whether a content fills its padded length, or just does not."""
    return "Boundary" if padded_length(length) != padded_length(length + 1) or length < 2 else "Normal"


def _lengths() -> Iterator[Case]:
    for length in _LENGTHS:
        yield valid(f"{length} bytes of content", {"length": length}, _flag(length))


def _pad() -> Iterator[Case]:
    for length in _PADDED:
        yield valid(f"{length} bytes of content", {"content": _content(length).hex()}, _flag(length))


def _unpad() -> Iterator[Case]:
    for length in _PADDED:
        yield valid(f"{length} bytes of content", {"padded": pad(_content(length)).hex()}, _flag(length))
    good = pad(_content(100))
    for comment, padded in (
        ("nothing", b""),
        ("zeros alone", bytes(256)),
        ("the filler does not begin with 0x80", put(good, 100, b"\x81")),
        ("the filler is not zero: last byte", flip(good, 255)),
        ("the filler is not zero: first byte after 0x80", flip(good, 101)),
        ("PKCS#7", good[:100] + bytes([156]) * 156),
        ("255 bytes", good[:-1]),
        ("257 bytes", good + b"\0"),
        ("272 bytes for a content that fits in 256", good + bytes(16)),
        ("shorter than 256 bytes", _content(100) + b"\x80" + bytes(3)),
        ("a multiple that Padme does not give: 288 bytes for 257", (_content(257) + b"\x80").ljust(288, b"\0")),
    ):
        yield invalid(comment, "decode", {"padded": padded.hex()}, "Padding")
