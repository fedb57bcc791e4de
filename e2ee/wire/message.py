"""RatchetMessage and PreKeyMessage: the two protected bodies (protocol.md section 8).

Owns: their bytes. Encoding and decoding a ratchet message is the hot path, hence one `struct` and named tuples.
Does not know about: keys, what is inside the ciphertext, envelopes.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, final

from e2ee.errors import MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_ENVELOPE
from e2ee.primitives import kdf
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, EphemeralKey, IdentityKey, RatchetPublicKey

VERSION: Final = 1
PREKEY_MESSAGE: Final = 1
RATCHET_MESSAGE: Final = 2

COMMITMENT_LENGTH: Final = 32
NONCE_LENGTH: Final = 12
KEM_CIPHERTEXT_LENGTH: Final = 1568
MAX_INDEX: Final = (1 << 32) - 1
"""No message has this index, so that the next index of a chain always fits a u32."""

MIN_CIPHERTEXT: Final = 256 + 16
"""The smallest padded plaintext and the tag."""


@final
class PqPayloadType(IntEnum):
    """What a ratchet message carries for the post-quantum ratchet."""

    NONE = 0
    ENCAPSULATION_KEY = 1
    CIPHERTEXT = 2
    REQUEST = 3


PQ_PAYLOAD_LENGTHS: Final = (0, 1184 + 32, 1088 + 32, 0)
"""Length in bytes of the payload by type; the last 32 are its authenticator."""

_HEADER = struct.Struct(">BB32sIIIIBH")
_PREFIXES = tuple(
    struct.Struct(f"{_HEADER.format}{length}s{COMMITMENT_LENGTH}s{NONCE_LENGTH}s") for length in PQ_PAYLOAD_LENGTHS
)
"""Everything before the ciphertext, by the type of the payload."""
_PQ_TYPE_AT = _HEADER.size - 3
_new = tuple.__new__  # less than half the time of a named tuple's own constructor


class RatchetHeader(NamedTuple):
    """The header of both ratchets. Sent in the clear, authenticated as associated data."""

    ratchet_key: RatchetPublicKey
    previous_chain_length: int
    chain_index: int
    pq_epoch: int
    pq_index: int
    pq_type: int = PqPayloadType.NONE
    pq_payload: bytes = b""

    def encode(self) -> bytes:
        """Encode the header.

        | field | bytes |
        |---|---|
        | version 0x01, type 0x02 | 1, 1 |
        | ratchet key | 32 |
        | previous chain length, index | u32, u32 |
        | post-quantum epoch, index | u32, u32 |
        | payload type, payload | u8, u16 length and bytes |
        """
        key, previous, index, pq_epoch, pq_index, pq_type, payload = self
        fields = previous, index, pq_epoch, pq_index, pq_type, len(payload)
        return _HEADER.pack(VERSION, RATCHET_MESSAGE, key.raw, *fields) + payload

    def __repr__(self) -> str:
        chain, pq = f"{self.chain_index} after {self.previous_chain_length}", f"{self.pq_epoch}/{self.pq_index}"
        return f"RatchetHeader({self.ratchet_key!r}, index {chain}, post-quantum {pq}, payload type {self.pq_type})"


HeaderFields = tuple[RatchetPublicKey, int, int, int, int, int, bytes]
"""A `RatchetHeader`, or its fields: on the way of a message a named one would cost more than it tells."""


def encode_prefix(fields: HeaderFields, commitment: bytes, nonce: bytes) -> bytes:
    """Encode what stands before the ciphertext."""
    key, previous, index, pq_epoch, pq_index, pq_type, payload = fields
    return _PREFIXES[pq_type].pack(
        VERSION,
        RATCHET_MESSAGE,
        key.raw,
        previous,
        index,
        pq_epoch,
        pq_index,
        pq_type,
        len(payload),
        payload,
        commitment,
        nonce,
    )


class RatchetMessage(NamedTuple):
    """One encrypted message of an established session."""

    fields: HeaderFields
    commitment: bytes
    nonce: bytes
    ciphertext: bytes
    prefix: bytes
    """The encoded bytes before the ciphertext: the message's part of the associated data."""

    @property
    def header(self) -> RatchetHeader:
        return RatchetHeader(*self.fields)

    @property
    def carries_pq_payload(self) -> bool:
        """Whether it brings something for the post-quantum ratchet."""
        return self.fields[5] > 0

    def encode(self) -> bytes:
        """`header | commitment 32 | nonce 12 | ciphertext and tag`."""
        return self.prefix + self.ciphertext

    def __repr__(self) -> str:
        # The one a named tuple comes with would print the ciphertext.
        return f"RatchetMessage({self.header!r}, {len(self.ciphertext)} bytes of ciphertext)"

    @classmethod
    def decode(cls, data: bytes) -> "RatchetMessage":
        """Parse a ratchet message.

        Raises:
            MalformedMessageError: truncated, or a payload length that does not fit its type.
            UnsupportedVersionError: unknown version or type.
            InvalidPublicKeyError: the ratchet key is not canonical.
        """
        if len(data) < _HEADER.size:
            raise MalformedMessageError("truncated")
        if data[0] != VERSION:
            raise UnsupportedVersionError("message version", data[0])
        if data[1] != RATCHET_MESSAGE:
            raise UnsupportedVersionError("message type", data[1])
        if data[_PQ_TYPE_AT] >= len(_PREFIXES):
            raise MalformedMessageError("post-quantum payload")
        prefix = _PREFIXES[data[_PQ_TYPE_AT]]
        end = prefix.size
        if len(data) < end + MIN_CIPHERTEXT:
            raise MalformedMessageError("truncated")
        (_, _, ratchet_key, previous, index, pq_epoch, pq_index, pq_type, length, payload, commitment, nonce) = (
            prefix.unpack_from(data)
        )
        if length != len(payload):
            raise MalformedMessageError("post-quantum payload")
        if MAX_INDEX in (index, pq_index):
            raise MalformedMessageError("index of 2^32 - 1, which would leave none for the next message")
        # Almost no key has its top byte this high, so hardly any takes the check's way through three calls.
        key = RatchetPublicKey(ratchet_key) if ratchet_key[31] < 0x7F else RatchetPublicKey.from_bytes(ratchet_key)
        fields = key, previous, index, pq_epoch, pq_index, pq_type, payload
        return _new(cls, (fields, commitment, nonce, data[end:], data[:end]))


@final
@dataclass(frozen=True, slots=True)
class HandshakeHeader:
    """What the responder needs to derive the session, in front of every message until the first reply."""

    account_key: AccountKey
    device_signing_key: DeviceSigningKey
    identity_key: IdentityKey
    created: int
    ephemeral_key: EphemeralKey
    signed_prekey_id: PreKeyId
    one_time_prekey_id: PreKeyId | None
    kem_prekey_id: PreKeyId
    kem_ciphertext: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Encode the prefix of a PreKeyMessage.

        | field | bytes |
        |---|---|
        | version 0x01, type 0x01 | 1, 1 |
        | account key, device signing key, identity key | 32, 32, 32 |
        | created | u64, Unix milliseconds |
        | ephemeral key | 32 |
        | signed prekey id | u32 |
        | one-time prekey | u8 present, u32 id (zero when absent) |
        | KEM prekey id, KEM ciphertext | u32, 1568 |
        """
        one_time = self.one_time_prekey_id
        writer = Writer().u8(VERSION).u8(PREKEY_MESSAGE)
        writer.raw(self.account_key.raw).raw(self.device_signing_key.raw).raw(self.identity_key.raw)
        writer.u64(self.created).raw(self.ephemeral_key.raw).u32(self.signed_prekey_id)
        writer.u8(one_time is not None).u32(one_time or 0)
        return writer.u32(self.kem_prekey_id).raw(self.kem_ciphertext).finish()

    @classmethod
    def decode(cls, reader: Reader) -> "HandshakeHeader":
        _expect(reader, PREKEY_MESSAGE)
        keys = AccountKey.decode(reader), DeviceSigningKey.decode(reader), IdentityKey.decode(reader)
        created, ephemeral_key = reader.u64(), EphemeralKey.decode(reader)
        signed_prekey_id = PreKeyId(reader.u32())
        present, one_time = reader.flag(), PreKeyId(reader.u32())
        if not present and one_time:
            raise MalformedMessageError("id of an absent one-time prekey")
        kem_prekey_id, ciphertext = PreKeyId(reader.u32()), reader.fixed(KEM_CIPHERTEXT_LENGTH)
        one_time_id = one_time if present else None
        return cls(*keys, created, ephemeral_key, signed_prekey_id, one_time_id, kem_prekey_id, ciphertext)

    def hash(self) -> bytes:
        """H, 32 bytes: recognises a repeated first message."""
        return kdf.sha256(self.encode())


@final
@dataclass(frozen=True, slots=True)
class PreKeyMessage:
    """A ratchet message with the handshake in front."""

    handshake: HandshakeHeader
    message: RatchetMessage

    def encode(self) -> bytes:
        """`handshake | RatchetMessage (u32 length)`."""
        return Writer().raw(self.handshake.encode()).bytes32(self.message.encode()).finish()

    @classmethod
    def decode(cls, data: bytes) -> "PreKeyMessage":
        """Parse a first message.

        Raises:
            MalformedMessageError: truncated, trailing bytes, non-canonical.
            UnsupportedVersionError: unknown version or type.
            InvalidPublicKeyError: a key is not canonical.
        """
        reader = Reader(data)
        handshake = HandshakeHeader.decode(reader)
        message = RatchetMessage.decode(reader.bytes32(MAX_ENVELOPE))
        reader.finish()
        return cls(handshake, message)


def decode_body(data: bytes) -> PreKeyMessage | RatchetMessage:
    """Parse an envelope's body by its type byte.

    Raises:
        MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: see the two `decode`s.
    """
    if len(data) > 1 and data[1] == PREKEY_MESSAGE:
        return PreKeyMessage.decode(data)
    return RatchetMessage.decode(data)


def _expect(reader: Reader, expected: int) -> None:
    version, kind = reader.u8(), reader.u8()
    if version != VERSION:
        raise UnsupportedVersionError("message version", version)
    if kind != expected:
        raise UnsupportedVersionError("message type", kind)
