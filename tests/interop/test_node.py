"""The second implementation (JavaScript, written from the document and the vectors alone) against ours."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, final

import pytest

from e2ee.messenger import Messenger, Outcome
from e2ee.prekey_supply import ServerCounts
from e2ee.safety_number import safety_number
from e2ee.sending import Queued
from e2ee.stores.memory import MemoryStore
from e2ee.wire.content import ContentKind, decode_application
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import UserId
from e2ee.wire.message import PqPayloadType, PreKeyMessage, RatchetHeader, decode_body
from e2ee.wire.prekey_bundle import PreKeyBundle
from e2ee.wire.public_keys import AccountKey

HERE = Path(__file__).parent / "node"
ROOT = HERE.parents[2]

MESSAGES = 200
LOSS = 0.15
REPEATED = 0.2
ALICE, BOB = UserId("alice"), UserId("bob")


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install the pinned packages. A machine without Node is an error, not a reason to skip."""
    if shutil.which("npm") is None:
        pytest.fail("Node 20.19 or newer is needed: apt-get install nodejs npm", pytrace=False)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=120)


@pytest.mark.timeout(300)
def test_the_second_implementation_passes_its_own_tests() -> None:
    outcome = subprocess.run(["npm", "test"], cwd=HERE, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout[-4000:]
    assert "fail 0" in outcome.stdout


@pytest.mark.timeout(300)
def test_the_second_implementation_answers_every_vector() -> None:
    command = [sys.executable, "-m", "e2ee.cli", "vectors", "verify", str(ROOT / "vectors")]
    command += ["--command", f"node {HERE / 'vectors.js'}"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-2000:]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("begin", ["ours", "theirs"])
def test_a_long_conversation_with_loss_and_reordering_is_read_on_both_sides(begin: str, seed: int) -> None:
    with closing(NodePeer(BOB)) as theirs:
        first, second = acquaint(OurPeer(ALICE), theirs, begin)
        assert converse(first, second, Random(seed)) > MESSAGES / 2
        # The roles swap with every epoch: in two of them each side has proposed once and answered once.
        assert min(epochs_of(first, second)) >= 2
        assert theirs.session()["epoch"] == header_of(theirs.write(ALICE, "")).pq_epoch + 1


@pytest.mark.parametrize("begin", ["ours", "theirs"])
def test_healing_asked_for_by_both_sides_takes_four_round_trips_when_a_payload_is_lost(begin: str) -> None:
    with closing(NodePeer(BOB)) as theirs:
        first, second = acquaint(OurPeer(ALICE), theirs, begin)
        for lost in range(3):
            before = max(epochs_of(first, second))
            heal(first, second, lost)
            assert min(epochs_of(first, second)) > before
            assert not theirs.session()["healing"]


def test_both_ends_see_the_same_safety_number() -> None:
    with closing(NodePeer(BOB)) as theirs:
        ours = OurPeer(ALICE)
        theirs.start(ALICE, ours.device_list(), ours.bundle())
        bob = AccountKey.from_bytes(bytes.fromhex(theirs.ask("device")["account_key"]))
        alice = ours.messenger.account.party.account_key
        assert theirs.ask("safety", user=ALICE)["number"] == safety_number((ALICE, alice), (BOB, bob))


def acquaint(ours: "OurPeer", theirs: "NodePeer", begin: str) -> tuple["Peer", "Peer"]:
    """Start a session and exchange its first two messages; return who began and who answered."""
    starts: dict[str, Callable[[], None]] = {
        "ours": lambda: ours.start(theirs.device_list(), theirs.bundle()),
        "theirs": lambda: theirs.start(ours.user, ours.device_list(), ours.bundle()),
    }
    starts[begin]()
    first, second = (ours, theirs) if begin == "ours" else (theirs, ours)
    second.read(first.write(second.user, "hello"), "hello")
    first.read(second.write(first.user, "hello to you"), "hello to you")
    return first, second


def converse(first: "Peer", second: "Peer", random: Random) -> int:
    """Exchange messages; lose some, repeat some, delay others past later ones; return how many were read."""
    under_way: list[tuple[Peer, bytes, str]] = []
    read = 0

    def deliver() -> None:
        recipient, envelope, text = under_way.pop(random.randrange(len(under_way)))
        recipient.read(envelope, text)
        if random.random() < REPEATED:
            recipient.read_again(envelope)

    for number in range(MESSAGES):
        sender, recipient = random.sample([first, second], 2)
        envelope = sender.write(recipient.user, f"message {number}")
        if random.random() >= LOSS:
            under_way.append((recipient, envelope, f"message {number}"))
            read += 1
        while len(under_way) > 10 or (under_way and random.random() < 0.5):
            deliver()
    while under_way:
        deliver()
    return read


def heal(first: "Peer", second: "Peer", lost: int) -> None:
    """Both ask for healing before they hear of each other; of the messages with a payload, one is lost."""
    ways = [(first, second), (second, first)]
    calls = [sender.heal(recipient.user) for sender, recipient in ways]
    payloads = 0
    for number in range(8):
        sender, recipient = ways[number % 2]
        envelope = calls[number] if number < 2 else sender.write(recipient.user, f"message {number}")
        payloads += header_of(envelope).pq_type != PqPayloadType.NONE
        if header_of(envelope).pq_type != PqPayloadType.NONE and payloads == lost + 1:
            continue
        if number < 2:
            recipient.read_empty(envelope)
        else:
            recipient.read(envelope, f"message {number}")
    assert payloads > lost
    # Who still heals has a payload on every message.
    for sender, recipient in ways:
        assert header_of(sender.write(recipient.user, "healed")).pq_type == PqPayloadType.NONE


def epochs_of(first: "Peer", second: "Peer") -> list[int]:
    """How many post-quantum epochs each has completed: the one that it sends in."""
    return [header_of(first.write(second.user, "")).pq_epoch, header_of(second.write(first.user, "")).pq_epoch]


def header_of(envelope: bytes) -> RatchetHeader:
    body = decode_body(Envelope.decode(envelope).body)
    return (body.message if isinstance(body, PreKeyMessage) else body).header


@final
class OurPeer:
    """A device of this implementation."""

    def __init__(self, user: UserId) -> None:
        self.user = user
        self.messenger = Messenger.create(MemoryStore(), user)

    def device_list(self) -> bytes:
        return self.messenger.own_device_list().signed.encode()

    def bundle(self) -> bytes:
        due = self.messenger.registration.due_prekeys(ServerCounts(0, 0))
        assert due.signed_prekey is not None
        one_time, kem = due.one_time_prekeys[0], due.one_time_kem_prekeys[0]
        return PreKeyBundle(self.messenger.address, due.signed_prekey, one_time, kem).encode()

    def start(self, device_list: bytes, bundle: bytes) -> None:
        signed = SignedDeviceList.decode(device_list)
        self.messenger.learn_device_lists(signed.unverified.user_id, [signed])
        self.messenger.start_session(PreKeyBundle.decode(bundle))

    def write(self, to: UserId, text: str) -> bytes:
        return self._released(self.messenger.send(to, text))

    def heal(self, to: UserId) -> bytes:
        return self._released(self.messenger.heal_now(to))

    def _released(self, queued: Queued) -> bytes:
        (entry,) = queued.entries
        self.messenger.outbox.settle([entry.envelope_id])
        return entry.envelope

    def read(self, envelope: bytes, text: str) -> None:
        reception = self.messenger.receive(envelope)
        assert reception.outcome is Outcome.STORED, reception
        (message,) = self.messenger.inbound()
        assert decode_application(message.content.body) == text
        self.messenger.confirm(message.number)

    def read_empty(self, envelope: bytes) -> None:
        reception = self.messenger.receive(envelope)
        assert reception.outcome is Outcome.CONSUMED, reception

    def read_again(self, envelope: bytes) -> None:
        reception = self.messenger.receive(envelope)
        assert reception.outcome is Outcome.DUPLICATE, reception


@final
class NodePeer:
    """A device of the second implementation, in a process of its own."""

    def __init__(self, user: UserId) -> None:
        self.user = user
        self._process = subprocess.Popen(
            ["node", "converse.js"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers: Iterator[str] = iter(self._process.stdout or ())
        self._address = self.ask("create", user=user)["address"]
        kinds = ("signed", "one-time", "kem one-time", "kem last-resort")
        self.ask("prekeys", make=[{"kind": kind} for kind in kinds])
        self._peer_device = ""

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(timeout=10)

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        answer = self._answer_to(op, **fields)
        assert answer["ok"], answer
        return answer

    def _answer_to(self, op: str, **fields: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(next(self._answers))
        return answer

    def device_list(self) -> bytes:
        return bytes.fromhex(self.ask("device")["device_list"])

    def bundle(self) -> bytes:
        return bytes.fromhex(self.ask("bundle")["bundle"])

    def start(self, user: UserId, device_list: bytes, bundle: bytes) -> None:
        self.ask("learn", user=user, device_list=device_list.hex())
        self.ask("start", bundle=bundle.hex())
        self._peer_device = str(PreKeyBundle.decode(bundle).address)

    def write(self, to: UserId, text: str) -> bytes:
        assert self._peer_device.startswith(f"{to}/")
        return bytes.fromhex(self.ask("encrypt", to=self._peer_device, text=text)["envelope"])

    def heal(self, to: UserId) -> bytes:
        assert self._peer_device.startswith(f"{to}/")
        return bytes.fromhex(self.ask("heal", to=self._peer_device)["envelope"])

    def read(self, envelope: bytes, text: str) -> None:
        answer = self.ask("receive", envelope=envelope.hex())
        assert (answer["fate"], answer["content"]["text"]) == ("delivered", text)
        self._peer_device = answer["sender"]

    def read_empty(self, envelope: bytes) -> None:
        answer = self.ask("receive", envelope=envelope.hex())
        assert (answer["fate"], answer["content"]["kind"]) == ("accepted", ContentKind.EMPTY)

    def read_again(self, envelope: bytes) -> None:
        answer = self._answer_to("receive", envelope=envelope.hex())
        assert answer.get("error") == "duplicate_message", answer

    def session(self) -> dict[str, Any]:
        (session,) = self.ask("sessions", **{"with": self._peer_device})["sessions"]
        return dict(session)


Peer = OurPeer | NodePeer
