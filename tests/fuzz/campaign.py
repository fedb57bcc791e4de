"""A campaign: each target in a process of its own, under atheris (libFuzzer), for a number of seconds.

Owns: the working directories in build/fuzz, what a person sees while it runs, how a finding is reported.
Does not know about: what the targets check.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

WORK: Final = Path("build/fuzz")
"""Inputs found so far, and findings. A later campaign goes on from there."""

_MAX_INPUT: Final = 4096
_SLOW_SECONDS: Final = 10
_FINDING: Final = re.compile(r"Test unit written to (\S+)")
_STATUS: Final = re.compile(r"#(\d+)\s.*cov: (\d+).*corp: (\d+)")


def run(names: Sequence[str], seconds: int) -> int:
    """Fuzz the targets, all by default; return the exit status."""
    unknown = set(names) - set(TARGETS)
    if unknown:
        print(f"no such target: {', '.join(sorted(unknown))}; there are {' '.join(TARGETS)}")
        return 2
    chosen = names or list(TARGETS)
    print(f"{len(chosen)} targets, {seconds} s each; inputs and findings in {WORK}/", flush=True)
    broken = [name for name in chosen if not fuzz(name, seconds)]
    print(f"broken: {', '.join(broken)}" if broken else "no property broke")
    return 1 if broken else 0


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target; return whether its property held."""
    inputs, findings = WORK / name, WORK / "findings"
    for directory in (inputs, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus.load(name).values()):
        (inputs / f"seed-{number}").write_bytes(data)
    flags = (f"-max_total_time={seconds}", f"-max_len={_MAX_INPUT}", f"-timeout={_SLOW_SECONDS}", "-len_control=20")
    command = (sys.executable, "-m", "tests.fuzz.one_target", name, *flags, f"-artifact_prefix={findings}/{name}-")
    process = subprocess.Popen(
        (*command, str(inputs)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with process:
        assert process.stdout is not None
        said = list(_follow(name, process.stdout))
    if process.returncode == 0:
        return True
    print("\n".join(said))
    for finding in _FINDING.findall("\n".join(said)):
        print(f"\n{name}: the property broke, or the input took more than {_SLOW_SECONDS} s")
        print(f"  reproduce:  {sys.executable} -m tests.fuzz replay {name} {finding}")
        print(f"  keep it:    {sys.executable} -m tests.fuzz keep {name} {finding} 'what it is'")
    return False


def _follow(name: str, lines: Iterator[str]) -> Iterator[str]:
    """Show the fuzzer's progress as one line that renews itself; yield what else it said."""
    tail = "\r" if sys.stdout.isatty() else ""
    status = ""
    for line in lines:
        found = _STATUS.match(line)
        if found:
            executed, coverage, kept = found.groups()
            status = f"  {name:<20} {int(executed):>10,} inputs  {coverage:>5} edges  {kept:>4} kept"
            if tail:
                print(status, end=tail, flush=True)
        elif not line.startswith("INFO:"):
            yield line.rstrip()
    print(status or f"  {name:<20} stopped at once", flush=True)
