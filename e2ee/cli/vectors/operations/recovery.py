"""Recovery codes and exports (protocol.md section 16).

Owns: the operations of recovery.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import (
    CONTACT,
    DECISION,
    contact_json,
    contact_of,
    decision_json,
    decision_of,
)
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import MAX_TIMESTAMP, array, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.export_file import ExportReader, seal_pieces
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.recovery import ExportFile, Purpose, RecoveryCode, seal_export
from e2ee.transfer import ExportedMessage, ExportPayload
from e2ee.wire.codec import Writer
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceId, MessageId, parse_conversation_id, parse_user_id


def payload_of(fields: Fields) -> ExportPayload:
    """Return a payload as a vector writes it."""
    return ExportPayload(
        AccountKeyPair(SeedBytes32(fields.hex("account_seed"))),
        SignedDeviceList.decode(fields.hex("device_list")),
        fields.number("policy"),
        tuple(contact_of(each) for each in fields.records("contacts")),
        tuple(decision_of(each) for each in fields.records("decisions")),
        tuple((each.number("kind"), each.hex("bytes")) for each in fields.records("sections")),
    )


def payload_json(payload: ExportPayload) -> JsonObject:
    """Return a payload as a vector writes it."""
    return {
        "account_seed": payload.account_key_pair.seed.expose().hex(),
        "device_list": payload.device_list.encode().hex(),
        "policy": payload.policy,
        "contacts": [contact_json(each) for each in payload.contacts],
        "decisions": [decision_json(each) for each in payload.decisions],
        "sections": [{"kind": kind, "bytes": data.hex()} for kind, data in payload.sections],
    }


def _write(fields: Fields) -> JsonObject:
    return {"text": RecoveryCode(fields.hex("secret")).text()}


def _read(fields: Fields) -> JsonObject:
    return {"secret": RecoveryCode.parse(fields.text("text")).expose().hex()}


def _seal(fields: Fields) -> JsonObject:
    code, payload = RecoveryCode(fields.hex("secret")), payload_of(fields.record("payload"))
    user_id, nonce = parse_user_id(fields.text("user_id")), fields.hex("nonce")
    export = seal_export(code, user_id, payload, lambda _: nonce, _purpose(fields))
    return {"payload": payload.encode().hex(), "export": export.encode().hex()}


def _purpose(fields: Fields) -> Purpose:
    return Purpose[fields.text("purpose").upper()]


def _open(fields: Fields) -> JsonObject:
    with decoding():
        file = ExportFile.decode(fields.hex("export"))
        payload = file.open(RecoveryCode(fields.hex("secret")), _purpose(fields))
    return {"user_id": file.user_id, **payload_json(payload)}


def _message_of(fields: Fields) -> ExportedMessage:
    return ExportedMessage(
        MessageId(fields.hex("message_id")),
        parse_user_id(fields.text("author")),
        DeviceId(fields.hex("device")),
        parse_user_id(fields.text("peer")),
        parse_conversation_id(fields.text("conversation_id")),
        fields.number("kind"),
        fields.number("sent_at"),
        fields.number("written_at"),
        fields.number("received_at"),
        fields.number("state"),
        fields.number("position"),
        fields.hex("body"),
    )


def message_json(message: ExportedMessage) -> JsonObject:
    """Return a message as a vector writes it."""
    return {
        "message_id": str(message.message_id),
        "author": message.author,
        "device": str(message.device),
        "peer": message.peer,
        "conversation_id": message.conversation,
        "kind": message.kind,
        "sent_at": message.sent_at,
        "written_at": message.written_at,
        "received_at": message.received_at,
        "state": message.state,
        "position": message.position,
        "body": message.body.hex(),
    }


def _seal_history(fields: Fields) -> JsonObject:
    payload, chunks = payload_of(fields.record("payload")), list[bytes]()
    for messages in fields.lists("chunks"):
        writer = Writer()
        for message in messages:
            _message_of(message).encode_into(writer)
        chunks.append(writer.finish())
    ended = [(chunk, at == len(chunks)) for at, chunk in enumerate(chunks, 1)]
    user_id, code = parse_user_id(fields.text("user_id")), RecoveryCode(fields.hex("secret"))
    export = b"".join(seal_pieces(code, user_id, payload, ended, fields.hex("nonce")))
    return {"payload": payload.encode().hex(), "export": export.hex()}


def _open_history(fields: Fields) -> JsonObject:
    with decoding():
        reader = ExportReader(fields.hex("export"), RecoveryCode(fields.hex("secret")))
        messages = [message_json(message) for chunk in reader.messages() for message in chunk]
    return {
        "user_id": reader.user_id,
        **payload_json(reader.payload),
        "retention": reader.retention,
        "messages": messages,
    }


_PURPOSE = one_of("export", "recovery")
_PAYLOAD = {
    "account_seed": hex_bytes(32),
    "device_list": hex_bytes(),
    "policy": integer(255),
    "contacts": array(CONTACT),
    "decisions": array(DECISION),
    "sections": array(record(kind=integer(255), bytes=hex_bytes())),
}

WRITE = Operation("RecoveryCodeWrite", "A code for paper", record(secret=hex_bytes(20)), record(text=text()), _write)
READ = Operation("RecoveryCodeRead", "A code as typed", record(text=text()), record(secret=hex_bytes(20)), _read)

SEAL = Operation(
    "ExportSeal",
    "From an account to an export",
    record(secret=hex_bytes(20), purpose=_PURPOSE, user_id=text(), nonce=hex_bytes(12), payload=record(**_PAYLOAD)),
    record(payload=hex_bytes(), export=hex_bytes()),
    _seal,
)

OPEN = Operation(
    "ExportOpen",
    "From an export and a code to the account",
    record(secret=hex_bytes(20), purpose=_PURPOSE, export=hex_bytes()),
    record(user_id=text(), **_PAYLOAD),
    _open,
)

_MESSAGE = record(
    message_id=hex_bytes(16),
    author=text(),
    device=hex_bytes(16),
    peer=text(),
    conversation_id=text(),
    kind=integer(255),
    sent_at=timestamp(),
    written_at=timestamp(),
    received_at=timestamp(),
    state=integer(255),
    position=integer(MAX_TIMESTAMP),
    body=hex_bytes(),
)

HISTORY_SEAL = Operation(
    "HistoryExportSeal",
    "From an account and messages, in chunks, to an export",
    record(
        secret=hex_bytes(20),
        user_id=text(),
        nonce=hex_bytes(12),
        payload=record(**_PAYLOAD),
        chunks=array(array(_MESSAGE), 1),
    ),
    record(payload=hex_bytes(), export=hex_bytes()),
    _seal_history,
)

HISTORY_OPEN = Operation(
    "HistoryExportOpen",
    "From an export with or without a history to the account and the messages",
    record(secret=hex_bytes(20), export=hex_bytes()),
    record(user_id=text(), **_PAYLOAD, retention=integer(MAX_TIMESTAMP), messages=array(_MESSAGE)),
    _open_history,
)

FILE = VectorFile(
    "recovery",
    ("Recovery codes and exports (protocol.md section 16).",),
    (WRITE, READ, SEAL, OPEN, HISTORY_SEAL, HISTORY_OPEN),
)
