"""Strict reading of JSON-like objects from outside.

Owns: types and ranges of single fields. A message names fields, never their values: they may be tokens.
Does not know about: which fields a frame has.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Final, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_CONVERSATION_ID, MAX_DEVICES, MAX_ENVELOPE, MAX_TIMESTAMP, MAX_USER_ID
from e2ee.wire.identifiers import (
    ConversationId,
    DeviceAddress,
    DeviceId,
    EnvelopeId,
    FixedBytes,
    UserId,
    parse_conversation_id,
    parse_user_id,
)
from transport_adapters.base import ListClaim, SeqRange

MAX_U32: Final = (1 << 32) - 1
MAX_ACK_RANGES: Final = 1_000
MAX_RETRY_AFTER: Final = 86_400
"""Seconds."""
MAX_WATCHED: Final = 500
"""Users whose presence one connection may watch."""


@final
class Fields:
    """Takes checked values out of an object. Everything that does not fit raises `MalformedMessageError`."""

    __slots__ = ("_fields",)

    def __init__(self, fields: object, required: str, optional: str = "") -> None:
        if not isinstance(fields, Mapping):
            raise MalformedMessageError("a frame's fields are an object")
        names = set(required.split())
        if not names <= fields.keys() or not fields.keys() <= names | set(optional.split()):
            raise MalformedMessageError("a frame with missing or unknown fields")
        self._fields: Mapping[object, object] = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def integer(self, name: str, most: int = MAX_TIMESTAMP) -> int:
        value = self._fields[name]
        # JSON's true is an int to Python, and 1.0 equals 1: neither is one here.
        if type(value) is not int or not 0 <= value <= most:
            raise MalformedMessageError(f"{name} is an integer from 0 to {most}")
        return value

    def seconds(self, name: str) -> float:
        value = self._fields[name]
        if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 <= value <= MAX_RETRY_AFTER:
            raise MalformedMessageError(f"{name} is a number from 0 to {MAX_RETRY_AFTER}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._fields[name]
        if not isinstance(value, bool):
            raise MalformedMessageError(f"{name} is true or false")
        return value

    def text(self, name: str, most: int) -> str:
        value = self._fields[name]
        if type(value) is not str or len(value) > most or not value.isascii():
            raise MalformedMessageError(f"{name} is a string of at most {most} ASCII characters")
        return value

    def blob(self, name: str) -> bytes:
        value = self._fields[name]
        if not isinstance(value, bytes | bytearray) or len(value) > MAX_ENVELOPE:
            raise MalformedMessageError(f"{name} is a byte string of at most {MAX_ENVELOPE} bytes")
        return bytes(value)

    def envelope_id(self, name: str) -> EnvelopeId:
        return EnvelopeId.from_hex(self.text(name, 2 * EnvelopeId.LENGTH))

    def address(self, name: str) -> DeviceAddress:
        return DeviceAddress.parse(self.text(name, MAX_USER_ID + 1 + 2 * DeviceId.LENGTH))

    def user_id(self, name: str) -> UserId:
        return parse_user_id(self.text(name, MAX_USER_ID))

    def user_ids(self, name: str) -> tuple[UserId, ...]:
        value = self._fields[name]
        if not isinstance(value, list) or len(value) > MAX_WATCHED or not all(type(each) is str for each in value):
            raise MalformedMessageError(f"{name} is a list of at most {MAX_WATCHED} user ids")
        users = tuple(parse_user_id(each) for each in value)
        if len(set(users)) != len(users):
            raise MalformedMessageError(f"{name} names a user twice")
        return users

    def conversation_id(self, name: str) -> ConversationId:
        return parse_conversation_id(self.text(name, MAX_CONVERSATION_ID))

    def by_user(self, name: str, most: int) -> dict[UserId, object]:
        """An object of 1 to `most` values that are still to be checked, by user id."""
        value = self._fields[name]
        if (
            not isinstance(value, Mapping)
            or not 1 <= len(value) <= most
            or not all(type(each) is str for each in value)
        ):
            raise MalformedMessageError(f"{name} is an object with 1 to {most} user ids")
        return {parse_user_id(user): each for user, each in value.items()}

    def claim(self, name: str) -> ListClaim:
        take = Fields(self._fields[name], "seq hash")
        return ListClaim(take.integer("seq"), _ListHash.from_hex(take.text("hash", 64)).raw)

    def device_ids(self, name: str) -> tuple[DeviceId, ...]:
        value = self._fields[name]
        if not isinstance(value, list) or len(value) > MAX_DEVICES:
            raise MalformedMessageError(f"{name} is a list of at most {MAX_DEVICES} device ids")
        if not all(type(each) is str for each in value):
            raise MalformedMessageError(f"{name} is a list of strings")
        return tuple(DeviceId.from_hex(each) for each in value)

    def ranges(self, name: str) -> tuple[SeqRange, ...]:
        value = self._fields[name]
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_ACK_RANGES:
            raise MalformedMessageError(f"{name} is a list of 1 to {MAX_ACK_RANGES} ranges")
        ranges = tuple(_seq_range(each) for each in value)
        if any(before.last >= after.first for before, after in pairwise(ranges)):
            raise MalformedMessageError(f"{name} ascend and do not overlap")
        return ranges


def _seq_range(value: object) -> SeqRange:
    if not isinstance(value, list) or len(value) != 2 or not all(type(each) is int for each in value):
        raise MalformedMessageError("a range is two integers")
    if not 1 <= value[0] <= value[1] <= MAX_TIMESTAMP:
        raise MalformedMessageError("a range ascends from 1")
    return SeqRange(value[0], value[1])


@final
class _ListHash(FixedBytes):
    __slots__ = ()
    LENGTH: ClassVar[int] = 32
