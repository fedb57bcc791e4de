"""The one binary codec: big-endian integers, length-prefixed byte strings, exact lengths, nothing trailing.

Owns: reading and writing of primitive fields, base64url and hex for text-only carriers.
Does not know about: what the fields mean. One value has one encoding, so `encode(decode(b)) == b` for all accepted b.
"""

import base64
import binascii
from typing import final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_TIMESTAMP


@final
class Writer:
    """Collects fields. Values out of range raise `ValueError`: they are bugs of the caller."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> "Writer":
        return self._integer(value, 1)

    def u16(self, value: int) -> "Writer":
        return self._integer(value, 2)

    def u32(self, value: int) -> "Writer":
        return self._integer(value, 4)

    def u64(self, value: int) -> "Writer":
        """Write a u64 below 2^63: timestamps in milliseconds and counters."""
        if value > MAX_TIMESTAMP:
            raise ValueError("u64 fields must be below 2^63")
        return self._integer(value, 8)

    def raw(self, value: bytes) -> "Writer":
        """Write bytes whose length the format fixes."""
        self._parts.append(value)
        return self

    def bytes8(self, value: bytes) -> "Writer":
        return self.u8(len(value)).raw(value)

    def bytes16(self, value: bytes) -> "Writer":
        return self.u16(len(value)).raw(value)

    def bytes32(self, value: bytes) -> "Writer":
        return self.u32(len(value)).raw(value)

    def ascii8(self, value: str) -> "Writer":
        return self.bytes8(value.encode("ascii"))

    def finish(self) -> bytes:
        return b"".join(self._parts)

    def _integer(self, value: int, size: int) -> "Writer":
        try:
            self._parts.append(value.to_bytes(size, "big"))
        except OverflowError:
            raise ValueError(f"{value} does not fit in {size} bytes") from None
        return self


@final
class Reader:
    """Takes fields off the front. Every shortfall raises `MalformedMessageError`; lengths are checked before use."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fixed(self, length: int) -> bytes:
        """Take exactly `length` bytes."""
        end = self._at + length
        if end > len(self._data):
            raise MalformedMessageError("truncated")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def u8(self) -> int:
        return self.fixed(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.fixed(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.fixed(4), "big")

    def u64(self) -> int:
        """Take a u64 below 2^63."""
        value = int.from_bytes(self.fixed(8), "big")
        if value > MAX_TIMESTAMP:
            raise MalformedMessageError("u64 of 2^63 or more")
        return value

    def flag(self) -> bool:
        """Take a u8 that is 0 or 1."""
        value = self.u8()
        if value > 1:
            raise MalformedMessageError("flag is neither 0 nor 1")
        return value == 1

    def bytes8(self) -> bytes:
        return self.fixed(self.u8())

    def bytes16(self) -> bytes:
        return self.fixed(self.u16())

    def bytes32(self, limit: int) -> bytes:
        length = self.u32()
        if length > limit:
            raise MalformedMessageError(f"field of {length} bytes, at most {limit} allowed")
        return self.fixed(length)

    def position(self) -> int:
        """Bytes taken so far."""
        return self._at

    def finish(self) -> None:
        """Refuse trailing bytes."""
        if self._at != len(self._data):
            raise MalformedMessageError("trailing bytes")


def to_base64url(data: bytes) -> str:
    """Encode without padding (RFC 4648 section 5), for text-only transports. Never used on secrets."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Decode unpadded base64url; the one canonical spelling only.

    Raises:
        MalformedMessageError: other characters, padding, or non-zero spare bits.
    """
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessageError("not base64url") from None
    if to_base64url(data) != text:
        raise MalformedMessageError("base64url is not canonical")
    return data
