"""Safety numbers (protocol.md section 4.3).

Owns: the operations of safety_number.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.schema import hex_bytes, one_of, record, text
from e2ee.safety_number import half_of, is_their_qr_text, qr_text, safety_number
from e2ee.wire.identifiers import UserId, parse_user_id
from e2ee.wire.public_keys import AccountKey


def _user(fields: Fields) -> tuple[UserId, AccountKey]:
    return parse_user_id(fields.text("user_id")), AccountKey(fields.hex("account_key"))


def _safety_number(fields: Fields) -> JsonObject:
    one, other = _user(fields.record("one")), _user(fields.record("other"))
    return {"half_of_one": half_of(*one), "half_of_other": half_of(*other), "number": safety_number(one, other)}


def _qr_text(fields: Fields) -> JsonObject:
    return {"text": qr_text(_user(fields.record("shower")), _user(fields.record("reader")))}


def _qr_read(fields: Fields) -> JsonObject:
    shower, reader = _user(fields.record("shower")), _user(fields.record("reader"))
    same = is_their_qr_text(fields.text("text"), reader, shower)
    return {"expected": qr_text(shower, reader), "same": int(same)}


_USER = record(user_id=text(), account_key=hex_bytes(32))

SAFETY_NUMBER = Operation(
    "SafetyNumber",
    "The sixty digits that two people compare",
    record(one=_USER, other=_USER),
    record(half_of_one=text(), half_of_other=text(), number=text()),
    _safety_number,
)

QR_TEXT = Operation(
    "SafetyQrText",
    "What one end shows the other as a QR code",
    record(shower=_USER, reader=_USER),
    record(text=text()),
    _qr_text,
)

QR_READ = Operation(
    "SafetyQrRead",
    "What the keys known to the reader make, and whether a text that was read is the same",
    record(shower=_USER, reader=_USER, text=text()),
    record(expected=text(), same=one_of(0, 1)),
    _qr_read,
)

FILE = VectorFile("safety_number", ("Safety numbers (protocol.md section 4.3).",), (SAFETY_NUMBER, QR_TEXT, QR_READ))
