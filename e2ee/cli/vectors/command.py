"""`e2ee vectors`: generate and verify.

Owns: what they print, their exit codes.
Does not know about: their arguments (arguments.py), vectors themselves (generate.py, verify.py).
"""

import argparse
import sys
from pathlib import Path

from e2ee.cli.vectors.driver import Driver, DriverError
from e2ee.cli.vectors.verify import FileReport, ours, verify

DONE, FAILED, WRONG_USE = 0, 1, 2
_SHOWN_FAILURES = 5
"""Failures of one file that are printed; the rest is counted."""


def run_vectors(arguments: argparse.Namespace) -> int:
    """Run a parsed command; return the exit code."""
    directory = Path(arguments.directory)
    if arguments.action == "generate":
        return _generate(directory, arguments.check, arguments.record)
    if not directory.is_dir():
        return _wrong_use(f"there is no directory {directory}")
    try:
        if arguments.program is None:
            reports = list(verify(directory, ours))
        else:
            with Driver(arguments.program) as driver:
                reports = list(verify(directory, driver))
    except DriverError as problem:
        return _wrong_use(str(problem))
    return _report(reports, arguments.partial)


def _generate(directory: Path, only_check: bool, make_encapsulations: bool) -> int:
    # Here and not above: verifying needs no cases.
    from e2ee.cli.vectors import generate

    if make_encapsulations:
        generate.record_encapsulations()
    if only_check:
        changed = [name for name, _ in generate.differences(directory, list(generate.generate()))]
    else:
        changed = generate.write(directory)
    for name in changed:
        print(f"{'differs' if only_check else 'written'}: {directory / name}")
    if not changed:
        print(f"{directory}: unchanged")
    return FAILED if only_check and changed else DONE


def _report(reports: list[FileReport], partial: bool) -> int:
    for each in reports:
        left = f", {each.unsupported} unsupported" if each.unsupported else ""
        outcome = f"{len(each.failures)} FAILED" if each.failures else "ok"
        print(f"{each.name:22} {each.tests:4} tests, {each.valid:3} valid, {each.invalid:3} invalid{left}: {outcome}")
        for failure in each.failures[:_SHOWN_FAILURES]:
            print(f"    {failure}")
        if len(each.failures) > _SHOWN_FAILURES:
            print(f"    and {len(each.failures) - _SHOWN_FAILURES} more")
    tests = sum(each.tests for each in reports)
    failures = sum(len(each.failures) for each in reports)
    unsupported = sum(each.unsupported for each in reports)
    print(f"{len(reports)} files, {tests} tests, {failures} failed, {unsupported} unsupported")
    return FAILED if failures or (unsupported and not partial) else DONE


def _wrong_use(problem: str) -> int:
    print(f"e2ee vectors: {problem}", file=sys.stderr)
    return WRONG_USE
