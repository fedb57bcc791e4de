"""Cases of safety_number.json."""

from collections.abc import Iterator

from e2ee.cli.vectors.cases.mutations import invalid, valid
from e2ee.cli.vectors.cases.people import Person, person
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import safety_number


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(safety_number.SAFETY_NUMBER, "pairs of users", tuple(_cases()))


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


def _user(who: Person) -> JsonObject:
    return {"user_id": who.user_id, "account_key": str(who.account.account_key_pair.public)}
