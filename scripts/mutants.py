"""`python -m scripts.mutants [MODULE ...]`: does a test fail when a line of the protocol is changed?

Runs mutmut over the modules that pyproject.toml names and goes on where the last run stopped. Named modules
(e2ee.wire.codec) are run alone, and from the start. What survives the fast tests meets slower ones, each time in a new
process. docs/mutants.md explains survivors; those that it does not explain are tried again in the next run, because
tests may have changed, and while there are any the run ends with 1.

Owns: what is run again, the slower tests, the report.
Does not know about: how mutants are made and run; that is mutmut's.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mutmut.__main__ import _run as run_mutmut, status_by_exit_code, walk_mutatable_files
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant

EXPLANATIONS: Final = Path("docs/mutants.md")
SURVIVED: Final = ("survived", "no tests")
NOT_RUN: Final = "not checked"
KILLED: Final = 1
"""Exit status of a test run that failed."""

SLOWER_TESTS: Final = (
    "tests/unit/test_ratchet_state.py",
    "tests/unit/test_persist.py",
    "tests/unit/test_messenger_first_contact.py",
    "tests/unit/test_messenger_sessions.py",
    "tests/unit/test_own_devices_sync.py",
    "tests/unit/test_sync_attacked.py",
    "tests/unit/test_contacts_follow.py",
    "tests/attacks/test_linked_contacts.py",
)
"""For survivors alone. A new process also sees what runs when a module is imported."""


def main(modules: list[str]) -> int:
    if not modules:
        for results, name in unexplained_survivors():
            note(results, name, None)
    # Half of the cores: the run takes long, and somebody works at this machine.
    run_mutmut([f"{module}.x*" for module in modules], max(1, (os.cpu_count() or 1) // 2))
    for results, name in unexplained_survivors():
        if fails_slower_tests(name):
            note(results, name, KILLED)
    return report()


def unexplained_survivors() -> list[tuple[SourceFileMutationData, str]]:
    explanations = EXPLANATIONS.read_text()
    return [
        (results, name)
        for results in all_results()
        for name, code in results.exit_code_by_key.items()
        if status_by_exit_code[code] in SURVIVED and change(results.path, name) not in explanations
    ]


def note(results: SourceFileMutationData, name: str, exit_code: int | None) -> None:
    results.exit_code_by_key[name] = exit_code
    results.save()


def fails_slower_tests(name: str) -> bool:
    command = (sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *SLOWER_TESTS)
    environment = os.environ | {"MUTANT_UNDER_TEST": name, "PYTHONPATH": "."}
    return subprocess.run(command, cwd="mutants", env=environment, capture_output=True, check=False).returncode == 1


def report() -> int:
    """Print a table of the modules, then the survivors that nobody has explained; return the exit status."""
    print("\n| module | mutants | killed | survived |\n|---|---|---|---|")
    for results in all_results():
        status = [status_by_exit_code[code] for code in results.exit_code_by_key.values()]
        survived, not_run = sum(each in SURVIVED for each in status), status.count(NOT_RUN)
        rest = f" ({not_run} not run)" if not_run else ""
        print(f"| `{results.path}` | {len(status)}{rest} | {len(status) - survived - not_run} | {survived} |")
    unexplained = unexplained_survivors()
    for results, name in unexplained:
        print(
            f"\n{results.path}: survived, and {EXPLANATIONS} does not say why ({name})\n  {change(results.path, name)}"
        )
    return 1 if unexplained else 0


def all_results() -> Iterator[SourceFileMutationData]:
    for path in walk_mutatable_files():
        results = SourceFileMutationData(path=path)
        results.load()
        if results.exit_code_by_key:
            yield results


def change(path: Path, name: str) -> str:
    """Return what a mutant changed, as docs/mutants.md writes it: `before` → `after`."""
    before, after = ("; ".join(_lines(path, name, sign)) for sign in "-+")
    return f"`{before}` → `{after}`"


def _lines(path: Path, name: str, sign: str) -> Iterator[str]:
    for line in get_diff_for_mutant(name, path=path).splitlines():
        if line.startswith(sign) and not line.startswith(sign * 3):
            yield line[1:].strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
