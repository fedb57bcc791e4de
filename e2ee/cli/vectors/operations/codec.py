"""Text forms and addresses (protocol.md sections 1.3 and 1.4).

Owns: the operations of codec.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import ADDRESS, address_json, address_of
from e2ee.cli.vectors.schema import hex_bytes, record, text
from e2ee.wire.codec import Reader, from_base64url, to_base64url
from e2ee.wire.identifiers import DeviceAddress, parse_conversation_id


def _encode_base64url(fields: Fields) -> JsonObject:
    return {"text": to_base64url(fields.hex("bytes"))}


def _decode_base64url(fields: Fields) -> JsonObject:
    return {"bytes": from_base64url(fields.text("text")).hex()}


def _encode_address(fields: Fields) -> JsonObject:
    address = address_of(fields)
    return {"encoded": address.encode().hex(), "text": str(address)}


def _decode_address(fields: Fields) -> JsonObject:
    reader = Reader(fields.hex("encoded"))
    address = DeviceAddress.decode(reader)
    reader.finish()
    return address_json(address)


def _parse_address(fields: Fields) -> JsonObject:
    return address_json(DeviceAddress.parse(fields.text("text")))


def _parse_conversation_id(fields: Fields) -> JsonObject:
    return {"conversation_id": parse_conversation_id(fields.text("text"))}


BASE64URL_ENCODE = Operation(
    "Base64urlEncode", "Bytes to base64url", record(bytes=hex_bytes()), record(text=text()), _encode_base64url
)
BASE64URL_DECODE = Operation(
    "Base64urlDecode", "Base64url to bytes", record(text=text()), record(bytes=hex_bytes()), _decode_base64url
)
ADDRESS_ENCODE = Operation(
    "AddressEncode",
    "An address to its bytes and to its text form",
    record(**ADDRESS),
    record(encoded=hex_bytes(), text=text()),
    _encode_address,
)
ADDRESS_DECODE = Operation(
    "AddressDecode",
    "The bytes of an address, and nothing else",
    record(encoded=hex_bytes()),
    record(**ADDRESS),
    _decode_address,
)
ADDRESS_PARSE = Operation(
    "AddressParse", "The text form of an address", record(text=text()), record(**ADDRESS), _parse_address
)
CONVERSATION_ID = Operation(
    "ConversationId",
    "Which texts are conversation ids",
    record(text=text()),
    record(conversation_id=text()),
    _parse_conversation_id,
)

FILE = VectorFile(
    "codec",
    ("Text forms, user ids, conversation ids and addresses (protocol.md sections 1.3 and 1.4).",),
    (BASE64URL_ENCODE, BASE64URL_DECODE, ADDRESS_ENCODE, ADDRESS_DECODE, ADDRESS_PARSE, CONVERSATION_ID),
)
