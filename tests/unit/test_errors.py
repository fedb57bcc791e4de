"""The error tree: what the docstring draws is what the module holds; codes and remedies are usable."""

import inspect
import re
from typing import Any

import pytest

from e2ee import errors
from e2ee.errors import AuthenticationError, E2EEError, ProtocolError, StateError, TooManySkippedError, TrustError

ABSTRACT = (E2EEError, ProtocolError, TrustError, StateError)
ALL = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, E2EEError)]
CONCRETE = [error for error in ALL if error not in ABSTRACT]

CANARY = "c4n4ry"
ARGUMENTS: dict[str, Any] = {"str": CANARY, "int": 7}


def example(kind: type[E2EEError]) -> E2EEError:
    """Make an error of a kind: every parameter is a string or a number, as the module promises."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    given = {each.name: ARGUMENTS[each.annotation.__name__] for each in parameters if each.name != "self"}
    return kind(**given)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    branch = ""
    for line in (errors.__doc__ or "").splitlines():
        names = re.findall(r"\w+Error\b", line)
        if not names or "`" in line:
            continue
        if names == ["E2EEError"]:
            continue
        if re.match(r"    [├└]─ ", line):
            branch = names[0]
            drawn[branch] = "E2EEError"
        else:
            drawn.update(dict.fromkeys(names, branch))

    assert drawn == {
        error.__name__: error.__base__.__name__ for error in ALL if error is not E2EEError and error.__base__
    }


@pytest.mark.parametrize("kind", ABSTRACT)
def test_an_abstract_error_cannot_be_raised(kind: type[E2EEError]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()
    with pytest.raises(TypeError, match="abstract"):
        kind("with a text")


@pytest.mark.parametrize("kind", CONCRETE)
def test_an_error_is_final_and_can_be_made(kind: type[E2EEError]) -> None:
    assert getattr(kind, "__final__", False)
    assert isinstance(example(kind), (ProtocolError, TrustError, StateError))


def test_every_code_is_stable_unique_and_machine_readable() -> None:
    codes = [kind.code for kind in CONCRETE]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code) for code in codes)
    assert E2EEError.code not in codes


@pytest.mark.parametrize("kind", CONCRETE)
def test_every_error_says_the_cause_then_what_to_do(kind: type[E2EEError]) -> None:
    text = str(example(kind))

    assert kind.remedy.strip() == kind.remedy != ""
    assert not kind.remedy.endswith(".")
    assert text.endswith(f". {kind.remedy}")
    assert text[0].isupper()
    assert ".." not in text


@pytest.mark.parametrize("kind", CONCRETE)
def test_an_error_keeps_its_facts_as_attributes(kind: type[E2EEError]) -> None:
    error = example(kind)

    for name, value in vars(error).items():
        assert value in ARGUMENTS.values()
        assert str(value) in str(error), name


def test_an_error_takes_its_facts_by_name_too() -> None:
    error = TooManySkippedError(gap=5_000, limit=1_000)

    assert (error.gap, error.limit) == (5_000, 1_000)


def test_an_authentication_failure_has_no_detail_to_learn_from() -> None:
    assert inspect.signature(AuthenticationError).parameters.keys() <= {"_args", "_kwargs"}
    assert str(AuthenticationError()) == str(AuthenticationError())
    with pytest.raises(TypeError):
        AuthenticationError("tag mismatch at byte 3")  # type: ignore[call-arg]  # the point of the test
