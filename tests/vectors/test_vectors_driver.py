"""Another program behind `e2ee vectors verify --command`: ours in its place, and ours with faults."""

import json
import shlex
import sys
from pathlib import Path
from typing import Final

import pytest

from e2ee.cli.__main__ import main
from e2ee.cli.vectors.driver import Driver, DriverError
from e2ee.cli.vectors.registry import FILES
from e2ee.cli.vectors.verify import load, verify

VECTORS: Final = Path(__file__).parents[2] / "vectors"
OURS: Final = f"{shlex.quote(sys.executable)} -m e2ee.cli.vectors.answer"
PADDING: Final = next(file for file in FILES if file.name == "padding")
UNPAD: Final = PADDING.operation("Unpad")
TEST: Final = {"tcId": 1, "input": {"padded": "00"}}

# Each program below answers as ours does and then changes the answer; `answer` is the dict, `request` the question.
WRAPPER: Final = """
import json, sys
from e2ee.cli.vectors.answer import answers
for line in sys.stdin:
    request = json.loads(line)
    (text,) = answers([line])
    answer = json.loads(text)
    CHANGE
    print(json.dumps(answer), flush=True)
"""


def program(change: str) -> str:
    source = WRAPPER.replace("CHANGE", change)
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(source)}"


def run(command: str, *options: str) -> int:
    return main(["vectors", "verify", str(VECTORS), "--command", command, *options])


def test_our_own_answers_over_json_lines_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(OURS) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 failed, 0 unsupported")


def test_a_request_holds_no_expected_outcome() -> None:
    echo = f"{shlex.quote(sys.executable)} -c {shlex.quote(ECHO)}"
    test = load((VECTORS / "padding.json").read_bytes())["testGroups"][-1]["tests"][-1]
    assert test["fails_at"] == "decode"
    with Driver(echo) as driver:
        answer = driver(PADDING, UNPAD, test)
    assert answer["output"] == {"file": "padding", "type": "Unpad", "tcId": test["tcId"], "input": test["input"]}


ECHO: Final = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"result": "valid", "output": json.loads(line)}), flush=True)
"""


@pytest.mark.parametrize(
    "change",
    [
        "answer = {'result': 'valid', 'output': {}}",
        "answer = {'result': 'invalid', 'fails_at': 'decode'}",
        "answer.get('output', {}).pop('message_key', answer.get('output', {}).pop('padded', None))",
        "answer.get('output', {}).update(more=1)",
        "answer = {'result': 'invalid', 'fails_at': 'replay'} if answer['result'] == 'invalid' else answer",
        "answer = {'result': 'error', 'problem': 'something went wrong'} if request['tcId'] == 3 else answer",
    ],
    ids=["accepts all", "refuses all", "leaves results out", "adds a key", "names another layer", "has an error"],
)
def test_changed_answers_fail(change: str) -> None:
    with Driver(program(change)) as driver:
        # Lazy: the first file that notices is enough.
        assert any(report.failures for report in verify(VECTORS, driver))


def test_every_kind_of_output_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Complement the first byte of hex in each output: every valid case with an output fails."""
    change = (
        "answer = json.loads(__import__('re').sub("
        "r'\"([0-9a-f]{2})(([0-9a-f]{2})*)\"', lambda m: '\"%02x%s\"' % (int(m[1], 16) ^ 255, m[2]), text))"
    )
    assert run(program(change)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("FAILED" in line for line in lines) == len(FILES)


def test_intermediate_values_may_be_left_out_of_an_answer() -> None:
    change = "[answer.get('output', {}).pop(name, None) for name in ('transcript', 'dh1', 'kem_shared_secret')]"
    assert run(program(change)) == 0


def test_intermediate_values_that_are_given_are_compared() -> None:
    with Driver(program("'dh1' in answer.get('output', {}) and answer['output'].update(dh1='00' * 32)")) as driver:
        failures = next(report.failures for report in verify(VECTORS, driver) if report.failures)
    assert "output.dh1: expected" in failures[0]


def test_unsupported_types_fail_unless_asked_for_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    change = "answer = {'result': 'unsupported'} if request['file'] == 'conversation' else answer"
    assert run(program(change)) == 1
    assert run(program(change), "--partial") == 0
    tests = json.loads((VECTORS / "conversation.json").read_text())["numberOfTests"]
    assert f"{tests} unsupported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("print('hello')", "not a line of JSON"),
        ("print('[]')", "not an answer"),
        ('print(\'{"result": "valid"}\')', "not an answer"),
        ('print(\'{"result": "invalid", "fails_at": "padding"}\')', "not an answer"),
        ('print(\'{"result": "invalid", "fails_at": "limit", "output": 1}\')', "not an answer"),
        ('print(\'{"result": "unsupported", "output": {}}\')', "not an answer"),
        ("pass", "no answer to padding test 1"),
        ("import sys; sys.exit(3)", "no answer to padding test 1"),
    ],
)
def test_what_is_no_answer_is_an_error(source: str, problem: str) -> None:
    # It takes the question first: one that has ended by then is told of for that.
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote('input()' + chr(10) + source)}"
    with Driver(command) as driver, pytest.raises(DriverError, match=problem):
        driver(PADDING, UNPAD, TEST)


def test_a_silent_program_is_ended() -> None:
    with Driver("sleep 1000", seconds=0.2) as driver, pytest.raises(DriverError, match=r"no answer .* within 0\.2"):
        driver(PADDING, UNPAD, TEST)


def test_a_program_that_never_reads_is_ended() -> None:
    command = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(1000)'"
    large = {"tcId": 1, "input": {"padded": "00" * 1_000_000}}
    with Driver(command, seconds=0.5) as driver, pytest.raises(DriverError, match="no answer"):
        driver(PADDING, UNPAD, large)


@pytest.mark.parametrize("command", ["no-such-program-anywhere", "", "'"])
def test_a_command_that_cannot_run_is_wrong_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    assert "cannot be run" in capsys.readouterr().err


def test_a_directory_that_is_not_there_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "verify", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
