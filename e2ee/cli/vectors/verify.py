"""The runner: whether somebody's answers to the vectors are the right ones.

Owns: reading vector files strictly, comparing answers, counts.
Does not know about: who answers: this package, or another program (driver.py).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from e2ee.cli.vectors.files import encode
from e2ee.cli.vectors.flags import FLAGS
from e2ee.cli.vectors.model import JsonObject, Operation, VectorFile
from e2ee.cli.vectors.registry import FILES
from e2ee.cli.vectors.schema import SchemaError, check

Answerer = Callable[[VectorFile, Operation, JsonObject], JsonObject]
"""Answers a test: takes file, operation and the test, of which it may look at tcId and input only."""

_SHOWN: Final = 40
"""Characters of a value that a failure shows."""


@final
@dataclass
class FileReport:
    """What came of one file."""

    name: str
    valid: int = 0
    invalid: int = 0
    unsupported: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        return self.valid + self.invalid


def ours(_file: VectorFile, operation: Operation, test: JsonObject) -> JsonObject:
    """Answer with this package."""
    return operation.answer(test["input"])


def verify(directory: Path, answerer: Answerer = ours) -> Iterator[FileReport]:
    """Run all files of a directory; yield a report for each, and one for files that nobody knows."""
    for file in FILES:
        yield _verify_file(directory, file, answerer)
    known = {name for file in FILES for name in (file.file_name, f"schemas/{file.schema_name}")}
    for path in sorted((*directory.glob("*.json"), *directory.glob("schemas/*"))):
        name = path.relative_to(directory).as_posix()
        if name not in known:
            yield FileReport(name, failures=["no such file belongs to this release"])


def load(data: bytes) -> JsonObject:
    """Parse a file; a key that occurs twice in one object is refused.

    Raises:
        SchemaError: it is no JSON object.
    """
    try:
        document = json.loads(data, object_pairs_hook=_unique)
    except ValueError as problem:
        raise SchemaError(f"not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise SchemaError("not a JSON object")
    return document


def check_document(file: VectorFile, document: JsonObject) -> None:
    """Check all of a file but the outcomes: its schema, flags, notes and numbers.

    Raises:
        SchemaError: a key, a flag or a number is wrong.
    """
    check(file.schema(), document)
    notes: dict[str, JsonObject] = document["notes"]
    for name, note in notes.items():
        if name not in FLAGS or (note["bugType"], note["description"]) != FLAGS[name]:
            raise SchemaError(f"the note {name!r} is unknown or says something else here")
    tests = [test for group in document["testGroups"] for test in group["tests"]]
    used = {flag for test in tests for flag in test["flags"]}
    if used != notes.keys():
        raise SchemaError(f"flags and notes differ: {', '.join(sorted(used ^ notes.keys()))}")
    if [test["tcId"] for test in tests] != list(range(1, document["numberOfTests"] + 1)):
        raise SchemaError("tcId does not count the tests from 1 to numberOfTests")


def check_answer(operation: Operation, test: JsonObject, answer: JsonObject, *, complete: bool = True) -> str | None:
    """Compare an answer with a test; return the first difference, or None. Incomplete ones may omit intermediates."""
    if answer.get("result") == "error":
        return f"not run: {answer['problem']}"
    if test["result"] == "invalid":
        if answer.get("result") == "valid":
            return f"accepted, and must be refused at {test['fails_at']}"
        expected: JsonObject = {"result": "invalid", "fails_at": test["fails_at"]}
    else:
        if answer.get("result") == "invalid":
            return f"refused at {answer.get('fails_at')}, and is valid"
        expected = {"result": "valid", "output": test["output"]}
    return difference(expected, answer, frozenset() if complete else frozenset(operation.intermediate))


def difference(expected: Any, found: Any, may_lack: frozenset[str] = frozenset(), path: str = "") -> str | None:
    """Return where two JSON values differ first, or None."""
    if type(expected) is not type(found):
        return f"{path or 'answer'}: expected {_short(expected)}, got {_short(found)}"
    if isinstance(expected, dict):
        return _object_difference(expected, found, may_lack, path)
    if isinstance(expected, list):
        if len(expected) != len(found):
            return f"{path}: expected {len(expected)} items, got {len(found)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return _first(difference(ours_, theirs, may_lack, f"{path}[{at}]") for at, (ours_, theirs) in pairs)
    return None if expected == found else f"{path}: expected {_short(expected)}, got {_short(found)}"


def _object_difference(expected: JsonObject, found: JsonObject, may_lack: frozenset[str], path: str) -> str | None:
    for name in expected:
        if name not in found and name not in may_lack:
            return f"{path or 'answer'} lacks the key {name!r}"
    for name in found:
        if name not in expected:
            return f"{path or 'answer'} has the unknown key {name!r}"
    shared = (name for name in expected if name in found)
    return _first(difference(expected[name], found[name], may_lack, f"{path}.{name}".lstrip(".")) for name in shared)


def _first(problems: Iterator[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def _short(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}... ({len(shown)} characters)"


def _verify_file(directory: Path, file: VectorFile, answerer: Answerer) -> FileReport:
    report = FileReport(file.file_name)
    try:
        document = load((directory / file.file_name).read_bytes())
        check_document(file, document)
        if (directory / "schemas" / file.schema_name).read_bytes() != encode(file.schema()):
            report.failures.append(f"schemas/{file.schema_name} is not this release's")
    except OSError as problem:
        report.failures.append(f"cannot be read: {problem.strerror}")
        return report
    except SchemaError as problem:
        report.failures.append(str(problem))
        return report
    for group in document["testGroups"]:
        operation = file.operation(group["type"])
        for test in group["tests"]:
            _run(report, file, operation, test, answerer)
    return report


def _run(report: FileReport, file: VectorFile, operation: Operation, test: JsonObject, answerer: Answerer) -> None:
    if test["result"] == "valid":
        report.valid += 1
    else:
        report.invalid += 1
    answer = answerer(file, operation, test)
    if answer == {"result": "unsupported"}:
        report.unsupported += 1
        return
    problem = check_answer(operation, test, answer, complete=answerer is ours)
    if problem is not None:
        report.failures.append(f"test {test['tcId']} ({operation.name}, {test['comment']}): {problem}")


def _unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
