"""RatchetMessage and PreKeyMessage (protocol.md section 8).

Owns: the operations of message.json.
Does not know about: cases, keys, what is inside the ciphertext.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import MAX_TIMESTAMP, Schema, hex_bytes, integer, record
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.message import HandshakeHeader, PreKeyMessage, RatchetHeader, RatchetMessage
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, EphemeralKey, IdentityKey, RatchetPublicKey

_HEADER: Final[dict[str, Schema]] = {
    "ratchet_key": hex_bytes(32),
    "previous_chain_length": integer(),
    "index": integer(),
    "pq_epoch": integer(),
    "pq_index": integer(),
    "pq_payload_type": integer(3),
    "pq_payload": hex_bytes(),
}
_MESSAGE: Final[dict[str, Schema]] = {
    **_HEADER,
    "commitment": hex_bytes(32),
    "nonce": hex_bytes(12),
    "ciphertext": hex_bytes(),
}
_HANDSHAKE: Final[dict[str, Schema]] = {
    "account_key": hex_bytes(32),
    "device_signing_key": hex_bytes(32),
    "identity_key": hex_bytes(32),
    "created": integer(MAX_TIMESTAMP),
    "ephemeral_key": hex_bytes(32),
    "signed_prekey_id": integer(),
    "one_time_prekey_id": integer(),
    "kem_prekey_id": integer(),
    "kem_ciphertext": hex_bytes(1568),
}
_OPTIONAL: Final = ("one_time_prekey_id",)


def _ratchet_message(fields: Fields) -> bytes:
    header = RatchetHeader(
        RatchetPublicKey.from_bytes(fields.hex("ratchet_key")),
        fields.number("previous_chain_length"),
        fields.number("index"),
        fields.number("pq_epoch"),
        fields.number("pq_index"),
        fields.number("pq_payload_type"),
        fields.hex("pq_payload"),
    )
    return header.encode() + fields.hex("commitment") + fields.hex("nonce") + fields.hex("ciphertext")


def _ratchet_message_json(message: RatchetMessage) -> JsonObject:
    header = message.header
    return {
        "ratchet_key": str(header.ratchet_key),
        "previous_chain_length": header.previous_chain_length,
        "index": header.chain_index,
        "pq_epoch": header.pq_epoch,
        "pq_index": header.pq_index,
        "pq_payload_type": header.pq_type,
        "pq_payload": header.pq_payload.hex(),
        "commitment": message.commitment.hex(),
        "nonce": message.nonce.hex(),
        "ciphertext": message.ciphertext.hex(),
    }


def _handshake(fields: Fields) -> HandshakeHeader:
    one_time = fields.number("one_time_prekey_id") if "one_time_prekey_id" in fields else None
    return HandshakeHeader(
        AccountKey.from_bytes(fields.hex("account_key")),
        DeviceSigningKey.from_bytes(fields.hex("device_signing_key")),
        IdentityKey.from_bytes(fields.hex("identity_key")),
        fields.number("created"),
        EphemeralKey.from_bytes(fields.hex("ephemeral_key")),
        PreKeyId(fields.number("signed_prekey_id")),
        None if one_time is None else PreKeyId(one_time),
        PreKeyId(fields.number("kem_prekey_id")),
        fields.hex("kem_ciphertext"),
    )


def _handshake_json(header: HandshakeHeader) -> JsonObject:
    one_time = header.one_time_prekey_id
    return {
        "account_key": str(header.account_key),
        "device_signing_key": str(header.device_signing_key),
        "identity_key": str(header.identity_key),
        "created": header.created,
        "ephemeral_key": str(header.ephemeral_key),
        "signed_prekey_id": header.signed_prekey_id,
        **({} if one_time is None else {"one_time_prekey_id": one_time}),
        "kem_prekey_id": header.kem_prekey_id,
        "kem_ciphertext": header.kem_ciphertext.hex(),
    }


def _encode_ratchet_message(fields: Fields) -> JsonObject:
    return {"encoded": _ratchet_message(fields).hex()}


def _decode_ratchet_message(fields: Fields) -> JsonObject:
    with decoding():
        message = RatchetMessage.decode(fields.hex("encoded"))
    return _ratchet_message_json(message)


def _encode_prekey_message(fields: Fields) -> JsonObject:
    header = _handshake(fields.record("handshake"))
    message = RatchetMessage.decode(_ratchet_message(fields.record("message")))
    return {"encoded": PreKeyMessage(header, message).encode().hex(), "handshake_hash": header.hash().hex()}


def _decode_prekey_message(fields: Fields) -> JsonObject:
    with decoding():
        first = PreKeyMessage.decode(fields.hex("encoded"))
    return {
        "handshake": _handshake_json(first.handshake),
        "message": _ratchet_message_json(first.message),
        "handshake_hash": first.handshake.hash().hex(),
    }


_ENCODED = record(encoded=hex_bytes())
_FIRST = {"handshake": record(_OPTIONAL, **_HANDSHAKE), "message": record(**_MESSAGE)}

RATCHET_ENCODE = Operation(
    "RatchetMessageEncode", "Fields to bytes", record(**_MESSAGE), _ENCODED, _encode_ratchet_message
)
RATCHET_DECODE = Operation(
    "RatchetMessageDecode", "Bytes to fields", _ENCODED, record(**_MESSAGE), _decode_ratchet_message
)
PREKEY_ENCODE = Operation(
    "PreKeyMessageEncode",
    "Fields to bytes; handshake_hash is H",
    record(**_FIRST),
    record(encoded=hex_bytes(), handshake_hash=hex_bytes(32)),
    _encode_prekey_message,
)
PREKEY_DECODE = Operation(
    "PreKeyMessageDecode",
    "Bytes to fields; handshake_hash is H",
    _ENCODED,
    record(**_FIRST, handshake_hash=hex_bytes(32)),
    _decode_prekey_message,
)

FILE = VectorFile(
    "message",
    ("The two protected bodies, without their keys (protocol.md section 8).",),
    (RATCHET_ENCODE, RATCHET_DECODE, PREKEY_ENCODE, PREKEY_DECODE),
)
