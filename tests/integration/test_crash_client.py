"""kill -9 of a client between any two steps of registering, sending, receiving and healing. Real processes, one server.

A first life without a kill lists the steps; then one client for each step dies there, and lives again. What happens
only now and then, and takes a clock that can be set, dies in test_crash_devices.py.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from signal import SIGKILL
from typing import Any

import pytest

import e2ee
from e2ee.ports import Table
from e2ee.stores import records
from e2ee.stores.sqlite import SqliteStore
from tests.crash_client import KEY, Job
from tests.server_process import ServerProcess

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.timeout(300),  # each test lives a hundred lives
]

Step = tuple[str, int]

_ROOT = Path(e2ee.__file__).parents[1]
_ZYGOTES = 3
_OF_EACH_KIND = 10_000 if os.environ.get("E2EE_EVERY_STEP") else 1
"""The device's own commits die one by one in test_crash_devices.py; here it is about their order in a client."""
KILLED = -SIGKILL
HEALING = (("_refuse", 1), ("tend", 1), ("start_session", 1), ("tend", 2), ("_receive", 1))
"""The commits that lead from an unreadable envelope to its message: which method, and the how-manieth of it."""


class Zygote:
    """A process that has imported everything and forks a client for each job."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_ROOT / "tests" / "crash_client.py")],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self, job: Job) -> int:
        """Let one client live; return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(job)), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        assert code in (0, KILLED), f"exit code {code}\n{self._log.read_text()}"
        return code

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class Stage:
    """A server, and zygotes that take turns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = ServerProcess(directory)
        self._zygotes: Queue[Zygote] = Queue()
        self._all: list[Zygote] = []
        self.pool = ThreadPoolExecutor(_ZYGOTES)

    def open(self) -> None:
        self._all = [Zygote(self.directory / f"zygote{number}.log") for number in range(_ZYGOTES)]
        for zygote in self._all:
            self._zygotes.put(zygote)
        self.server.start()

    def close(self) -> None:
        self.pool.shutdown()
        for zygote in self._all:
            zygote.close()
        self.server.kill()

    def run(self, job: Job) -> int:
        zygote = self._zygotes.get()
        try:
            return zygote.run(job)
        finally:
            self._zygotes.put(zygote)


@dataclass
class Person:
    """One user with one device: its store, and what its application wrote down over all its lives."""

    stage: Stage
    name: str

    @property
    def store(self) -> Path:
        return self.stage.directory / f"{self.name}.db"

    @property
    def report(self) -> Path:
        return self.stage.directory / f"{self.name}.jsonl"

    def live(
        self,
        *,
        send: list[tuple[str, str]] | None = None,
        until: list[str] | None = None,
        kill: Step | None = None,
        refuse: bool = False,
    ) -> int:
        """Live once; end when everything in `until` was shown, now or before."""
        server = self.stage.server
        awaited = [text for text in until or [] if text not in self.shown()]
        paths = str(self.store), str(self.report)
        job = Job(server.url, self.name, server.token(self.name), *paths, send or [], awaited, kill, refuse)
        return self.stage.run(job)

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        if not self.report.exists():
            return []
        lines = map(json.loads, self.report.read_text().splitlines())
        return [line for line in lines if not line.keys().isdisjoint(kinds)]

    def events(self) -> Counter[str]:
        return Counter(line["event"] for line in self.lines("event"))

    def released(self) -> set[bytes]:
        """The ids of all envelopes of this user that ever reached the server."""
        query = (
            "SELECT envelope_id FROM e2ee_envelopes JOIN e2ee_inbox_senders ON sender_id = e2ee_inbox_senders.id"
            " WHERE user_id = ?"
        )
        with closing(sqlite3.connect(self.stage.server.database)) as database:
            return {row[0] for row in database.execute(query, (self.name,))}

    def logged(self) -> set[bytes]:
        """The ids of all envelopes that the store ever committed."""
        with SqliteStore.open(self.store, key=KEY) as store, store.read() as tx:
            return {record.key for record in tx.scan(Table.SENT)}

    def forget_sessions(self) -> None:
        with SqliteStore.open(self.store, key=KEY) as store, store.write() as tx:
            for record in tx.scan(Table.SESSIONS):
                tx.delete(Table.SESSIONS, record.key)

    def steps(self) -> list[Step]:
        """The steps of the last life that came to its end: the first of each kind, or with E2EE_EVERY_STEP all."""
        steps = [(name, number) for name, number in self.lines("ended")[-1]["steps"]]
        return [step for step in steps if step[1] <= _OF_EACH_KIND]

    def queued(self) -> dict[str, str]:
        """The messages that `send` returned an id for."""
        return {line["queued"]: line["message_id"] for line in self.lines("queued")}

    def shown(self) -> dict[str, Counter[str]]:
        """How often each text was shown, by message id."""
        texts: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self.lines("shown"):
            texts[line["shown"]][line["message_id"]] += 1
        return texts

    def accepted(self) -> int:
        """How many messages the store ever accepted."""
        with SqliteStore.open(self.store, key=KEY) as store, store.read() as tx:
            number = records.counter(tx, b"inbound")
            assert tx.count(Table.MESSAGE_IDS) == number
            return number


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    # Memory outlives processes as a disk does, and is twice as fast. Power failures are another matter.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        made = Stage(Path(directory))
        try:
            made.open()
            yield made
        finally:
            made.close()


def test_a_new_sender_killed_at_any_step_sends_each_queued_message_once(stage: Stage) -> None:
    """From making the account over registering, claiming the first bundle and queueing to the server's last answer."""
    bob, rehearsal = Person(stage, "bob"), Person(stage, "rehearsal")
    assert bob.live() == 0
    assert rehearsal.live(send=[("bob", "rehearsal 0"), ("bob", "rehearsal 1")]) == 0

    def suffer(number: int, step: Step) -> tuple[Person, bool]:
        alice = Person(stage, f"alice{number}")
        texts = [("bob", f"{alice.name} {index}") for index in range(2)]
        killed = alice.live(send=texts, kill=step) == KILLED
        assert alice.live(send=[("bob", f"{alice.name} lives")]) == 0
        return alice, killed

    steps = rehearsal.steps()
    lives = list(stage.pool.map(suffer, range(len(steps)), steps))
    assert_every_kind_killed(steps, [killed for _, killed in lives])
    senders = [rehearsal, *(alice for alice, _ in lives)]
    assert bob.live(until=[text for sender in senders for text in sender.queued()]) == 0
    assert_received_once(bob, senders)
    assert_prekeys_went_out_once(stage)


def test_a_known_sender_killed_at_any_step_sends_each_queued_message_once(stage: Stage) -> None:
    recipient = Person(stage, "recipient")
    assert recipient.live() == 0
    senders = [Person(stage, f"sender{number}") for number in range(_ZYGOTES)]
    for sender in senders:
        assert sender.live(send=[(recipient.name, f"{sender.name} says hello")]) == 0
    greetings = [text for sender in senders for text in sender.queued()]
    assert recipient.live(until=greetings, send=[(sender.name, "welcome") for sender in senders]) == 0
    # The first reply ends the first contact: from here on these are ordinary messages.
    for sender in senders:
        assert sender.live(until=["welcome"]) == 0
    assert senders[0].live(send=[(recipient.name, f"rehearsal {index}") for index in range(2)]) == 0
    steps = senders[0].steps()

    def suffer(number: int) -> list[bool]:
        sender, killed = senders[number], []
        for step in steps[number::_ZYGOTES]:
            texts = [(recipient.name, f"{sender.name} at {step} {index}") for index in range(2)]
            killed.append(sender.live(send=texts, kill=step) == KILLED)
            assert sender.live(send=[(recipient.name, f"{sender.name} after {step}")]) == 0
        return killed

    killed = list(stage.pool.map(suffer, range(_ZYGOTES)))
    assert_every_kind_killed(steps, [killed[at % _ZYGOTES][at // _ZYGOTES] for at in range(len(steps))])
    assert recipient.live(until=[text for sender in senders for text in sender.queued()]) == 0
    assert_received_once(recipient, senders)


def test_a_recipient_killed_at_any_step_accepts_each_message_once_and_shows_it_at_least_once(stage: Stage) -> None:
    pairs = [(Person(stage, f"carol{number}"), Person(stage, f"dave{number}")) for number in range(_ZYGOTES)]
    for _, dave in pairs:
        assert dave.live() == 0

    def send(pair: int, *texts: str) -> list[str]:
        carol, dave = pairs[pair]
        assert carol.live(send=[(dave.name, text) for text in texts]) == 0
        return list(texts)

    first_contact = pairs[0][1]
    assert first_contact.live(until=send(0, "rehearsal 0", "rehearsal 1")) == 0
    steps = first_contact.steps()

    def suffer(pair: int) -> list[bool]:
        dave, killed = pairs[pair][1], []
        for step in steps[pair::_ZYGOTES]:
            texts = send(pair, f"{dave.name} at {step} 0", f"{dave.name} at {step} 1")
            killed.append(dave.live(until=texts, kill=step) == KILLED)
            # What was shown but not confirmed is shown again, in this life or a later one.
            assert dave.live(until=texts) == 0
        return killed

    killed = list(stage.pool.map(suffer, range(_ZYGOTES)))
    assert_every_kind_killed(steps, [killed[at % _ZYGOTES][at // _ZYGOTES] for at in range(len(steps))])
    for number, (carol, dave) in enumerate(pairs):
        assert dave.live(until=send(number, f"{dave.name} last")) == 0
        assert_received_once(dave, [carol])


def test_a_recipient_that_lost_its_sessions_killed_around_any_commit_of_healing_gets_each_message_once(
    stage: Stage,
) -> None:
    """Unreadable, a fresh session, a retry request, the message again; while the sender is online."""
    sender = Person(stage, "erin")
    steps = [(f"{moment} commit of {method}", number) for method, number in HEALING for moment in ("before", "after")]
    patients = [Person(stage, f"frank{number}") for number in range(len(steps))]
    assert sender.live() == 0
    greetings = [(sender.name, f"from {patient.name}") for patient in patients]
    assert set(stage.pool.map(lambda patient, greeting: patient.live(send=[greeting]), patients, greetings)) == {0}
    assert sender.live(until=[text for _, text in greetings]) == 0
    for patient in patients:
        patient.forget_sessions()
    assert sender.live(send=[(patient.name, f"to {patient.name}") for patient in patients]) == 0

    def suffer(patient: Person, step: Step) -> None:
        assert patient.live(until=[f"to {patient.name}"], kill=step) == KILLED, step
        assert patient.live(until=[f"to {patient.name}"]) == 0

    resending = stage.pool.submit(sender.live, until=["enough"])
    list(stage.pool.map(suffer, patients, steps))
    assert patients[0].live(send=[(sender.name, "enough")]) == 0
    assert resending.result() == 0
    for patient in patients:
        text = f"to {patient.name}"
        assert list(patient.shown()[text]) == [sender.queued()[text]]
    assert_orderly([sender, *patients])


@pytest.mark.parametrize(
    ("kill", "told_before"), [(("after commit of settle", 1), 0), (("before commit of failures_told", 1), 1)]
)
def test_a_sender_killed_right_after_giving_up_tells_it_in_its_next_life_and_in_no_other(
    stage: Stage, kill: Step, told_before: int
) -> None:
    recipient, sender = Person(stage, "grace"), Person(stage, f"heidi{told_before}")
    assert recipient.live() == 0
    assert sender.live(send=[(recipient.name, "refused")], kill=kill, refuse=True) == KILLED
    assert sender.events()["SendFailed"] == told_before
    for _ in range(2):
        assert sender.live() == 0
        assert sender.events()["SendFailed"] == told_before + 1
    assert sender.lines("ended")[-1]["outbox"] == 0
    assert sender.released() == set()


def assert_every_kind_killed(steps: list[Step], killed: list[bool]) -> None:
    """Tasks take turns differently in each life, so a step may not come; but no kind of step was left out.

    On a busy machine one in ten does not come, so a quarter may.
    """
    kinds = {name.partition(" of ")[0] for name, _ in steps}
    died = {name.partition(" of ")[0] for (name, _), died in zip(steps, killed, strict=True) if died}
    assert died == kinds
    assert sum(killed) >= 0.75 * len(killed)


def assert_received_once(recipient: Person, senders: list[Person]) -> None:
    queued = {text: message_id for sender in senders for text, message_id in sender.queued().items()}
    shown = recipient.shown()
    # What `send` gave an id for is there under this id. What was committed when its sender died may be there, too.
    assert {text: list(shown[text]) for text in queued} == {text: [queued[text]] for text in queued}
    assert all(len(message_ids) == 1 for message_ids in shown.values())
    assert recipient.accepted() == len(shown)
    assert recipient.lines("ended")[-1]["unreadable"] == 0
    assert all(sender.lines("ended")[-1]["outbox"] == 0 for sender in senders)
    assert all(sender.released() for sender in senders)
    assert_orderly([recipient, *senders])


def assert_orderly(people: list[Person]) -> None:
    """What holds for everybody, however often they died."""
    for person in people:
        assert person.events()["StoreRolledBack"] == 0, "a crash never looks like a rollback"
        assert person.events()["Ended"] == 0
        confirmed: set[str] = set()
        for line in person.lines("shown", "confirmed"):
            assert "confirmed" in line or line["message_id"] not in confirmed, "what was confirmed is not shown again"
            confirmed.add(line.get("confirmed", ""))
        assert person.released() <= person.logged(), "no ciphertext leaves before its commit"


def assert_prekeys_went_out_once(stage: Stage) -> None:
    database = sqlite3.connect(stage.server.database)
    try:
        one_time = [row[0] for row in database.execute("SELECT one_time_prekey_id FROM e2ee_claimed_bundles")]
        kem = database.execute(
            "SELECT kem_prekey_id FROM e2ee_claimed_bundles JOIN e2ee_prekeys ON prekey_id = kem_prekey_id"
            " WHERE kind = 3 AND e2ee_prekeys.user_id = target_user_id"
        ).fetchall()
    finally:
        database.close()
    used = [prekey_id for prekey_id in one_time if prekey_id is not None]
    assert used
    assert len(used) == len(set(used))
    assert kem
    assert len(kem) == len(set(kem))
