"""The demo's summary, on one screen.

Owns: its layout.
Does not know about: how the facts were found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from e2ee.wire.envelope import Envelope


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    what: str
    held: bool
    detail: str


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What the demo found."""

    checks: Sequence[Check]
    tables: Sequence[tuple[str, int]]
    """Rows per table of the server's database while five messages waited."""
    envelopes: Sequence[bytes]
    """What the mailbox held of them."""
    seconds: float

    @property
    def held(self) -> bool:
        return all(check.held for check in self.checks)


def render(report: Report) -> str:
    """Return the summary for people."""
    lines = ["", "What the server's database held while five messages waited for bob:"]
    columns = [f"{name.removeprefix('e2ee_'):22} {count:4} rows" for name, count in report.tables]
    for at in range(0, len(columns), 2):
        lines.append("  " + "    ".join(columns[at : at + 2]))
    lines += ["", "The five envelopes, as it stores them:"]
    for encoded in report.envelopes:
        envelope = Envelope.decode(encoded)
        route = f"{envelope.sender.user_id} to {envelope.recipient.user_id}"
        lines.append(f"  {route:14} {len(envelope.body):5} bytes  {envelope.body[-24:].hex()}")
    lines.append("")
    for check in report.checks:
        lines.append(f"  {'ok  ' if check.held else 'FAIL'}  {check.what:47} {check.detail}")
    verdict = "All of it held." if report.held else "It did not hold."
    lines += ["", f"{verdict} {report.seconds:.1f} s"]
    return "\n".join(lines)


def fields(report: Report) -> dict[str, object]:
    """Return the summary for programs, as JSON takes it."""
    return {
        "held": report.held,
        "seconds": round(report.seconds, 1),
        "checks": [{"what": each.what, "held": each.held, "detail": each.detail} for each in report.checks],
        "tables": dict(report.tables),
        "envelope_sizes": [len(each) for each in report.envelopes],
    }
