"""Envelopes (protocol.md section 10).

Owns: the operations of envelope.json.
Does not know about: cases, what a body holds.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import ADDRESS, address_json, address_of
from e2ee.cli.vectors.schema import hex_bytes, integer, record
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import EnvelopeId

_ENVELOPE = record(
    envelope_id=hex_bytes(16),
    sender=record(**ADDRESS),
    recipient=record(**ADDRESS),
    lane=integer(3),
    ttl=integer(description="seconds"),
    body=hex_bytes(),
)


def _encode(fields: Fields) -> JsonObject:
    envelope = Envelope(
        EnvelopeId(fields.hex("envelope_id")),
        address_of(fields.record("sender")),
        address_of(fields.record("recipient")),
        Lane(fields.number("lane")),
        fields.number("ttl"),
        fields.hex("body"),
    )
    return {"encoded": envelope.encode().hex()}


def _decode(fields: Fields) -> JsonObject:
    envelope = Envelope.decode(fields.hex("encoded"))
    return {
        "envelope_id": str(envelope.envelope_id),
        "sender": address_json(envelope.sender),
        "recipient": address_json(envelope.recipient),
        "lane": int(envelope.lane),
        "ttl": envelope.ttl,
        "body": envelope.body.hex(),
    }


ENCODE = Operation("EnvelopeEncode", "Fields to bytes", _ENVELOPE, record(encoded=hex_bytes()), _encode)
DECODE = Operation("EnvelopeDecode", "Bytes to fields", record(encoded=hex_bytes()), _ENVELOPE, _decode)

FILE = VectorFile("envelope", ("Envelopes (protocol.md section 10).",), (ENCODE, DECODE))
