"""Reader and Writer: bounds of each field, exact lengths."""

from collections.abc import Callable

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_TIMESTAMP
from e2ee.wire.codec import Reader, Writer, from_base64url, to_base64url


def test_integers_are_big_endian() -> None:
    encoded = Writer().u8(1).u16(0x0203).u32(0x04050607).u64(0x08090A0B0C0D0E0F).finish()

    assert encoded == bytes(range(1, 16))
    reader = Reader(encoded)
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 0x0203, 0x04050607, 0x08090A0B0C0D0E0F)
    reader.finish()


@pytest.mark.parametrize(("method", "bits"), [("u8", 8), ("u16", 16), ("u32", 32), ("u64", 63)])
def test_integers_hold_their_whole_range_and_no_more(method: str, bits: int) -> None:
    for value in (0, 1, 2**bits - 1):
        encoded = getattr(Writer(), method)(value).finish()
        assert getattr(Reader(encoded), method)() == value
    for value in (-1, 2**bits):
        with pytest.raises(ValueError):
            getattr(Writer(), method)(value)


def test_a_u64_of_2_to_the_63_or_more_is_refused() -> None:
    assert Reader(MAX_TIMESTAMP.to_bytes(8, "big")).u64() == MAX_TIMESTAMP
    for encoded in (b"\x80" + bytes(7), b"\xff" * 8):
        with pytest.raises(MalformedMessageError):
            Reader(encoded).u64()


@pytest.mark.parametrize("value", range(2, 256))
def test_a_flag_is_0_or_1(value: int) -> None:
    assert (Reader(b"\0").flag(), Reader(b"\1").flag()) == (False, True)
    with pytest.raises(MalformedMessageError):
        Reader(bytes([value])).flag()


@pytest.mark.parametrize(("method", "longest"), [("bytes8", 255), ("bytes16", 65_535)])
def test_length_prefixed_bytes_hold_their_whole_range_and_no_more(method: str, longest: int) -> None:
    for length in (0, 1, longest):
        encoded = getattr(Writer(), method)(bytes(length)).finish()
        assert getattr(Reader(encoded), method)() == bytes(length)
    with pytest.raises(ValueError):
        getattr(Writer(), method)(bytes(longest + 1))


def test_bytes32_checks_the_limit_of_the_field_before_it_looks_for_the_bytes() -> None:
    assert Reader(Writer().bytes32(b"abc").finish()).bytes32(3) == b"abc"
    for encoded in (Writer().bytes32(b"abc").finish(), b"\xff\xff\xff\xff"):
        with pytest.raises(MalformedMessageError, match="at most 2 allowed"):
            Reader(encoded).bytes32(2)


@pytest.mark.parametrize(
    "read",
    [
        Reader.u8,
        Reader.u16,
        Reader.u32,
        Reader.u64,
        Reader.flag,
        Reader.bytes8,
        Reader.bytes16,
        pytest.param(lambda reader: reader.bytes32(10), id="bytes32"),
        pytest.param(lambda reader: reader.fixed(1), id="fixed"),
    ],
)
def test_every_field_missing_is_refused(read: Callable[[Reader], object]) -> None:
    with pytest.raises(MalformedMessageError):
        read(Reader(b""))


@pytest.mark.parametrize("encoded", [b"\x02a", b"\xff" + bytes(254)])
def test_a_byte_string_shorter_than_its_length_says_is_refused(encoded: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        Reader(encoded).bytes8()


def test_a_refused_field_is_not_consumed() -> None:
    reader = Reader(b"\x01\x02")
    with pytest.raises(MalformedMessageError):
        reader.u32()

    assert reader.position() == 0
    assert reader.u16() == 0x0102


def test_finish_refuses_what_is_left_over() -> None:
    reader = Reader(b"\x01\x02")
    reader.u8()
    with pytest.raises(MalformedMessageError):
        reader.finish()
    reader.u8()
    reader.finish()


def test_text_that_is_not_ascii_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError):
        Writer().ascii8("é")


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\xfb\xff", "-_8"), (b"f", "Zg"), (b"foobar", "Zm9vYmFy"), (b"\0\0\x17", "AAAX")],
)
def test_base64url_known_answers(data: bytes, text: str) -> None:
    # RFC 4648 section 10, both characters of the URL-safe alphabet, and a last character that is not padding.
    assert to_base64url(data) == text
    assert from_base64url(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",  # padding
        "Zh",  # spare bits set: a second spelling of "Zg"
        "+_8",  # the other alphabet
        "-/8",
        "A",  # no byte has one character
        "AAAAA",
        "Zm9v YmFy",
        "Zm9vYmFy\n",
        "\x00Zg",
        "Zé",
        "Z\ud800",  # a lone surrogate, as JSON can carry it
        "=",
        "Zg=",
    ],
)
def test_other_spellings_of_base64url_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        from_base64url(text)
