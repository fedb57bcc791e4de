"""What must hold at the end of the story.

Owns: the checks that decide the demo's exit code. Each can fail, and tests make each fail.
Does not know about: how the evidence came about, layout on the screen.
"""

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from e2ee.cli.demo.evidence import Evidence, bodies, sizes
from e2ee.cli.demo.report import Check, Report
from e2ee.cli.demo.search import is_database, search, spellings
from e2ee.cli.demo.tap import envelopes

CANARY: Final = "This canary must be found, or the search is blind."
_PUBLIC: Final = (
    "e2ee",
    "e2ee.errors",
    "e2ee.limits",
    "e2ee.primitives",
    "e2ee.primitives.kdf",
    "e2ee.primitives.verify",
)
_SIGKILL: Final = -9
_PAGE: Final = 4096


def inspect(evidence: Evidence) -> Report:
    """Check everything."""
    checks = [
        _all_arrived(evidence),
        _none_twice(evidence),
        _late_one_was_read(evidence),
        _killed_in_the_middle(evidence),
        _nothing_went_wrong(evidence),
        _wire_was_recorded(evidence),
        _canary_is_found(evidence),
        _no_plaintext(evidence),
        _no_private_code(evidence),
        _mailbox_is_empty(evidence),
    ]
    seconds = time.monotonic() - evidence.started_at
    return Report(checks, sizes(evidence.snapshot), bodies(evidence.snapshot), seconds)


def _all_arrived(evidence: Evidence) -> Check:
    wrong = [
        name
        for name, sent in evidence.sent.items()
        if set(sent) != {each.said for each in evidence.shown[name]} or len(set(sent)) != len(sent)
    ]
    return Check(
        "every message arrived, as it was sent",
        not wrong,
        f"not those to {', '.join(wrong)}" if wrong else f"{_total(evidence)} messages, and no other",
    )


def _none_twice(evidence: Evidence) -> Check:
    """One text, one id. The application may be shown a message again only if it was killed while it was shown."""
    ids = {(name, each.message_id) for name, shown in evidence.shown.items() for each in shown}
    shown_again = Counter(name for name, shown in evidence.shown.items() for _ in shown)
    shown_again.subtract(name for name, _ in ids)
    again = shown_again.pop("bob", 0)
    return Check(
        "no message reached a store twice",
        len(ids) == _total(evidence) and again <= 1 and not any(shown_again.values()),
        f"{len(ids)} message ids; {again} shown again after the kill",
    )


def _late_one_was_read(evidence: Evidence) -> Check:
    late, overtaker = evidence.detained
    order = [each.said.text for each in evidence.shown["bob"]]
    held = late in order and overtaker in order and order.index(late) > order.index(overtaker)
    return Check("an envelope came late and was read", held, "its key was kept while later ones were read")


def _killed_in_the_middle(evidence: Evidence) -> Check:
    kill = evidence.kill
    held = kill.exit_code == _SIGKILL and 0 < kill.shown < kill.batch and kill.waiting > 0
    detail = f"{kill.shown} of {kill.batch} shown, {kill.waiting} envelopes at the server"
    return Check("bob was killed in the middle", held, detail)


def _nothing_went_wrong(evidence: Evidence) -> Check:
    detail = ", ".join(sorted(set(evidence.mishaps))[:3]) or "no envelope unreadable, refused or skipped"
    return Check("the clients report no mishap", not evidence.mishaps, detail)


def _wire_was_recorded(evidence: Evidence) -> Check:
    """What is searched must be what passed: the envelopes in the database are in it, in both directions."""
    up = b"".join(envelopes(bytes(each.to_server)) for each in evidence.recordings)
    down = b"".join(envelopes(bytes(each.to_client)) for each in evidence.recordings)
    stored = bodies(evidence.snapshot)
    held = bool(stored) and all(each in up and each in down for each in stored)
    size = sum(len(each.to_server) + len(each.to_client) for each in evidence.recordings)
    detail = f"{len(evidence.recordings)} connections, {size // 1024} KiB, envelopes both ways"
    return Check("the network was recorded", held, detail if held else "envelopes of the database are not in it")


def _canary_is_found(evidence: Evidence) -> Check:
    """Plant a text in a copy of every file that is searched, in every spelling, and see that all are found."""
    blind = [place.name for place in evidence.places if not _finds_canary(place, evidence.scratch)]
    held = bool(evidence.places) and not blind
    detail = f"not in {', '.join(blind[:3])}" if blind else "in a copy of each file, in every spelling"
    return Check("the search finds a planted canary", held, detail)


def _no_plaintext(evidence: Evidence) -> Check:
    texts = sorted({said.text for sent in evidence.sent.values() for said in sent})
    findings = search(evidence.places, texts)
    detail = f"{len(evidence.places)} files, {len(texts)} texts, {len(list(spellings(CANARY)))} spellings"
    if findings:
        where = sorted({each.place.partition(":")[0] for each in findings})
        detail = f"found in {len(where)} files: {', '.join(where[:3])}"
    return Check("no plaintext in database, logs, stores, network", bool(texts) and not findings, detail)


def _no_private_code(evidence: Evidence) -> Check:
    ours = {name for name in evidence.imported if name.partition(".")[0] == "e2ee"}
    private = sorted(name for name in ours if name not in _PUBLIC and not f"{name}.".startswith("e2ee.wire."))
    detail = ", ".join(private[:3]) or f"{len(evidence.imported)} modules imported"
    return Check("the server never loaded private-key code", bool(ours) and not private, detail)


def _mailbox_is_empty(evidence: Evidence) -> Check:
    left = len(bodies(evidence.database))
    return Check("the mailboxes are empty again", left == 0, f"{left} left" if left else "acknowledged after commit")


def _finds_canary(place: Path, scratch: Path) -> bool:
    wanted = dict(spellings(CANARY))
    copy = scratch / place.name
    shutil.copy(place, copy)
    try:
        if is_database(copy):
            _plant_row(copy, list(wanted.values()))
            found = {finding.spelling for finding in search([copy], [CANARY]) if ":" in finding.place}
        else:
            with copy.open("ab") as file:
                file.write(b"\0".join(wanted.values()))
            found = {finding.spelling for finding in search([copy], [CANARY])}
    finally:
        copy.unlink()
    return found == set(wanted)


def _plant_row(database: Path, values: Sequence[bytes]) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE canary (value BLOB)")
        # Over the end of a page, so that the value is cut on disk.
        connection.executemany("INSERT INTO canary VALUES (?)", [(bytes(_PAGE - 6) + each,) for each in values])


def _total(evidence: Evidence) -> int:
    return sum(map(len, evidence.sent.values()))
