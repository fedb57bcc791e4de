"""Timing side by side.

Owns: how a pair of operations is timed, the shape of a result.
Does not know about: what is timed.

Machines drift, so the two sides of a ratio take turns in short rounds, and the medians are compared.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import final

ROUNDS = 15
_ROUND_SECONDS = 0.06


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `holds` says whether the ratio keeps to its goal; a row without a goal always does."""

    name: str
    ours: float
    reference: float
    unit: str
    ratio: float
    goal: str
    holds: bool

    def as_json(self) -> Mapping[str, object]:
        return asdict(self)


def at_most(name: str, sides: tuple[float, float], unit: str, limit: float) -> Row:
    """Make a row whose ratio ours / reference must be at most `limit`."""
    ours, reference = sides
    ratio = ours / reference
    return Row(name, ours, reference, unit, ratio, f"<= {limit:g}", ratio <= limit)


def at_least(name: str, sides: tuple[float, float], unit: str, limit: float) -> Row:
    """Make a row whose ratio ours / reference must be at least `limit`."""
    ours, reference = sides
    ratio = ours / reference
    return Row(name, ours, reference, unit, ratio, f">= {limit:g}", ratio >= limit)


def plain(name: str, sides: tuple[float, float], unit: str) -> Row:
    """Make a row that only informs."""
    ours, reference = sides
    return Row(name, ours, reference, unit, ours / reference, "", holds=True)


def microseconds(operations: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Return the median time of each operation, in microseconds, the operations taking turns."""
    counts = [_calls_per_round(operation) for operation in operations]
    times: list[list[float]] = [[] for _ in operations]
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for operation, count, taken in zip(operations, counts, times, strict=True):
                taken.append(_time(operation, count) / count * 1e6)
    finally:
        gc.enable()
    return [statistics.median(taken) for taken in times]


def _calls_per_round(operation: Callable[[], object]) -> int:
    count = 1
    while (taken := _time(operation, count)) < _ROUND_SECONDS / 4:
        count *= 2
    return max(1, round(count * _ROUND_SECONDS / taken))


def _time(operation: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        operation()
    return time.perf_counter() - start
