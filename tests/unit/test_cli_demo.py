"""The demo's checks: on good evidence all hold, and each fails when what it is about goes wrong."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from e2ee.cli.demo.checks import inspect
from e2ee.cli.demo.evidence import Evidence, Kill, Said, Shown
from e2ee.cli.demo.report import Check
from e2ee.cli.demo.search import search, spellings
from e2ee.cli.demo.tap import Recording, payloads, save

_UPGRADE = b"GET /socket.io/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
_BODIES = [os.urandom(369) for _ in range(5)]
_TEXTS = [f"Message number {number} of this test." for number in range(4)]


def frame(payload: bytes, mask: bytes | None) -> bytes:
    """Return a binary frame of RFC 6455."""
    bit = 0x80 if mask is not None else 0
    if len(payload) < 126:
        head = bytes((0x82, bit | len(payload)))
    elif len(payload) < 1 << 16:
        head = bytes((0x82, bit | 126)) + len(payload).to_bytes(2)
    else:
        head = bytes((0x82, bit | 127)) + len(payload).to_bytes(8)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def database(path: Path, bodies: list[bytes]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE e2ee_envelopes (seq INTEGER, body BLOB)")
        connection.executemany("INSERT INTO e2ee_envelopes VALUES (?, ?)", list(enumerate(bodies)))
        connection.execute("INSERT INTO e2ee_envelopes VALUES (99, NULL)")
    return path


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    recording = Recording(
        bytearray(_UPGRADE + b"".join(frame(body, b"mask") for body in _BODIES)),
        bytearray(_SWITCHED + b"".join(frame(body, None) for body in _BODIES)),
    )
    snapshot, final = database(tmp_path / "snapshot.db", _BODIES), database(tmp_path / "server.db", [])
    log = tmp_path / "server.log"
    log.write_text("keyserver listening\n")
    (tmp_path / "scratch").mkdir()
    to_bob = [Said("alice", text) for text in _TEXTS]
    shown = [Shown(f"id {at}", to_bob[at]) for at in (0, 2, 1, 3)]
    return Evidence(
        sent={"alice": [Said("bob", "An answer to all of them.")], "bob": to_bob},
        shown={"alice": [Shown("id 9", Said("bob", "An answer to all of them."))], "bob": [*shown, shown[-1]]},
        mishaps=[],
        detained=(_TEXTS[1], _TEXTS[2]),
        kill=Kill(batch=20, shown=5, waiting=13, exit_code=-9),
        snapshot=snapshot,
        database=final,
        recordings=[recording],
        places=[snapshot, final, log, *save([recording], tmp_path / "network")],
        scratch=tmp_path / "scratch",
        imported=frozenset(
            {"fastapi", "e2ee", "e2ee.errors", "e2ee.wire", "e2ee.wire.envelope", "e2ee.primitives.kdf"}
        ),
        started_at=0.0,
    )


def failed(evidence: Evidence) -> list[Check]:
    return [check for check in inspect(evidence).checks if not check.held]


def test_good_evidence_holds(evidence: Evidence) -> None:
    report = inspect(evidence)

    assert failed(evidence) == []
    assert len(report.checks) == 10
    assert report.envelopes == _BODIES
    assert report.tables == [("e2ee_envelopes", 6)]


def showing(evidence: Evidence, name: str, shown: Sequence[Shown]) -> Evidence:
    return replace(evidence, shown={**evidence.shown, name: shown})


def lose_a_message(evidence: Evidence) -> Evidence:
    return showing(evidence, "alice", [])


def change_a_message(evidence: Evidence) -> Evidence:
    return showing(evidence, "alice", [Shown("id 9", Said("bob", "Something else."))])


def forge_a_message(evidence: Evidence) -> Evidence:
    forged = Shown("id 10", Said("carol", "Nobody sent this."))
    return showing(evidence, "alice", [*evidence.shown["alice"], forged])


def store_one_twice(evidence: Evidence) -> Evidence:
    again = evidence.shown["alice"][0]._replace(message_id="id 11")
    return showing(evidence, "alice", [*evidence.shown["alice"], again])


def give_two_messages_one_id(evidence: Evidence) -> Evidence:
    shown = [each._replace(message_id="the same") for each in evidence.shown["bob"]]
    return showing(evidence, "bob", shown)


def show_one_again_without_a_kill(evidence: Evidence) -> Evidence:
    return showing(evidence, "alice", [*evidence.shown["alice"], *evidence.shown["alice"]])


def show_two_again_after_the_kill(evidence: Evidence) -> Evidence:
    return showing(evidence, "bob", [*evidence.shown["bob"], evidence.shown["bob"][0]])


def keep_the_order(evidence: Evidence) -> Evidence:
    return showing(evidence, "bob", sorted(evidence.shown["bob"]))


def end_by_itself(evidence: Evidence) -> Evidence:
    return replace(evidence, kill=replace(evidence.kill, exit_code=0))


def kill_too_late(evidence: Evidence) -> Evidence:
    return replace(evidence, kill=replace(evidence.kill, shown=20))


def kill_with_nothing_left(evidence: Evidence) -> Evidence:
    return replace(evidence, kill=replace(evidence.kill, waiting=0))


def refuse_an_envelope(evidence: Evidence) -> Evidence:
    return replace(evidence, mishaps=["bob: Unreadable (authentication_failed)"])


def record_nothing(evidence: Evidence) -> Evidence:
    return replace(evidence, recordings=[])


def record_one_direction(evidence: Evidence) -> Evidence:
    return replace(evidence, recordings=[Recording(evidence.recordings[0].to_server, bytearray())])


def record_under_the_mask(evidence: Evidence) -> Evidence:
    both = evidence.recordings[0]
    return replace(evidence, recordings=[Recording(both.to_server.replace(b"Upgrade", b"Connect"), both.to_client)])


def let_nothing_wait(evidence: Evidence) -> Evidence:
    return replace(evidence, snapshot=evidence.database)


def search_nothing(evidence: Evidence) -> Evidence:
    return replace(evidence, places=[])


def say_it_in_the_log(evidence: Evidence) -> Evidence:
    evidence.places[2].write_text(f"DEBUG: {_TEXTS[0]}\n")
    return evidence


def say_it_in_the_log_as_hex(evidence: Evidence) -> Evidence:
    evidence.places[2].write_text(f"DEBUG: {_TEXTS[0].encode().hex()}\n")
    return evidence


def say_it_in_the_database(evidence: Evidence) -> Evidence:
    with closing(sqlite3.connect(evidence.database)) as connection, connection:
        value = bytes(4000) + _TEXTS[3].encode("utf-16-le")
        connection.execute("INSERT INTO e2ee_envelopes VALUES (1, NULL)")
        connection.execute("CREATE TABLE e2ee_copies (text BLOB)")
        connection.execute("INSERT INTO e2ee_copies VALUES (?)", (value,))
    return evidence


def say_it_on_the_network(evidence: Evidence) -> Evidence:
    both = evidence.recordings[0]
    loud = Recording(both.to_server + frame(_TEXTS[1].encode(), b"\x01\x02\x03\x04"), both.to_client)
    (evidence.scratch / "again").mkdir()
    return replace(evidence, places=save([loud], evidence.scratch / "again" / "network"))


def load_private_code(evidence: Evidence) -> Evidence:
    return replace(evidence, imported=evidence.imported | {"e2ee.private_keys"})


def load_a_private_primitive(evidence: Evidence) -> Evidence:
    return replace(evidence, imported=evidence.imported | {"e2ee.primitives.sign"})


def note_no_imports(evidence: Evidence) -> Evidence:
    return replace(evidence, imported=frozenset())


def leave_an_envelope(evidence: Evidence) -> Evidence:
    with closing(sqlite3.connect(evidence.database)) as connection, connection:
        connection.execute("INSERT INTO e2ee_envelopes VALUES (1, ?)", (_BODIES[0],))
    return evidence


@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        (lose_a_message, {"every message arrived, as it was sent", "no message reached a store twice"}),
        (change_a_message, {"every message arrived, as it was sent"}),
        (forge_a_message, {"every message arrived, as it was sent", "no message reached a store twice"}),
        (store_one_twice, {"no message reached a store twice"}),
        (give_two_messages_one_id, {"no message reached a store twice"}),
        (show_one_again_without_a_kill, {"no message reached a store twice"}),
        (show_two_again_after_the_kill, {"no message reached a store twice"}),
        (keep_the_order, {"an envelope came late and was read"}),
        (end_by_itself, {"bob was killed in the middle"}),
        (kill_too_late, {"bob was killed in the middle"}),
        (kill_with_nothing_left, {"bob was killed in the middle"}),
        (refuse_an_envelope, {"the clients report no mishap"}),
        (record_nothing, {"the network was recorded"}),
        (record_one_direction, {"the network was recorded"}),
        (record_under_the_mask, {"the network was recorded"}),
        (let_nothing_wait, {"the network was recorded"}),
        (search_nothing, {"the search finds a planted canary"}),
        (say_it_in_the_log, {"no plaintext in database, logs, stores, network"}),
        (say_it_in_the_log_as_hex, {"no plaintext in database, logs, stores, network"}),
        (say_it_in_the_database, {"no plaintext in database, logs, stores, network"}),
        (say_it_on_the_network, {"no plaintext in database, logs, stores, network"}),
        (load_private_code, {"the server never loaded private-key code"}),
        (load_a_private_primitive, {"the server never loaded private-key code"}),
        (note_no_imports, {"the server never loaded private-key code"}),
        (leave_an_envelope, {"the mailboxes are empty again"}),
    ],
)
def test_each_fault_fails_its_check(
    evidence: Evidence, fault: Callable[[Evidence], Evidence], checks: set[str]
) -> None:
    faulty = fault(evidence)

    assert {check.what for check in failed(faulty)} == checks
    assert not inspect(faulty).held


def test_search_finds_every_spelling_wherever_it_stands(tmp_path: Path) -> None:
    text = "Bob, the surprise party starts at seven."
    place = tmp_path / "place"
    for name, spelled in spellings(text):
        for before in (b"", b"x", b"xy", b"xyz" * 5000):
            place.write_bytes(before + spelled + b"tail")
            assert name in {finding.spelling for finding in search([place], [text])}


def test_base64_of_a_text_inside_a_longer_value_is_found_at_every_alignment(tmp_path: Path) -> None:
    import base64

    text, place = "We could also meet in the boathouse.", tmp_path / "place"
    for before in range(7):
        for after in range(7):
            place.write_bytes(base64.b64encode(os.urandom(before) + text.encode() + os.urandom(after)))
            assert search([place], [text]), (before, after)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("mask", [None, b"\x00\x00\x00\x00", b"\x01\x80\xff\x7f"])
def test_payloads_of_frames_come_out_whole(size: int, mask: bytes | None) -> None:
    first, second = os.urandom(size), b"the next one"

    assert payloads(_UPGRADE + frame(first, mask) + frame(second, mask)) == first + second


def test_stream_that_was_cut_gives_what_there_is() -> None:
    whole = _UPGRADE + frame(b"one", b"mask") + frame(b"two", b"mask")

    for length in range(len(whole)):
        assert b"onetwo".startswith(payloads(whole[:length]))
    assert payloads(b"GET / HTTP/1.1\r\n\r\n" + frame(b"one", None)) == b""
