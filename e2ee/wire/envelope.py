"""Envelope: all that a server sees of a message (protocol.md section 10).

Owns: the bytes around a protected body, the lanes.
Does not know about: what the body holds; a mailbox stores envelopes as opaque bytes.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, final

from e2ee.errors import MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_ENVELOPE, MAX_TTL_SECONDS
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId

ENVELOPE_VERSION: Final = 1


@final
class Lane(IntEnum):
    """Priority of delivery. Lanes change the order of sending, never what is delivered."""

    CONTROL = 0
    CHAT = 1
    RECEIPT = 2
    BULK = 3


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """One ciphertext on its way. `ttl` is in seconds; the sender field is a hint until the body authenticates."""

    envelope_id: EnvelopeId
    sender: DeviceAddress
    recipient: DeviceAddress
    lane: Lane
    ttl: int
    body: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.ttl <= MAX_TTL_SECONDS:
            raise ValueError(f"ttl is 1 to {MAX_TTL_SECONDS} seconds")

    def encode(self) -> bytes:
        """Encode the envelope, at most 96 KiB in all.

        | field | bytes |
        |---|---|
        | version 0x01 | 1 |
        | envelope id | 16 |
        | sender, recipient | address each: u8 length, user id, device id 16 |
        | lane | u8, 0 to 3 |
        | time to live | u32, 1 to 2,419,200 seconds |
        | body | u32 length and bytes |
        """
        writer = Writer().u8(ENVELOPE_VERSION).raw(self.envelope_id.raw)
        writer.raw(self.sender.encode()).raw(self.recipient.encode())
        encoded = writer.u8(self.lane).u32(self.ttl).bytes32(self.body).finish()
        if len(encoded) > MAX_ENVELOPE:
            raise ValueError(f"an envelope is at most {MAX_ENVELOPE} bytes, not {len(encoded)}")
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> "Envelope":
        """Parse an envelope.

        Raises:
            MalformedMessageError: too large, truncated, trailing bytes, lane or time to live out of range.
            UnsupportedVersionError: unknown version.
        """
        if len(data) > MAX_ENVELOPE:
            raise MalformedMessageError(f"envelope of {len(data)} bytes, at most {MAX_ENVELOPE} allowed")
        reader = Reader(data)
        version = reader.u8()
        if version != ENVELOPE_VERSION:
            raise UnsupportedVersionError("envelope version", version)
        envelope_id = EnvelopeId.decode(reader)
        sender, recipient = DeviceAddress.decode(reader), DeviceAddress.decode(reader)
        lane, ttl = reader.u8(), reader.u32()
        if lane > Lane.BULK or not 1 <= ttl <= MAX_TTL_SECONDS:
            raise MalformedMessageError("lane or time to live")
        body = reader.bytes32(MAX_ENVELOPE)
        reader.finish()
        return cls(envelope_id, sender, recipient, Lane(lane), ttl, body)
