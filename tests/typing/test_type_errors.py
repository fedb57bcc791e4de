"""Misuse that the type checker must refuse, and the same use done right that it must accept.

Each file in snippets/ is checked, never run. A line ends in `# error: CODE` where mypy must report that code; it must
report nothing else.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = sorted(Path(__file__).with_name("snippets").glob("*.py"))
MARKER = re.compile(r"# error: ([a-z-]+)$")


@pytest.fixture(scope="module")
def reported() -> dict[str, set[tuple[int, str]]]:
    """Line and code of all errors, by name of the snippet; one run of mypy serves all tests."""
    command = [sys.executable, "-m", "mypy", "--output", "json", *map(str, SNIPPETS)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert errors, finished.stdout + finished.stderr
    by_snippet: dict[str, set[tuple[int, str]]] = {}
    for error in errors:
        if error["severity"] == "error":
            by_snippet.setdefault(Path(error["file"]).name, set()).add((error["line"], error["code"]))
    return by_snippet


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.stem)
def test_mypy_reports_exactly_the_marked_lines(snippet: Path, reported: dict[str, set[tuple[int, str]]]) -> None:
    assert reported.get(snippet.name, set()) == marked(snippet)


def test_there_are_snippets_of_both_kinds() -> None:
    assert {bool(marked(snippet)) for snippet in SNIPPETS} == {True, False}


def marked(snippet: Path) -> set[tuple[int, str]]:
    lines = enumerate(snippet.read_text().splitlines(), start=1)
    return {(number, match.group(1)) for number, line in lines if (match := MARKER.search(line))}
