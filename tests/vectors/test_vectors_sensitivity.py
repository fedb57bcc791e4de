"""Nothing in a vector is decoration: a change of any hex field of any valid case makes it fail.

The fields are found by looking at every string of the input and output of every valid case of every file, so a new file
or field is covered without being named here.
"""

import copy
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from e2ee.cli.vectors.model import JsonObject, Operation, VectorFile
from e2ee.cli.vectors.registry import FILES
from e2ee.cli.vectors.schema import SchemaError, check
from e2ee.cli.vectors.verify import check_answer

VECTORS: Final = Path(__file__).parents[2] / "vectors"
EVERY_BYTE_OF: Final = {"codec", "device_list", "double_ratchet", "envelope", "padding", "primitives"}
"""Files whose cases run fast enough to try every byte, and not only one of each field."""

_HEX: Final = re.compile("([0-9a-f]{2})+")
Place = tuple[str | int, ...]


def valid_tests(file: VectorFile) -> Iterator[tuple[Operation, JsonObject]]:
    document = json.loads((VECTORS / file.file_name).read_text())
    for group in document["testGroups"]:
        for test in group["tests"]:
            if test["result"] == "valid":
                yield file.operation(group["type"]), test


def hex_fields(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield every string that is bytes in hex, with its place."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        yield place, value
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from hex_fields(child, (*place, key))


def complemented(test: JsonObject, place: Place, text: str, at: int) -> JsonObject:
    """Return the test with one byte of one field complemented."""
    changed = copy.deepcopy(test)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    other = f"{int(text[2 * at : 2 * at + 2], 16) ^ 0xFF:02x}"
    holder[place[-1]] = text[: 2 * at] + other + text[2 * at + 2 :]
    return changed


def positions(file: VectorFile, place: Place, text: str) -> range:
    """Return the bytes to try: all, or one that differs from field to field."""
    length = len(text) // 2
    if file.name in EVERY_BYTE_OF and length <= 64:
        return range(length)
    at = zlib.crc32(repr(place).encode()) % length
    return range(at, at + 1)


def fails(operation: Operation, test: JsonObject) -> bool:
    try:
        check(operation.input, test["input"])
    except SchemaError:
        return True
    return check_answer(operation, test, operation.answer(test["input"])) is not None


@pytest.mark.timeout(300)  # conversations take 15 seconds of processor time, and the machine may be shared
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_complementing_one_byte_of_any_hex_field_of_a_valid_case_makes_it_fail(file: VectorFile) -> None:
    survivors: list[str] = []
    tried = 0
    for operation, test in valid_tests(file):
        assert not fails(operation, test)
        answer = operation.answer(test["input"])
        for place, text in hex_fields({name: test[name] for name in ("input", "output")}):
            for at in positions(file, place, text):
                changed = complemented(test, place, text, at)
                tried += 1
                # A change of the output alone needs no second run.
                noticed = (
                    check_answer(operation, changed, answer) if place[0] == "output" else fails(operation, changed)
                )
                if not noticed:
                    survivors.append(f"tcId {test['tcId']} {place} byte {at}")
    assert survivors == []
    assert tried >= len(list(valid_tests(file)))
