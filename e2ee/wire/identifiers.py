"""Names of users, devices, messages and keys, each its own type so that one is never taken for another.

Owns: validity and text form of identifiers, the device address.
Does not know about: keys and signatures.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, NewType, NoReturn, Self, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_CONVERSATION_ID, MAX_USER_ID
from e2ee.wire.codec import Reader, Writer

UserId = NewType("UserId", str)
"""1 to 128 printable ASCII characters without space; stable for life. The host application chooses them."""

ConversationId = NewType("ConversationId", str)
"""0 to 128 printable ASCII characters without space, scoped to the peer user; empty is the default conversation."""

PreKeyId = NewType("PreKeyId", int)
"""u32; one id space for all kinds of prekeys of a device. Zero is valid."""

_PRINTABLE = re.compile(r"[!-~]*")


def parse_user_id(text: str) -> UserId:
    """Check a user id.

    Raises:
        MalformedMessageError: empty, longer than 128 characters, or not printable ASCII without space.
    """
    if not 1 <= len(text) <= MAX_USER_ID or not _PRINTABLE.fullmatch(text):
        raise MalformedMessageError("a user id is 1 to 128 printable ASCII characters without space")
    return UserId(text)


def parse_conversation_id(text: str) -> ConversationId:
    """Check a conversation id.

    Raises:
        MalformedMessageError: longer than 128 characters, or not printable ASCII without space.
    """
    if len(text) > MAX_CONVERSATION_ID or not _PRINTABLE.fullmatch(text):
        raise MalformedMessageError("a conversation id is 0 to 128 printable ASCII characters without space")
    return ConversationId(text)


def decode_ascii(raw: bytes) -> str:
    """Decode ASCII from outside.

    Raises:
        MalformedMessageError: a byte above 0x7F.
    """
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedMessageError("not ASCII") from None


class FixedBytes:
    """A public value of fixed length. Two kinds with equal bytes are unequal.

    Written out, and no dataclass, because every message makes and compares a few.
    """

    __slots__ = ("raw",)
    LENGTH: ClassVar[int] = 16
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if type(raw) is not bytes or len(raw) != self.LENGTH:
            raise ValueError(f"{type(self).__name__} is {self.LENGTH} bytes")
        _set_raw(self, raw)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __lt__(self, other: Self) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.raw < other.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.raw,)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """Take the value off a reader."""
        return cls(reader.fixed(cls.LENGTH))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Parse lower-case hex.

        Raises:
            MalformedMessageError: another length, or characters other than 0-9a-f.
        """
        if len(text) != 2 * cls.LENGTH or not re.fullmatch("[0-9a-f]+", text):
            raise MalformedMessageError(f"{cls.__name__} is {2 * cls.LENGTH} lower-case hex digits")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw.hex()})"


_set_raw = FixedBytes.raw.__set__  # type: ignore[misc, attr-defined]  # the slot itself, past `__setattr__`


@final
class DeviceId(FixedBytes):
    """16 random bytes. A device id keeps its keys for ever and never returns."""

    __slots__ = ()


@final
class CallId(FixedBytes):
    """16 random bytes drawn by the calling device. Of two calls that meet, the lower one goes on."""

    __slots__ = ()


@final
class EnvelopeId(FixedBytes):
    """16 random bytes, fresh for every encryption; kept when the same bytes are sent again."""

    __slots__ = ()


@final
class MessageId(FixedBytes):
    """16 random bytes naming a message over re-encryptions and devices; visible to the ends only."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True, order=True)
class DeviceAddress:
    """One device of one user: where an envelope goes."""

    user_id: UserId
    device_id: DeviceId

    def encode(self) -> bytes:
        """`user id (u8 length) | device id 16`."""
        return Writer().ascii8(self.user_id).raw(self.device_id.raw).finish()

    @classmethod
    def decode(cls, reader: Reader) -> "DeviceAddress":
        """Take an address off a reader.

        Raises:
            MalformedMessageError: truncated, or an invalid user id.
        """
        user_id = parse_user_id(decode_ascii(reader.bytes8()))
        return cls(user_id, DeviceId.decode(reader))

    @classmethod
    def parse(cls, text: str) -> "DeviceAddress":
        """Parse the text form `user/device`, the inverse of `str`.

        Raises:
            MalformedMessageError: not of that form.
        """
        user_id, _, device_id = text.rpartition("/")
        return cls(parse_user_id(user_id), DeviceId.from_hex(device_id))

    def __str__(self) -> str:
        return f"{self.user_id}/{self.device_id}"
