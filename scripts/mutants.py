"""`python -m scripts.mutants [MODULE ...]`: does a test fail when a line of the protocol is changed?

Runs mutmut over the modules that pyproject.toml names, goes on where the last run stopped, and tries survivors again,
because tests may have changed. Named modules (e2ee.wire.codec) are run alone, and from the start. What survives the
fast tests meets slower ones, each time in a new process. Ends with 1 if a survivor is not explained in docs/mutants.md.

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
)
"""For survivors alone. A new process also sees what runs when a module is imported."""


def main(modules: list[str]) -> int:
    if not modules:
        try_survivors_again()
    # Half of the cores: the run takes long, and somebody works at this machine.
    run_mutmut([f"{module}.x*" for module in modules], max(1, (os.cpu_count() or 1) // 2))
    run_slower_tests()
    return report()


def try_survivors_again() -> None:
    for results in all_results():
        for name, code in results.exit_code_by_key.items():
            if status_by_exit_code[code] in SURVIVED:
                results.exit_code_by_key[name] = None
        results.save()


def run_slower_tests() -> None:
    for results in all_results():
        for name, code in results.exit_code_by_key.items():
            if status_by_exit_code[code] in SURVIVED and fails_slower_tests(name):
                results.exit_code_by_key[name] = KILLED
                results.save()


def fails_slower_tests(name: str) -> bool:
    command = (sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *SLOWER_TESTS)
    environment = os.environ | {"MUTANT_UNDER_TEST": name, "PYTHONPATH": "."}
    return subprocess.run(command, cwd="mutants", env=environment, capture_output=True, check=False).returncode == 1


def report() -> int:
    """Print a table of the modules, then the survivors that nobody has explained; return the exit status."""
    explanations = EXPLANATIONS.read_text()
    unexplained = []
    print("\n| module | mutants | killed | survived |\n|---|---|---|---|")
    for results in all_results():
        status = {name: status_by_exit_code[code] for name, code in results.exit_code_by_key.items()}
        survivors = [name for name, each in status.items() if each in SURVIVED]
        not_run = sum(each == NOT_RUN for each in status.values())
        note = f" ({not_run} not run)" if not_run else ""
        killed = len(status) - len(survivors) - not_run
        print(f"| `{results.path}` | {len(status)}{note} | {killed} | {len(survivors)} |")
        unexplained += [(results.path, name) for name in survivors if change(results.path, name) not in explanations]
    for path, name in unexplained:
        print(f"\n{path}: survived, and {EXPLANATIONS} does not say why ({name})\n  {change(path, name)}")
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
