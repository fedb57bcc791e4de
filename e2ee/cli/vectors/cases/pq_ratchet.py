"""Cases of pq_ratchet.json: chains of an epoch, epochs driven to completion, and every refusal."""

from collections.abc import Iterator
from typing import Final, final

from e2ee.cli.vectors.cases.mutations import flip, invalid, valid
from e2ee.cli.vectors.cases.story import ratchet_seed
from e2ee.cli.vectors.drawn import drawn, encapsulation
from e2ee.cli.vectors.model import Case, CaseGroup, Fields, JsonObject
from e2ee.cli.vectors.operations.pq_ratchet import PQ_CONVERSATION, PQ_RATCHET, PqConversation
from e2ee.cli.vectors.refusals import Layer
from e2ee.limits import DAY_MS, HOUR_MS, MAX_SKIP, MINUTE_MS
from e2ee.primitives import kem
from e2ee.primitives.kdf import mac

_SECRET: Final = drawn("pq ratchet: sk", 32)
_START: Final = 1_800_000_000_000
_SEEDS: Final = 16
"""Proposals that one conversation may make; each has its recorded encapsulation."""

_PqStep = int | str | tuple[int, int]
"""`"send"`, or the index to receive, or epoch and index."""


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(PQ_RATCHET, "chains of the first epoch", tuple(_chains()))
    yield CaseGroup(PQ_CONVERSATION, "epochs", tuple(_epochs()))
    yield CaseGroup(PQ_CONVERSATION, "healing on demand", tuple(_healing()))
    yield CaseGroup(PQ_RATCHET, "payloads that one end accepts", tuple(_accepted()))
    yield CaseGroup(PQ_RATCHET, "a payload that must be refused", tuple(_refused()))


def encapsulation_keys() -> tuple[bytes, ...]:
    """Return the keys that a case encapsulates to."""
    return tuple(kem.public_key_768(ratchet_seed(number)) for number in range(_SEEDS))


@final
class _Talk:
    """Two ends while their conversation is written down: each step is taken at once."""

    def __init__(self) -> None:
        self.given: JsonObject = {"sk_pq": _SECRET.hex(), "time": _START, "steps": []}
        self._talk = PqConversation(Fields(self.given))
        self._seeds = 0
        self.now = _START

    def send(self, end: str, **fields: object) -> int:
        """Send a message; return the number of its step. A seed is named where one is drawn."""
        step: JsonObject = {"step": "send", "end": end, "time": self.now}
        try:
            self._take({**step, **fields})
        except ValueError:
            # No state changed: the script refused the draw. It is a proposal, so it needs a seed.
            self._take({**step, "seed": ratchet_seed(self._seeds).hex()})
            self._seeds += 1
        return len(self.given["steps"]) - 1

    def deliver(self, end: str, *numbers: int) -> None:
        """Deliver messages; an encapsulation is named where one is made."""
        for number in numbers:
            step: JsonObject = {"step": "deliver", "end": end, "time": self.now, "message_of": number}
            try:
                self._take(step)
            except ValueError:
                secret, ciphertext = encapsulation(self.message(number)[:1184])
                self._take({**step, "shared_secret": secret.hex(), "ciphertext": ciphertext.hex()})

    def heal(self, *ends: str) -> None:
        for end in ends or ("initiator", "responder"):
            self._take({"step": "heal", "end": end})

    def forget(self, end: str) -> None:
        self._take({"step": "forget", "end": end, "time": self.now})

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    def exchange(self, count: int = 1) -> None:
        """Let each end send a message and receive the other's, some times."""
        for _ in range(count):
            self.deliver("responder", self.send("initiator"))
            self.deliver("initiator", self.send("responder"))

    def message(self, number: int) -> bytes:
        """Return the payload of a sent message."""
        return bytes.fromhex(self._talk.outcomes[number]["payload"])

    def end(self, role: str, *more: JsonObject) -> JsonObject:
        """Return the case of one end so far, and further steps."""
        steps = [self._seen_alone(each) for each in self.given["steps"] if each["end"] == role]
        return {"role": role, "sk_pq": _SECRET.hex(), "time": _START, "steps": [*steps, *more]}

    def received(self, number: int, **changes: object) -> JsonObject:
        """Return the step that receives a sent message, some of its fields replaced."""
        sent = self._talk.outcomes[number]
        named = {name: sent[name] for name in ("epoch", "index", "payload_type", "payload")}
        return {"step": "receive", "time": self.now, **named, **changes}

    def _seen_alone(self, step: JsonObject) -> JsonObject:
        rest = {name: value for name, value in step.items() if name not in ("end", "message_of")}
        if step["step"] != "deliver":
            return rest
        return {**rest, **self.received(step["message_of"], time=step["time"])}

    def _take(self, step: JsonObject) -> None:
        self._talk.step(Fields(step))
        self.given["steps"].append(step)


def _chains() -> Iterator[Case]:
    def case(role: str, *steps: _PqStep) -> JsonObject:
        return {"role": role, "sk_pq": _SECRET.hex(), "time": _START, "steps": [_pq_step(each) for each in steps]}

    yield valid("the initiator sends", case("initiator", "send", "send", "send"))
    yield valid("the responder sends", case("responder", "send", "send", "send"))
    yield valid("the initiator receives", case("initiator", 0, 1, 2))
    yield valid("the responder receives", case("responder", 0, 1, 2))
    yield valid("both, interleaved", case("responder", 0, "send", 1, "send", 2))
    yield valid("in another order", case("responder", 3, 1, 0, 4, 2), "Skipped")
    yield valid("1,000 messages are missing", case("responder", MAX_SKIP, 999), "SkipLimit")
    refused: tuple[tuple[str, Layer, tuple[_PqStep, ...], str], ...] = (
        ("the newest message again", "replay", (0, 1, 1), "Replay"),
        ("a message whose skipped key was used", "replay", (2, 0, 0), "Replay"),
        ("1,001 messages are missing", "limit", (MAX_SKIP + 1,), "SkipLimit"),
        ("1,001 further messages are missing", "limit", (0, MAX_SKIP + 2), "SkipLimit"),
        ("the highest index", "limit", (0, (1 << 32) - 2), "SkipLimit"),
        ("epoch 1, which nobody offered", "authentication", (0, (1, 0)), "UnknownEpoch"),
        ("the highest epoch", "authentication", (((1 << 32) - 1, 0),), "UnknownEpoch"),
    )
    for comment, fails_at, steps, flag in refused:
        yield invalid(comment, fails_at, case("responder", *steps), flag)


def _pq_step(step: _PqStep) -> JsonObject:
    match step:
        case int(index):
            return _receive(0, index)
        case (epoch, index):
            return _receive(epoch, index)
        case _:
            return {"step": "send", "time": _START}


def _receive(epoch: int, index: int, payload_type: int = 0, payload: bytes = b"") -> JsonObject:
    message = {"epoch": epoch, "index": index, "payload_type": payload_type, "payload": payload.hex()}
    return {"step": "receive", "time": _START, **message}


def _epochs() -> Iterator[Case]:
    talk = _Talk()
    talk.exchange(28)
    yield valid("after 50 messages the initiator proposes", talk.given, "Epoch")
    talk = _Talk()
    for _ in range(2):
        talk.exchange()
        talk.wait(DAY_MS)
        talk.exchange(2)
    yield valid("a proposal a day", talk.given, "Epoch")
    yield valid("the proposal is lost and attached again", _lost_proposal(), "Epoch")
    yield valid("the answer is lost and attached again", _lost_answer(), "Epoch")
    yield valid("late copies of proposal and answer are ignored", _late_copies(), "Epoch", "LatePayload")
    yield valid("messages of closed epochs come late", _late_messages(), "Epoch", "Skipped")
    yield valid("a closed chain is dropped after 7 days", _dropped_chain(), "Epoch", "Evicted")
    talk = _due()
    for _ in range(65):
        talk.send("initiator")
    yield valid("a proposal is attached to messages 1, 8, 16, 32 and 64", talk.given, "Epoch")


def _due() -> _Talk:
    """Return a talk whose initiator proposes with its next message."""
    talk = _Talk()
    talk.exchange()
    talk.wait(DAY_MS)
    return talk


def _lost_proposal() -> JsonObject:
    talk = _due()
    for _ in range(9):
        talk.send("initiator")
    talk.wait(HOUR_MS)
    talk.deliver("responder", talk.send("initiator"))
    talk.deliver("initiator", talk.send("responder"))
    talk.exchange()
    return talk.given


def _lost_answer() -> JsonObject:
    talk = _due()
    first = talk.send("initiator")
    talk.deliver("responder", first)
    talk.send("responder")
    second = talk.send("responder")
    talk.deliver("initiator", second)
    repeated = [talk.send("initiator") for _ in range(7)]
    talk.deliver("responder", repeated[-1])  # the same proposal: the next message carries the answer, and no further
    answer = talk.send("responder")
    talk.send("responder")
    talk.deliver("initiator", answer)
    talk.exchange()
    return talk.given


def _late_copies() -> JsonObject:
    talk = _due()
    offers = [talk.send("initiator") for _ in range(8)]
    talk.deliver("responder", offers[0])
    answers = [talk.send("responder") for _ in range(8)]
    talk.deliver("initiator", answers[0])
    talk.exchange()
    talk.deliver("responder", offers[7])
    talk.deliver("initiator", answers[7])
    talk.exchange()
    return talk.given


def _late_messages() -> JsonObject:
    talk = _Talk()
    talk.exchange()
    late = [talk.send("initiator"), talk.send("responder")]
    for _ in range(3):
        talk.wait(DAY_MS)
        talk.exchange(2)
        late += [talk.send("initiator"), talk.send("responder")]
    for number in reversed(late):
        talk.deliver("responder" if number in late[::2] else "initiator", number)
    talk.exchange()
    return talk.given


def _dropped_chain() -> JsonObject:
    talk = _due()
    skipped = talk.send("initiator")
    talk.send("initiator")
    talk.deliver("responder", talk.send("initiator"))
    unseen = talk.send("initiator")
    talk.wait(HOUR_MS)
    talk.deliver("responder", talk.send("initiator"))
    talk.deliver("initiator", talk.send("responder"))
    beyond = talk.send("initiator")
    talk.deliver("responder", beyond)
    talk.wait(7 * DAY_MS)
    talk.forget("responder")
    talk.deliver("responder", unseen)
    talk.wait(1)
    talk.forget("responder")
    talk.deliver("responder", skipped, unseen)
    talk.exchange()
    return talk.given


def _healing() -> Iterator[Case]:
    for comment, ends in (
        ("both ask", ("initiator", "responder")),
        ("the side whose turn it is asks", ("initiator",)),
        ("the waiting side asks", ("responder",)),
    ):
        talk = _Talk()
        talk.exchange()
        talk.heal(*ends)
        talk.exchange(4)
        yield valid(comment, talk.given, "Healing", "Epoch")
    talk = _due()
    talk.send("initiator")  # its seed may have leaked with the rest
    talk.heal()
    talk.exchange(4)
    yield valid("asked for while an older proposal is under way", talk.given, "Healing", "Epoch")
    talk = _due()
    talk.deliver("responder", talk.send("initiator"))
    talk.heal()
    talk.exchange(4)
    yield valid("asked for while an older answer is under way", talk.given, "Healing", "Epoch")
    talk = _Talk()
    talk.exchange()
    talk.heal("responder")
    for _ in range(3):
        talk.deliver("initiator", talk.send("responder"))
    for _ in range(3):
        talk.send("initiator")  # a side that was asked attaches to every message
    talk.exchange(2)
    yield valid("requests and proposals on every message until the epoch ends", talk.given, "Healing", "Epoch")
    talk.wait(DAY_MS)
    talk.deliver("initiator", talk.send("responder"))
    talk.send("initiator")
    talk.deliver("responder", talk.send("initiator"))
    yield valid("having been asked ends with the epoch", talk.given, "Healing", "Epoch")
    talk = _Talk()
    talk.exchange()
    talk.heal("initiator")
    talk.deliver("responder", talk.send("initiator"))
    talk.heal("initiator")  # the seed on its way may have leaked by now
    talk.exchange(4)
    yield valid("asked for a second time while the first is under way", talk.given, "Healing", "Epoch")


def _accepted() -> Iterator[Case]:
    talk = _due()
    offers = [talk.send("initiator") for _ in range(8)]
    talk.deliver("responder", offers[0])
    again = talk.end("responder", talk.received(offers[7]), {"step": "send", "time": talk.now})
    yield valid("the proposal that is being answered, again", again, "Epoch")
    talk.deliver("initiator", talk.send("responder"))
    answered = talk.end("initiator", {"step": "send", "time": talk.now + MINUTE_MS})
    yield valid("an answer", answered, "Epoch")
    talk = _due()
    request = _receive(0, 1, 3)
    yield valid(
        "a request in propose-idle", _then_send(talk.end("initiator", request), seed=ratchet_seed(0)), "Healing"
    )
    for _ in range(2):
        talk.send("initiator")
    yield valid("a request in offering", _then_send(talk.end("initiator", request)), "Healing")


def _then_send(given: JsonObject, seed: bytes | None = None) -> JsonObject:
    step: JsonObject = {"step": "send", "time": _START}
    if seed is not None:
        step["seed"] = seed.hex()
    return {**given, "steps": [*given["steps"], step]}


def _refused() -> Iterator[Case]:
    yield from _refused_proposals()
    yield from _refused_answers()
    yield from _out_of_place()


def _case(comment: str, given: JsonObject, flag: str) -> Case:
    return invalid(comment, "authentication", given, flag)


def _refused_proposals() -> Iterator[Case]:
    talk = _due()
    offer = talk.send("initiator")
    payload = talk.message(offer)
    for comment, changed in (
        ("ek: the first byte is changed", flip(payload, 0)),
        ("ek: the last byte is changed", flip(payload, 1183)),
        ("mac of ek: the first byte is changed", flip(payload, 1184)),
        ("mac of ek: the last byte is changed", flip(payload, 1215)),
    ):
        given = talk.end("responder", talk.received(offer, payload=changed.hex()))
        yield _case(comment, given, "ModifiedPayload")
    ak = talk.end("responder")
    authentication_key = bytes.fromhex(PQ_RATCHET.run(Fields({**ak}))["authentication_key"])
    ek = payload[:1184]
    for comment, label, epoch in (
        ("mac of ek under the label of ct", b"E2EE/1 PQ ct", 1),
        ("mac of ek for another epoch", b"E2EE/1 PQ ek", 2),
    ):
        forged = ek + mac(authentication_key, label, epoch.to_bytes(4, "big") + ek)
        yield _case(comment, talk.end("responder", talk.received(offer, payload=forged.hex())), "ModifiedPayload")
    out_of_range = b"\xff" * 3 + ek[3:]
    forged = out_of_range + mac(authentication_key, b"E2EE/1 PQ ek", (1).to_bytes(4, "big") + out_of_range)
    given = talk.end("responder", talk.received(offer, payload=forged.hex()))
    yield _case("ek with a coefficient of q or more, its mac right", given, "InvalidKemKey")
    talk.deliver("responder", offer)
    other = kem.public_key_768(ratchet_seed(1))
    forged = other + mac(authentication_key, b"E2EE/1 PQ ek", (1).to_bytes(4, "big") + other)
    given = talk.end("responder", _receive(0, 2, 1, forged))
    yield _case("another ek for the epoch that is being answered, its mac right", given, "OtherProposal")


def _refused_answers() -> Iterator[Case]:
    talk = _due()
    talk.deliver("responder", talk.send("initiator"))
    answer = talk.send("responder")
    payload = talk.message(answer)
    for comment, changed in (
        ("ct: the first byte is changed", flip(payload, 0)),
        ("ct: the last byte is changed", flip(payload, 1087)),
        ("mac of ct: the first byte is changed", flip(payload, 1088)),
        ("mac of ct: the last byte is changed", flip(payload, 1119)),
    ):
        yield _case(comment, talk.end("initiator", talk.received(answer, payload=changed.hex())), "ModifiedPayload")


def _out_of_place() -> Iterator[Case]:
    """Each type in each phase where no honest peer sends it."""
    for role, phase, talk in _phases():
        for payload_type, length in ((1, 1216), (2, 1120), (3, 0)):
            if (phase, payload_type) in {
                ("waiting", 1),
                ("answering", 1),
                ("offering", 2),
                ("propose-idle", 3),
                ("offering", 3),
            }:
                continue
            given = talk.end(role, _receive(0, 1, payload_type, bytes(length)))
            yield _case(f"type {payload_type} in {phase}", given, "PayloadOutOfPlace")


def _phases() -> Iterator[tuple[str, str, _Talk]]:
    """Return an end of which the peer's message (0, 1) is the next, in every phase of epoch 1."""
    talk = _due()
    yield "initiator", "propose-idle", talk
    yield "responder", "waiting", talk
    talk = _due()
    talk.send("initiator")
    yield "initiator", "offering", talk
    talk = _Talk()
    talk.deliver("initiator", talk.send("responder"))
    talk.wait(DAY_MS)
    talk.deliver("responder", talk.send("initiator"))
    yield "responder", "answering", talk
