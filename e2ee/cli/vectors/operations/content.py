"""Content and its bodies (protocol.md section 9).

Owns: the operations of content.json.
Does not know about: cases, sessions.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import (
    CONTACT,
    DECISION,
    POSITION,
    contact_json,
    decision_json,
    position_json,
    position_of,
)
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import Schema, array, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.contacts import decode_linked
from e2ee.wire.content import (
    Content,
    DataFormat,
    Receipt,
    decode_application,
    decode_device_lists,
    decode_retry_request,
)
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import MessageId, parse_conversation_id, parse_user_id
from e2ee.wire.sync import ReadMarks, SentCopy, decode_sync

_CONTENT: Final[dict[str, Schema]] = {
    "message_id": hex_bytes(16),
    "kind": integer(255),
    "conversation_id": text(),
    "sent_at": timestamp(),
    "sender_list": POSITION,
    "recipient_list": POSITION,
    "device_list": hex_bytes(),
    "body": hex_bytes(),
}
_OPTIONAL: Final = ("device_list",)


def _encode(fields: Fields) -> JsonObject:
    device_list = fields.optional_hex("device_list")
    content = Content(
        MessageId(fields.hex("message_id")),
        fields.number("kind"),
        parse_conversation_id(fields.text("conversation_id")),
        fields.number("sent_at"),
        position_of(fields.record("sender_list")),
        position_of(fields.record("recipient_list")),
        fields.hex("body"),
        None if device_list is None else SignedDeviceList.decode(device_list),
    )
    return {"encoded": content.encode().hex()}


def _decode(fields: Fields) -> JsonObject:
    with decoding():
        content = Content.decode(fields.hex("encoded"))
    device_list = content.device_list
    return {
        "message_id": str(content.message_id),
        "kind": content.kind,
        "conversation_id": content.conversation_id,
        "sent_at": content.sent_at,
        "sender_list": position_json(content.sender_list),
        "recipient_list": position_json(content.recipient_list),
        **({} if device_list is None else {"device_list": device_list.encode().hex()}),
        "body": content.body.hex(),
    }


def _application(fields: Fields) -> JsonObject:
    body = fields.hex("body")
    data = decode_application(body)
    if isinstance(data, str):
        return {"format": "text", "text": data}
    return {"format": "bytes", "bytes": data.hex()}


def _receipt(fields: Fields) -> JsonObject:
    receipt = Receipt.decode(fields.hex("body"))
    return {"type": int(receipt.type), "message_ids": [str(each) for each in receipt.message_ids]}


def _retry_request(fields: Fields) -> JsonObject:
    return {"envelope_ids": [str(each) for each in decode_retry_request(fields.hex("body"))]}


def _device_lists(fields: Fields) -> JsonObject:
    with decoding():
        lists = decode_device_lists(fields.hex("body"))
    return {"device_lists": [each.encode().hex() for each in lists]}


def _call_signal(fields: Fields) -> JsonObject:
    signal = CallSignal.decode(fields.hex("body"))
    device = {} if signal.device_id is None else {"device_id": str(signal.device_id)}
    return {"call_id": str(signal.call_id), "action": int(signal.action), **device, "data": signal.data.hex()}


def _sync(fields: Fields) -> JsonObject:
    match decode_sync(fields.hex("body")):
        case SentCopy(recipient, kind, body):
            return {"type": 1, "recipient": recipient, "kind": kind, "body": body.hex()}
        case ReadMarks(author, message_ids):
            return {"type": 2, "author": author, "message_ids": [str(each) for each in message_ids]}
        case None:
            return {"unknown": fields.hex("body").hex()}


_BODY = record(body=hex_bytes())

ENCODE = Operation(
    "ContentEncode", "Fields to bytes", record(_OPTIONAL, **_CONTENT), record(encoded=hex_bytes()), _encode
)
DECODE = Operation(
    "ContentDecode", "Bytes to fields", record(encoded=hex_bytes()), record(_OPTIONAL, **_CONTENT), _decode
)
APPLICATION = Operation(
    "ApplicationData",
    "A body of kind 1",
    _BODY,
    record(
        ("text", "bytes"),
        format=one_of(*(each.name.lower() for each in DataFormat)),
        text=text(),
        bytes=hex_bytes(),
    ),
    _application,
)
RECEIPT = Operation(
    "Receipt",
    "A body of kind 2",
    _BODY,
    record(type=one_of(1, 2), message_ids=array(hex_bytes(16), 1)),
    _receipt,
)
RETRY_REQUEST = Operation(
    "RetryRequest", "A body of kind 3", _BODY, record(envelope_ids=array(hex_bytes(16), 1)), _retry_request
)
DEVICE_LISTS = Operation(
    "DeviceListUpdate", "A body of kind 4", _BODY, record(device_lists=array(hex_bytes(), 1)), _device_lists
)

CALL_SIGNAL = Operation(
    "CallSignal",
    "A body of kind 7",
    _BODY,
    record(
        ("device_id",),
        call_id=hex_bytes(16),
        action=one_of(*(int(each) for each in CallAction)),
        device_id=hex_bytes(16),
        data=hex_bytes(),
    ),
    _call_signal,
)

SYNC = Operation(
    "Sync",
    "A body of kind 5; `unknown` is the body of a type that means nothing",
    _BODY,
    record(
        ("type", "recipient", "kind", "body", "author", "message_ids", "unknown"),
        type=one_of(1, 2),
        recipient=text(),
        kind=integer(255),
        body=hex_bytes(),
        author=text(),
        message_ids=array(hex_bytes(16), 1),
        unknown=hex_bytes(),
    ),
    _sync,
)


def _linked(fields: Fields) -> JsonObject:
    with decoding():
        linked = decode_linked(fields.hex("body"))
    if linked is None:
        return {"unknown": fields.text("body")}
    for contact in linked.contacts:
        contact.verify(parse_user_id(fields.text("user_id")))
    return {
        "policy": linked.policy,
        "contacts": [contact_json(each) for each in linked.contacts],
        "decisions": [decision_json(each) for each in linked.decisions],
    }


LINKED = Operation(
    "LinkedContacts",
    "A body of kind 6, read by a device of `user_id`; `unknown` is the body of a type that means nothing",
    record(user_id=text(), body=hex_bytes()),
    record(
        ("policy", "contacts", "decisions", "unknown"),
        policy=integer(255),
        contacts=array(CONTACT),
        decisions=array(DECISION),
        unknown=hex_bytes(),
    ),
    _linked,
)

FILE = VectorFile(
    "content",
    ("Content, the plaintext of messages, and its bodies (protocol.md section 9).",),
    (ENCODE, DECODE, APPLICATION, RECEIPT, RETRY_REQUEST, DEVICE_LISTS, CALL_SIGNAL, SYNC, LINKED),
)
