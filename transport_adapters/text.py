"""Frames as JSON text, for every transport that carries text.

Owns: the text form: `[name, fields]`, envelopes as base64url; reading JSON from outside.
Does not know about: which fields a frame has (frames.py), what carries the text.

One form for all of them, so that a client in another language writes it once. It costs a third of the envelope.
"""

import json
from typing import Final, NoReturn, Protocol

from e2ee.errors import MalformedMessageError
from e2ee.wire.codec import from_base64url, to_base64url

MAX_TEXT: Final = 144 * 1024
"""Characters of one frame. The largest, a `send` of 98,304 bytes, has about 131,500."""


class Frame(Protocol):
    """Any frame of frames.py."""

    @property
    def EVENT(self) -> str: ...

    def to_fields(self) -> dict[str, object]: ...


def encode_frame(frame: Frame) -> str:
    """Encode a frame as `[name, fields]`, in ASCII."""
    return json.dumps(to_pair(frame), separators=(",", ":"))


def decode_frame(text: str) -> tuple[object, object]:
    """Decode what `encode_frame` made into a name and fields, which are still to be parsed.

    Raises:
        MalformedMessageError: not JSON, or not a pair.
    """
    return from_pair(load_json(text))


def to_pair(frame: Frame) -> list[object]:
    """Return the name and the fields of a frame as JSON values."""
    fields = frame.to_fields()
    if isinstance(envelope := fields.get("envelope"), bytes):
        fields["envelope"] = to_base64url(envelope)
    return [frame.EVENT, fields]


def from_pair(pair: object) -> tuple[object, object]:
    """Take a name and fields out of JSON values.

    Raises:
        MalformedMessageError: not a list of two, or an envelope that is not base64url.
    """
    if not isinstance(pair, list) or len(pair) != 2:
        raise MalformedMessageError("a frame is a list of a name and its fields")
    event, fields = pair
    if isinstance(fields, dict) and isinstance(envelope := fields.get("envelope"), str):
        fields = fields | {"envelope": from_base64url(envelope)}
    return event, fields


def load_json(text: str | bytes) -> object:
    """Read JSON as RFC 8259 has it: no NaN, no infinity.

    Raises:
        MalformedMessageError: it is none, or nested beyond reason.
    """
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise MalformedMessageError("not JSON") from None
    return value


def _refuse(_name: str) -> NoReturn:
    raise ValueError
