"""The runner accepts our vectors, and nothing that is not exactly their form."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from e2ee.cli.__main__ import main
from e2ee.cli.vectors.refusals import LAYERS
from e2ee.cli.vectors.registry import FILES
from e2ee.cli.vectors.schema import SchemaError, check
from e2ee.cli.vectors.verify import FileReport, check_answer, check_document, load, verify

VECTORS: Final = Path(__file__).parents[2] / "vectors"
PADDING: Final = next(file for file in FILES if file.name == "padding")


def document() -> dict[str, Any]:
    return load((VECTORS / PADDING.file_name).read_bytes())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VECTORS, tmp_path / "vectors"))


def report_of(directory: Path, name: str) -> FileReport:
    return next(report for report in verify(directory) if report.name == name)


def test_our_vectors_hold() -> None:
    reports = list(verify(VECTORS))
    assert [failure for report in reports for failure in report.failures] == []
    assert sum(report.tests for report in reports) > 300
    assert {report.name for report in reports} == {path.name for path in VECTORS.glob("*.json")}


def test_counts_per_file_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "verify", str(VECTORS)]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FILES)
    assert all(line.endswith(" invalid: ok") for line in lines)
    assert total.endswith(" tests, 0 failed, 0 unsupported")


def test_every_file_has_valid_cases_and_every_layer_refuses_something() -> None:
    layers = set()
    for file in FILES:
        tests = [test for group in file_groups(file.file_name) for test in group["tests"]]
        assert any(test["result"] == "valid" for test in tests)
        layers |= {test["fails_at"] for test in tests if test["result"] == "invalid"}
    assert layers == set(LAYERS)


def file_groups(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = load((VECTORS / name).read_bytes())["testGroups"]
    return groups


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(child)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_unknown_key_in_any_object_is_refused(file: Any) -> None:
    whole = load((VECTORS / file.file_name).read_bytes())
    for group in whole["testGroups"]:
        # One case of each outcome has every kind of object that its group can hold.
        group["tests"] = list({test["result"]: test for test in group["tests"]}.values())
    check(file.schema(), whole)
    for each in objects(whole):
        each["surprise"] = 1
        with pytest.raises(SchemaError, match=r"has the unknown key 'surprise'|is not an object"):
            check(file.schema(), whole)
        del each["surprise"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_missing_key_of_the_file_a_group_or_a_test_is_refused(file: Any) -> None:
    whole = load((VECTORS / file.file_name).read_bytes())
    for holder in (whole, whole["testGroups"][0], whole["testGroups"][-1]["tests"][-1]):
        for name in list(holder):
            value = holder.pop(name)
            with pytest.raises(SchemaError, match=f"lacks the key '{name}'|fits none of the alternatives"):
                check_document(file, whole)
            holder[name] = value


def with_unknown_flag(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["tests"][0]["flags"] = ["Surprise"]


def with_unknown_note(whole: dict[str, Any]) -> None:
    with_unknown_flag(whole)
    whole["notes"]["Surprise"] = {"bugType": "BASIC", "description": "made up"}


def with_unused_note(whole: dict[str, Any]) -> None:
    whole["notes"]["Replay"] = {
        "bugType": "REPLAY",
        "description": "A message or handshake that was accepted before.",
    }


def with_another_note(whole: dict[str, Any]) -> None:
    whole["notes"]["Padding"]["bugType"] = "BASIC"


def without_flags(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["tests"][0]["flags"] = []


def with_a_number_twice(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["tests"][1]["tcId"] = 1


def with_a_wrong_count(whole: dict[str, Any]) -> None:
    whole["numberOfTests"] += 1


def with_a_test_left_out(whole: dict[str, Any]) -> None:
    del whole["testGroups"][-1]["tests"][-1]


def with_another_result(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["tests"][0]["result"] = "acceptable"


def with_an_unknown_layer(whole: dict[str, Any]) -> None:
    whole["testGroups"][-1]["tests"][-1]["fails_at"] = "padding"


def with_another_protocol(whole: dict[str, Any]) -> None:
    whole["protocol"] = "E2EE/2"


def with_an_unknown_type(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["type"] = "Depad"


def with_upper_case_hex(whole: dict[str, Any]) -> None:
    whole["testGroups"][1]["tests"][0]["output"]["padded"] = "AB" * 256


def with_a_line_break_after_hex(whole: dict[str, Any]) -> None:
    whole["testGroups"][1]["tests"][0]["output"]["padded"] += "\n"


def with_a_flag_for_a_number(whole: dict[str, Any]) -> None:
    whole["testGroups"][0]["tests"][1]["input"]["length"] = True


CHANGES: Final = (
    with_unknown_flag, with_unknown_note, with_unused_note, with_another_note, without_flags, with_a_number_twice,
    with_a_wrong_count, with_a_test_left_out, with_another_result, with_an_unknown_layer, with_another_protocol,
    with_an_unknown_type, with_upper_case_hex, with_a_line_break_after_hex, with_a_flag_for_a_number,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_of_another_form_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    whole = document()
    check_document(PADDING, whole)
    change(whole)
    with pytest.raises(SchemaError):
        check_document(PADDING, whole)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(SchemaError):
        load(data)


def test_a_missing_file_fails(copy: Path) -> None:
    (copy / "padding.json").unlink()
    assert "cannot be read" in report_of(copy, "padding.json").failures[0]


def test_a_file_that_nobody_knows_fails(copy: Path) -> None:
    (copy / "more.json").write_text("{}")
    assert report_of(copy, "more.json").failures != []


def test_a_changed_schema_fails(copy: Path) -> None:
    schema = copy / "schemas" / "padding.schema.json"
    schema.write_text(schema.read_text().replace('"additionalProperties": false', '"additionalProperties": true'))
    assert "schemas/padding.schema.json" in report_of(copy, "padding.json").failures[0]


def test_a_wrong_output_is_shown_with_its_place(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "padding.json"
    whole = load(path.read_bytes())
    whole["testGroups"][0]["tests"][3]["output"]["padded_length"] = 255
    path.write_text(json.dumps(whole))
    assert main(["vectors", "verify", str(copy)]) == 1
    output = capsys.readouterr().out
    assert "1 FAILED" in output
    assert "test 4 (PaddedLength, 254 bytes of content): output.padded_length: expected 255, got 256" in output


def test_an_input_that_contradicts_itself_fails_without_a_traceback(copy: Path) -> None:
    path = copy / "conversation.json"
    whole = load(path.read_bytes())
    for step in whole["testGroups"][0]["tests"][0]["input"]["steps"]:
        step["device"] = "nobody"
    path.write_text(json.dumps(whole))
    assert "not run" in report_of(copy, "conversation.json").failures[0]


def test_an_outcome_of_the_wrong_layer_fails() -> None:
    operation = PADDING.operation("Unpad")
    test = {"result": "invalid", "fails_at": "decode"}
    assert check_answer(operation, test, {"result": "invalid", "fails_at": "decode"}) is None
    assert check_answer(operation, test, {"result": "invalid", "fails_at": "limit"}) is not None
    assert "accepted" in str(check_answer(operation, test, {"result": "valid", "output": {}}))


def test_a_number_is_no_flag_in_a_comparison() -> None:
    operation = PADDING.operation("PaddedLength")
    test = {"result": "valid", "output": {"padded_length": 1}}
    assert check_answer(operation, test, {"result": "valid", "output": {"padded_length": 1}}) is None
    assert check_answer(operation, test, {"result": "valid", "output": {"padded_length": True}}) is not None


def test_the_schemas_say_the_same_to_a_validator_that_is_not_ours() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the reference validator is not installed")
    for file in FILES:
        schema = json.loads((VECTORS / "schemas" / file.schema_name).read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        whole = load((VECTORS / file.file_name).read_bytes())
        assert validator.is_valid(whole)
        for group in whole["testGroups"]:
            del group["tests"][1:]  # a key too many is looked for in one test of each group, the whole takes minutes
        for each in list(objects(whole))[:30]:
            each["surprise"] = 1
            assert not validator.is_valid(whole)
            del each["surprise"]


def test_the_guide_names_every_file_type_and_flagged_layer() -> None:
    guide = (VECTORS / "README.md").read_text()
    named = [file.file_name for file in FILES] + [each.name for file in FILES for each in file.operations]
    assert [name for name in (*named, *LAYERS) if f"`{name}`" not in guide] == []


def test_the_guide_names_what_an_answer_may_leave_out() -> None:
    """Row by row: `Type`, `Type` | key, key."""
    rows = [line.split("|") for line in (VECTORS / "README.md").read_text().splitlines() if line.startswith("| `")]
    documented = {
        kind.strip(" `"): {key.strip() for key in row[2].split(",")} for row in rows for kind in row[1].split(",")
    }
    for file in FILES:
        for each in file.operations:
            assert documented.get(each.name, set()) == set(each.intermediate), each.name
