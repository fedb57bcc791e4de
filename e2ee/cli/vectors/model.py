"""What a vector file is made of.

Owns: operations (a named function from input to output, with the schema of both), the schema of a whole file.
Does not know about: single operations (operations/), single cases (cases/).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from e2ee.cli.vectors.refusals import LAYERS, Layer, Refused, layer_of
from e2ee.cli.vectors.schema import Schema, array, constant, either, integer, one_of, record, text
from e2ee.errors import E2EEError

JsonObject = dict[str, Any]

BUG_TYPES: Final = (
    "BASIC",
    "EDGE_CASE",
    "AUTH_BYPASS",
    "DENIAL_OF_SERVICE",
    "MALLEABILITY",
    "MISSING_STEP",
    "MODIFIED_PARAMETER",
    "REPLAY",
    "SIGNATURE_MALLEABILITY",
    "WEAK_PARAMS",
)
"""What an implementation that gets such a case wrong suffers from."""


@final
class Fields:
    """An input, read by name. The schema was checked before, so a wrong type here is a bug of ours."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def hex(self, name: str) -> bytes:
        return bytes.fromhex(self._raw[name])

    def optional_hex(self, name: str) -> bytes | None:
        return bytes.fromhex(self._raw[name]) if name in self._raw else None

    def hexes(self, name: str) -> list[bytes]:
        return [bytes.fromhex(each) for each in self._raw[name]]

    def number(self, name: str) -> int:
        return int(self._raw[name])

    def text(self, name: str) -> str:
        return str(self._raw[name])

    def record(self, name: str) -> "Fields":
        return Fields(self._raw[name])

    def records(self, name: str) -> list["Fields"]:
        return [Fields(each) for each in self._raw[name]]

    def lists(self, name: str) -> list[list["Fields"]]:
        return [[Fields(each) for each in some] for some in self._raw[name]]


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that an implementation does: the `type` of a test group."""

    name: str
    title: str
    input: Schema
    output: Schema
    run: Callable[[Fields], JsonObject]
    """Raises E2EEError or Refused for an input that must be refused."""
    intermediate: tuple[str, ...] = ()
    """Output keys, at any depth, that help to find the first wrong step; another program's answer may omit them."""

    def answer(self, given: Mapping[str, Any]) -> JsonObject:
        """Run on an input; return the outcome as a vector states it: result, and output or fails_at.

        An input that contradicts itself (a private key beside another public key, a step without a session) is an error
        of whoever wrote it, and no outcome.
        """
        try:
            return {"result": "valid", "output": self.run(Fields(given))}
        except Refused as refused:
            return {"result": "invalid", "fails_at": refused.layer}
        except E2EEError as error:
            return {"result": "invalid", "fails_at": layer_of(error)}
        except (AssertionError, LookupError, StopIteration, ValueError) as problem:
            return {"result": "error", "problem": f"{type(problem).__name__}: {problem}"}

    def group_schema(self) -> Schema:
        """Return the schema of a test group of this type."""
        common: dict[str, Schema] = {
            "tcId": integer(),
            "comment": text(),
            "flags": array(text(), 1),
        }
        valid = record(**common, result=constant("valid"), input=self.input, output=self.output)
        invalid = record(**common, result=constant("invalid"), fails_at=one_of(*LAYERS), input=self.input)
        tests = array(either(valid, invalid), 1)
        return {"description": self.title, **record(type=constant(self.name), comment=text(), tests=tests)}


@final
@dataclass(frozen=True, slots=True)
class VectorFile:
    """One file: what it is about, and which operations its groups are of."""

    name: str
    header: tuple[str, ...]
    operations: tuple[Operation, ...]

    @property
    def file_name(self) -> str:
        return f"{self.name}.json"

    @property
    def schema_name(self) -> str:
        return f"{self.name}.schema.json"

    def operation(self, name: str) -> Operation:
        """Return the operation of a group's type."""
        return next(each for each in self.operations if each.name == name)

    def schema(self) -> Schema:
        """Return the JSON schema of the file."""
        note = record(bugType=one_of(*BUG_TYPES), description=text())
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": self.schema_name,
            "title": self.header[0],
            **record(
                protocol=constant("E2EE/1"),
                schema=constant(f"schemas/{self.schema_name}"),
                numberOfTests=integer(),
                header=array(text(), 1),
                notes={"type": "object", "additionalProperties": note},
                testGroups=array(either(*(each.group_schema() for each in self.operations)), 1),
            ),
        }


@final
@dataclass(frozen=True, slots=True)
class Case:
    """A case before it has a number and an output."""

    comment: str
    input: JsonObject
    flags: tuple[str, ...]
    fails_at: Layer | None = None


@final
@dataclass(frozen=True, slots=True)
class CaseGroup:
    """The cases of one test group."""

    operation: Operation
    comment: str
    cases: tuple[Case, ...]
