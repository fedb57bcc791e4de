"""Safety numbers (protocol.md section 4.3).

Owns: the operation of safety_number.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.schema import hex_bytes, record, text
from e2ee.safety_number import half_of, safety_number
from e2ee.wire.identifiers import UserId, parse_user_id
from e2ee.wire.public_keys import AccountKey


def _user(fields: Fields) -> tuple[UserId, AccountKey]:
    return parse_user_id(fields.text("user_id")), AccountKey(fields.hex("account_key"))


def _safety_number(fields: Fields) -> JsonObject:
    one, other = _user(fields.record("one")), _user(fields.record("other"))
    return {"half_of_one": half_of(*one), "half_of_other": half_of(*other), "number": safety_number(one, other)}


_USER = record(user_id=text(), account_key=hex_bytes(32))

SAFETY_NUMBER = Operation(
    "SafetyNumber",
    "The sixty digits that two people compare",
    record(one=_USER, other=_USER),
    record(half_of_one=text(), half_of_other=text(), number=text()),
    _safety_number,
)

FILE = VectorFile("safety_number", ("Safety numbers (protocol.md section 4.3).",), (SAFETY_NUMBER,))
