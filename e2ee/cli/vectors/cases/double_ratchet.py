"""Cases of double_ratchet.json: two ends that exchange headers, each seen alone."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.mutations import LOW_ORDER, invalid, non_canonical_keys, valid
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, Fields, JsonObject
from e2ee.cli.vectors.operations import double_ratchet
from e2ee.cli.vectors.refusals import Layer
from e2ee.limits import MAX_SKIP
from e2ee.primitives import dh

_ROOT: Final = drawn("double ratchet: root key", 32)
_PREKEY: Final = drawn("double ratchet: signed prekey", 32)


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(double_ratchet.DOUBLE_RATCHET, "accepted steps of either end", tuple(_double_valid()))
    yield CaseGroup(double_ratchet.DOUBLE_RATCHET, "a last step that must be refused", tuple(_double_invalid()))


class _Ends:
    """Two ends that send to one another; keeps the steps of each, as its cases need them."""

    def __init__(self) -> None:
        self.inputs: dict[str, JsonObject] = {
            "initiator": {
                "role": "initiator",
                "root_key": _ROOT.hex(),
                "their_signed_prekey": dh.public_key(_PREKEY).hex(),
                "steps": [],
            },
            "responder": {
                "role": "responder",
                "root_key": _ROOT.hex(),
                "signed_prekey_private_key": _PREKEY.hex(),
                "steps": [],
            },
        }
        self._turns = 0
        self._must_turn = {"initiator": True, "responder": False}

    def send(self, role: str, count: int = 1) -> list[JsonObject]:
        """Send some messages; return the steps that receive them."""
        return [self._send(role) for _ in range(count)]

    def _send(self, role: str) -> JsonObject:
        step: JsonObject = {"step": "send"}
        if self._must_turn[role]:
            self._turns += 1
            step["ratchet_private_key"] = drawn(f"double ratchet: ratchet key {self._turns}", 32).hex()
            self._must_turn[role] = False
        self.inputs[role]["steps"].append(step)
        sent = double_ratchet.DOUBLE_RATCHET.run(Fields(self.inputs[role]))["steps"][-1]
        names = ("ratchet_key", "previous_chain_length", "index")
        return {"step": "receive", **{name: sent[name] for name in names}}

    def receive(self, role: str, *steps: JsonObject) -> None:
        for step in steps:
            keys = {each["ratchet_key"] for each in self.inputs[role]["steps"] if each["step"] == "receive"}
            self._must_turn[role] = self._must_turn[role] or step["ratchet_key"] not in keys
            self.inputs[role]["steps"].append(step)

    def case(self, role: str, *more: JsonObject) -> JsonObject:
        """Return an end's case so far, with further steps."""
        return {**self.inputs[role], "steps": [*self.inputs[role]["steps"], *more]}

    def exchange(self) -> None:
        """Let each end send one message and receive the other's."""
        for role, other in (("initiator", "responder"), ("responder", "initiator")):
            self.receive(other, *self.send(role))


def _double_valid() -> Iterator[Case]:
    ends = _Ends()
    ends.receive("responder", *ends.send("initiator", 3))
    yield valid("the initiator's first chain, sent", ends.case("initiator"))
    yield valid("the initiator's first chain, received", ends.case("responder"))
    for _ in range(3):
        ends.exchange()
    yield valid("turns, the initiator's end", ends.case("initiator"), "Turn")
    yield valid("turns, the responder's end", ends.case("responder"), "Turn")
    ends = _Ends()
    ends.receive("responder", *reversed(ends.send("initiator", 4)))
    yield valid("in reverse order", ends.case("responder"), "Skipped")
    yield valid("skipped keys across two turns", _late(), "Skipped", "Turn")
    ends = _Ends()
    ends.exchange()
    header = ends.send("initiator")[0]
    at_limit = {**header, "index": MAX_SKIP}
    yield valid("1,000 messages of the new chain are missing", ends.case("responder", at_limit), "SkipLimit")
    ends = _Ends()
    ends.exchange()
    both = {**ends.send("initiator")[0], "previous_chain_length": 1 + MAX_SKIP, "index": MAX_SKIP}
    yield valid("1,000 of the old chain and 1,000 of the new", ends.case("responder", both), "SkipLimit", "Turn")
    ends = _Ends()
    ends.exchange()
    lower = {**ends.send("initiator")[0], "previous_chain_length": 0}
    yield valid("a previous chain length below what was received", ends.case("responder", lower), "Boundary", "Turn")


def _late() -> JsonObject:
    ends = _Ends()
    first, second, third = ends.send("initiator", 3)
    ends.receive("responder", second)
    ends.receive("initiator", *ends.send("responder", 2))
    fourth, fifth = ends.send("initiator", 2)
    ends.receive("responder", fifth)
    ends.receive("initiator", *ends.send("responder"))
    ends.receive("responder", *ends.send("initiator"))
    ends.receive("responder", third, fourth, first)
    return ends.case("responder")


def _double_invalid() -> Iterator[Case]:
    case = _double_refused
    ends = _Ends()
    first, second, third = ends.send("initiator", 3)
    ends.receive("responder", first, third)
    yield case("the newest message again", "replay", ends, third, "Replay")
    yield case("the first message again", "replay", ends, first, "Replay")
    ends.receive("responder", second)
    yield case("a message whose skipped key was used", "replay", ends, second, "Replay")
    ends.receive("initiator", *ends.send("responder"))
    ends.receive("responder", *ends.send("initiator"))
    yield case("a message of a closed chain again", "replay", ends, first, "Replay", "Turn")
    beyond = {**third, "index": 3}
    yield case("an index beyond the end of a closed chain", "replay", ends, beyond, "Replay", "Turn")
    foreign = dh.public_key(drawn("double ratchet: foreign", 32)).hex()
    turned = {**first, "ratchet_key": foreign}
    yield case("an unknown ratchet key before our next send", "authentication", ends, turned, "ForeignRatchetKey")
    yield from _over_the_limit()
    for key in LOW_ORDER:
        low = {**first, "ratchet_key": key.hex()}
        yield case("a ratchet key of low order", "dh", _Ends(), low, "LowOrderKey")
    for comment, key in non_canonical_keys(bytes.fromhex(foreign)):
        spelled = {**first, "ratchet_key": key.hex()}
        yield case(f"ratchet key: {comment}", "decode", _Ends(), spelled, "NonCanonicalKey")
    low_prekey = {**_Ends().inputs["initiator"], "their_signed_prekey": LOW_ORDER[4].hex()}
    sending = {**low_prekey, "steps": [{"step": "send", "ratchet_private_key": drawn("dr: key", 32).hex()}]}
    yield invalid("a signed prekey of low order", "dh", sending, "LowOrderKey")


def _over_the_limit() -> Iterator[Case]:
    ends = _Ends()
    header = ends.send("initiator")[0]
    too_far = {**header, "index": MAX_SKIP + 1}
    yield _double_refused("1,001 messages of a new chain are missing", "limit", ends, too_far, "SkipLimit")
    ends.receive("responder", header)
    too_far = {**header, "index": MAX_SKIP + 2}
    yield _double_refused("1,001 messages of a known chain are missing", "limit", ends, too_far, "SkipLimit")
    highest = {**header, "index": (1 << 32) - 2}
    yield _double_refused("the highest index", "limit", ends, highest, "SkipLimit")
    ends.receive("initiator", *ends.send("responder"))
    turned = {**ends.send("initiator")[0], "previous_chain_length": 1 + MAX_SKIP + 1}
    yield _double_refused("1,001 messages of the old chain are missing", "limit", ends, turned, "SkipLimit", "Turn")
    highest = {**turned, "previous_chain_length": (1 << 32) - 1}
    yield _double_refused("the highest previous chain length", "limit", ends, highest, "SkipLimit", "Turn")


def _double_refused(comment: str, fails_at: Layer, ends: _Ends, last: JsonObject, *flags: str) -> Case:
    return invalid(comment, fails_at, ends.case("responder", last), *flags)
