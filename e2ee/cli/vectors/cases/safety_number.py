"""Cases of safety_number.json."""

from collections.abc import Iterator

from e2ee.cli.vectors.cases.mutations import invalid, valid
from e2ee.cli.vectors.cases.people import Person, person
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import safety_number


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(safety_number.SAFETY_NUMBER, "pairs of users", tuple(_cases()))
    yield CaseGroup(safety_number.QR_TEXT, "QR codes that are shown", tuple(_shown()))
    yield CaseGroup(safety_number.QR_READ, "QR codes that are read", tuple(_read()))


def _cases() -> Iterator[Case]:
    alice, bob = _user(person("alice")), _user(person("bob"))
    yield valid("two users", {"one": alice, "other": bob})
    yield valid("in the other order: the same number", {"one": bob, "other": alice})
    yield valid("another account key of the same user", {"one": _user(person("alice", 2, "mallory")), "other": bob})
    yield valid("another user with the same account key", {"one": {**alice, "user_id": "alicf"}, "other": bob})
    longest = {**alice, "user_id": "u" * 128}
    yield valid("the longest user id", {"one": longest, "other": bob}, "Boundary")
    yield invalid("an empty user id", "decode", {"one": {**alice, "user_id": ""}, "other": bob}, "BeyondLimit")
    yield invalid("a space", "decode", {"one": alice, "other": {**bob, "user_id": "b b"}}, "InvalidText")


def _shown() -> Iterator[Case]:
    alice, bob = _user(person("alice")), _user(person("bob"))
    yield valid("two users", {"shower": alice, "reader": bob})
    yield valid("in the other direction: another text", {"shower": bob, "reader": alice})
    longest = {**alice, "user_id": "u" * 128}
    yield valid("the longest user id", {"shower": longest, "reader": bob}, "Boundary")


def _read() -> Iterator[Case]:
    both = {"shower": _user(person("alice")), "reader": _user(person("bob"))}
    text = safety_number.QR_TEXT.answer(both)["output"]["text"]
    back = safety_number.QR_TEXT.answer({"shower": both["reader"], "reader": both["shower"]})["output"]["text"]
    other = {**both, "shower": _user(person("alice", 2, "mallory"))}
    yield valid("what the other end shows", {**both, "text": text})
    yield valid("what this end shows itself", {**both, "text": back}, "WrongIdentity")
    yield valid("of another account key of the same user", {**other, "text": text}, "WrongKey")
    yield valid("one letter differs", {**both, "text": text[:-1] + ("A" if text[-1] != "A" else "B")}, "WrongKey")
    yield invalid("without its prefix", "decode", {**both, "text": text[13:]}, "InvalidText")
    yield invalid("another prefix", "decode", {**both, "text": "E2EE2" + text[5:]}, "UnknownVersion")
    yield invalid("in lower case", "decode", {**both, "text": text.lower()}, "InvalidText")
    yield invalid("one letter less", "decode", {**both, "text": text[:-1]}, "Truncated")
    yield invalid("one letter more", "decode", {**both, "text": text + "A"}, "TrailingBytes")
    yield invalid("60 digits", "decode", {**both, "text": "1" * 60}, "InvalidText")


def _user(who: Person) -> JsonObject:
    return {"user_id": who.user_id, "account_key": str(who.account.account_key_pair.public)}
