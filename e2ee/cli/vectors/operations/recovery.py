"""Recovery codes and exports (protocol.md section 16).

Owns: the operations of recovery.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import array, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.recovery import ExportFile, Purpose, RecoveryCode, seal_export
from e2ee.transfer import ExportPayload
from e2ee.wire.contacts import ContactEntry, DecisionEntry
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import parse_user_id
from e2ee.wire.public_keys import AccountKey


def payload_of(fields: Fields) -> ExportPayload:
    """Return a payload as a vector writes it."""
    return ExportPayload(
        AccountKeyPair(SeedBytes32(fields.hex("account_seed"))),
        SignedDeviceList.decode(fields.hex("device_list")),
        fields.number("policy"),
        tuple(
            ContactEntry(
                parse_user_id(each.text("user_id")),
                AccountKey(each.hex("account_key")),
                bool(each.number("verified")),
                bool(each.number("forked")),
                SignedDeviceList.decode(each.hex("device_list")),
            )
            for each in fields.records("contacts")
        ),
        tuple(
            DecisionEntry(
                parse_user_id(each.text("user_id")),
                each.number("decision"),
                AccountKey(each.hex("account_key")),
                each.number("at"),
            )
            for each in fields.records("decisions")
        ),
        tuple((each.number("kind"), each.hex("bytes")) for each in fields.records("sections")),
    )


def payload_json(payload: ExportPayload) -> JsonObject:
    """Return a payload as a vector writes it."""
    return {
        "account_seed": payload.account_key_pair.seed.expose().hex(),
        "device_list": payload.device_list.encode().hex(),
        "policy": payload.policy,
        "contacts": [
            {
                "user_id": each.user_id,
                "account_key": str(each.account_key),
                "verified": int(each.verified),
                "forked": int(each.forked),
                "device_list": each.device_list.encode().hex(),
            }
            for each in payload.contacts
        ],
        "decisions": [
            {"user_id": each.user_id, "decision": each.decision, "account_key": str(each.key), "at": each.at}
            for each in payload.decisions
        ],
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


_PURPOSE = one_of("export", "recovery")
_CONTACT = record(
    user_id=text(), account_key=hex_bytes(32), verified=one_of(0, 1), forked=one_of(0, 1), device_list=hex_bytes()
)
_DECISION = record(user_id=text(), decision=integer(255), account_key=hex_bytes(32), at=timestamp())
_PAYLOAD = {
    "account_seed": hex_bytes(32),
    "device_list": hex_bytes(),
    "policy": integer(255),
    "contacts": array(_CONTACT),
    "decisions": array(_DECISION),
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

FILE = VectorFile("recovery", ("Recovery codes and exports (protocol.md section 16).",), (WRITE, READ, SEAL, OPEN))
