"""Padding (protocol.md section 9.2).

Owns: the operations of padding.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.schema import hex_bytes, integer, record
from e2ee.wire.padding import pad, padded_length, unpad


def _padded_length(fields: Fields) -> JsonObject:
    return {"padded_length": padded_length(fields.number("length"))}


def _pad(fields: Fields) -> JsonObject:
    return {"padded": pad(fields.hex("content")).hex()}


def _unpad(fields: Fields) -> JsonObject:
    return {"content": unpad(fields.hex("padded")).hex()}


PADDED_LENGTH = Operation(
    "PaddedLength",
    "The length of a padded content",
    record(length=integer()),
    record(padded_length=integer()),
    _padded_length,
)
PAD = Operation("Pad", "Content to padded content", record(content=hex_bytes()), record(padded=hex_bytes()), _pad)
UNPAD = Operation("Unpad", "Padded content to content", record(padded=hex_bytes()), record(content=hex_bytes()), _unpad)

FILE = VectorFile("padding", ("Padding of contents (protocol.md section 9.2).",), (PADDED_LENGTH, PAD, UNPAD))
