"""The generator: from cases to files, the same bytes every time.

Owns: numbering, outputs, notes, the bytes of vector and schema files.
Does not know about: single cases (cases/).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from e2ee.cli.vectors.cases import (
    aead,
    codec,
    content,
    conversation,
    device_list,
    double_ratchet,
    envelope,
    limits,
    linking,
    message,
    padding,
    people,
    pq_ratchet,
    pqxdh,
    prekey,
    primitives,
    reception,
    recovery,
    safety_number,
    sessions,
)
from e2ee.cli.vectors.drawn import record, record_sealed
from e2ee.cli.vectors.files import encode
from e2ee.cli.vectors.flags import FLAGS
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.registry import FILES

GROUPS: Final[dict[str, Callable[[], Iterator[CaseGroup]]]] = {
    "codec": codec.groups,
    "primitives": primitives.groups,
    "device_list": device_list.groups,
    "prekey": prekey.groups,
    "pqxdh": pqxdh.groups,
    "double_ratchet": double_ratchet.groups,
    "pq_ratchet": pq_ratchet.groups,
    "aead": aead.groups,
    "message": message.groups,
    "padding": padding.groups,
    "content": content.groups,
    "envelope": envelope.groups,
    "safety_number": safety_number.groups,
    "linking": linking.groups,
    "recovery": recovery.groups,
    "conversation": conversation.groups,
    "sessions": sessions.groups,
    "reception": reception.groups,
    "limits": limits.groups,
}

ENCAPSULATIONS: Final = 3
"""Recorded for each KEM key that a vector encapsulates to."""


class UnexpectedOutcomeError(Exception):
    """An operation does not do with a case what the case says."""


def generate() -> Iterator[tuple[str, bytes]]:
    """Yield (name within the directory of vectors, content) of every file."""
    for each in FILES:
        yield each.file_name, encode(document(each))
        yield f"schemas/{each.schema_name}", encode(each.schema())


def write(directory: Path) -> list[str]:
    """Write all files; return the names of those that were not there with the same bytes."""
    (directory / "schemas").mkdir(parents=True, exist_ok=True)
    changed = differences(directory, list(generate()))
    for name, data in changed:
        (directory / name).write_bytes(data)
    return [name for name, _ in changed]


def differences(directory: Path, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return the files that the directory does not hold with these bytes."""
    return [(name, data) for name, data in files if not _holds(directory / name, data)]


def record_encapsulations() -> None:
    """Make the encapsulations that are not recorded yet. Their values are random, and then fixed for ever."""
    for key in (*people.kem_keys(), primitives.KEM_KEY):
        for number in range(ENCAPSULATIONS):
            record(key, number)
    for key in pq_ratchet.encapsulation_keys():
        record(key)
    for sealing in linking.sealings():
        record_sealed(*sealing)


def document(file: VectorFile) -> JsonObject:
    """Return a vector file.

    Raises:
        UnexpectedOutcomeError: a case and its operation disagree.
    """
    groups = []
    used: set[str] = set()
    number = 0
    for group in GROUPS[file.name]():
        tests = []
        for case in group.cases:
            number += 1
            used.update(case.flags)
            tests.append(_test(group.operation, case, number))
        groups.append({"type": group.operation.name, "comment": group.comment, "tests": tests})
    return {
        "protocol": "E2EE/1",
        "schema": f"schemas/{file.schema_name}",
        "numberOfTests": number,
        "header": list(file.header),
        "notes": {name: {"bugType": FLAGS[name][0], "description": FLAGS[name][1]} for name in sorted(used)},
        "testGroups": groups,
    }


def _test(operation: Operation, case: Case, number: int) -> JsonObject:
    outcome = operation.answer(case.input)
    expected = "valid" if case.fails_at is None else f"refused at {case.fails_at}"
    refused = outcome.get("problem") or f"refused at {outcome.get('fails_at')}"
    found = "valid" if outcome["result"] == "valid" else refused
    if expected != found:
        raise UnexpectedOutcomeError(f"{operation.name}, {case.comment}: expected {expected}, found {found}")
    test: JsonObject = {"tcId": number, "comment": case.comment, "flags": list(case.flags), "result": outcome["result"]}
    if case.fails_at is not None:
        return {**test, "fails_at": case.fails_at, "input": case.input}
    return {**test, "input": case.input, "output": outcome["output"]}


def _holds(path: Path, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data
