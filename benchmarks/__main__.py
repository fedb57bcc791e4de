"""`make bench`: every row of the table, side by side with its reference, as ratios.

Owns: the order, the table, the result file.
Does not know about: how anything is measured.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import claims_path, message_path, relay_path, store_path, wire_cost
from benchmarks.harness import Row

_RESULTS = Path(__file__).parent / "results" / "bench.json"

_PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "message path": message_path.rows,
    "store": store_path.rows,
    "relay": relay_path.rows,
    "claims": claims_path.rows,
    "transports": wire_cost.rows,
}


def main() -> int:
    """Measure all parts, or those named; return 0 if every goal holds, else 1."""
    wanted = sys.argv[1:] or list(_PARTS)
    unknown = [name for name in wanted if name not in _PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}: one of {', '.join(map(repr, _PARTS))}", file=sys.stderr)
        return 2
    rows = [row for name in wanted for row in _measure(name)]
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    print(f"\nwritten to {_RESULTS.relative_to(Path.cwd()) if _RESULTS.is_relative_to(Path.cwd()) else _RESULTS}")
    return 0 if all(row.holds for row in rows) else 1


def _measure(part: str) -> Iterator[Row]:
    print(f"\n{part:66} {'ours':>9} {'reference':>10}      {'ratio':>6}  goal", flush=True)
    start = time.monotonic()
    for row in _PARTS[part]():
        mark = "ok" if row.holds else "MISSED"
        numbers = f"{row.ours:9.1f} {row.reference:10.1f} {row.unit:4} {row.ratio:6.2f}"
        print(f"  {row.name:64} {numbers}  {row.goal:8} {mark}", flush=True)
        yield row
    print(f"  ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
