"""The post-quantum ratchet alone (protocol.md section 7.3).

Owns: the operations of pq_ratchet.json: one end with explicit messages, and two ends that exchange them.
Does not know about: cases, AEAD, the Double Ratchet. Every message that arrives counts as authenticated.
"""

from typing import Final, final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.schema import Schema, array, constant, either, hex_bytes, integer, one_of, record, timestamp
from e2ee.cli.vectors.script import Encapsulation, Script
from e2ee.errors import E2EEError
from e2ee.primitives import kem
from e2ee.private_keys import SharedSecret
from e2ee.ratchet import chains, pq_ratchet, pq_turns
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.skipped_keys import SkippedPosition
from e2ee.ratchet.state import Answering, Offering, PqPhase, PqRatchetState, ProposeIdle, Waiting

_PHASES: Final[dict[type[PqPhase], str]] = {
    ProposeIdle: "propose-idle",
    Offering: "offering",
    Waiting: "waiting",
    Answering: "answering",
}


@final
class PqEnd:
    """One end with its map of skipped keys."""

    def __init__(self, state: PqRatchetState) -> None:
        self.state = state
        self._skipped: dict[SkippedPosition, bytes] = {}
        self._receives = 0

    def send(self, fields: Fields) -> JsonObject:
        script = Script(fields.optional_hex("seed"))
        before, payload_type, payload = pq_turns.before_sending(self.state, fields.number("time"), script)
        script.finish()
        self.state, message_key, epoch, index = pq_ratchet.send(before)
        return {
            "step": "send",
            "epoch": epoch,
            "index": index,
            "payload_type": int(payload_type),
            "payload": payload.hex(),
            "chain_key": self.state.sending.key.hex(),
            "message_key": message_key.hex(),
            "phase": _PHASES[type(self.state.turn.phase)],
            **({"rejected_secret": rejected_ratchet_secret(fields.hex("seed"))} if "seed" in fields else {}),
        }

    def receive(self, message: JsonObject, fields: Fields) -> JsonObject:
        """Take a message, given as a send step gave it; `fields` hold the time and a recorded encapsulation."""
        payload = bytes.fromhex(message["payload"])
        header = PqHeader(message["epoch"], message["index"], message["payload_type"], payload)
        state, message_key, gaps, used = pq_ratchet.receive(self.state, header, self._skipped.get)
        encapsulation = Encapsulation(fields.optional_hex("shared_secret"), fields.optional_hex("ciphertext"))
        self.state = pq_turns.after_authentication(state, header, fields.number("time"), self._receives, encapsulation)
        encapsulation.finish()
        self._receives += 1
        self._skipped.update({each.position: each.key for each in chains.skipped_keys(gaps)})
        if used is not None:
            del self._skipped[used]
        return {
            "step": "receive",
            "message_key": message_key.hex(),
            "skipped_keys": len(self._skipped),
            **self._state_json(),
        }

    def heal(self) -> JsonObject:
        self.state = pq_turns.ask_for_healing(self.state)
        return {"step": "heal", **self._state_json()}

    def forget(self, fields: Fields) -> JsonObject:
        self.state = pq_ratchet.forget_closed(self.state, fields.number("time"))
        return {"step": "forget", **self._state_json()}

    def _state_json(self) -> JsonObject:
        state = self.state
        return {
            "phase": _PHASES[type(state.turn.phase)],
            "e": state.epoch,
            "healing": int(state.turn.healing),
            "closed_chains": len(state.closed),
            "root_key": state.root_key.expose().hex(),
            "authentication_key": state.authentication_key.expose().hex(),
            "receiving_chain_key": state.receiving[-1].key.hex(),
        }


def rejected_ratchet_secret(seed: bytes) -> str:
    """Return what shows that a seed is right as a whole: its half z enters nothing else."""
    return kem.decapsulate_768(seed, b"\x5a" * 1088).hex()


def _start(fields: Fields, role: str) -> PqEnd:
    secret = SharedSecret(fields.hex("sk_pq"))
    return PqEnd(pq_ratchet.start(secret, initiator=role == "initiator", now=fields.number("time")))


def _run_end(fields: Fields) -> JsonObject:
    end = _start(fields, fields.text("role"))
    first = end.state
    return {
        "root_key": first.root_key.expose().hex(),
        "sending_chain_key": first.sending.key.hex(),
        "receiving_chain_key": first.receiving[0].key.hex(),
        "authentication_key": first.authentication_key.expose().hex(),
        "steps": [_end_step(end, each) for each in fields.records("steps")],
    }


def _end_step(end: PqEnd, fields: Fields) -> JsonObject:
    match fields.text("step"):
        case "send":
            return end.send(fields)
        case "receive":
            message = {
                "epoch": fields.number("epoch"),
                "index": fields.number("index"),
                "payload_type": fields.number("payload_type"),
                "payload": fields.hex("payload").hex(),
            }
            return end.receive(message, fields)
        case "heal":
            return end.heal()
        case _:
            return end.forget(fields)


@final
class PqConversation:
    """Two ends, and what they sent by the number of its step. A refused message is an outcome, and changes nothing."""

    def __init__(self, fields: Fields) -> None:
        self.ends = {role: _start(fields, role) for role in ("initiator", "responder")}
        self.outcomes: list[JsonObject] = []

    def step(self, fields: Fields) -> JsonObject:
        end = self.ends[fields.text("end")]
        match fields.text("step"):
            case "send":
                outcome = end.send(fields)
            case "deliver":
                try:
                    outcome = end.receive(self.outcomes[fields.number("message_of")], fields)
                except E2EEError as error:
                    outcome = {"step": "refused", "error": error.code}
            case "heal":
                outcome = end.heal()
            case _:
                outcome = end.forget(fields)
        self.outcomes.append(outcome)
        return outcome


def _run_conversation(fields: Fields) -> JsonObject:
    conversation = PqConversation(fields)
    return {"steps": [conversation.step(each) for each in fields.records("steps")]}


ENCAPSULATED: Final[dict[str, Schema]] = {
    "shared_secret": hex_bytes(32, "present where something is encapsulated"),
    "ciphertext": hex_bytes(1088),
}
_MESSAGE: Final[dict[str, Schema]] = {
    "epoch": integer(),
    "index": integer(),
    "payload_type": integer(3),
    "payload": hex_bytes(),
}
REJECTED: Final = hex_bytes(32, "of the proposal's seed, Decaps of 1,088 bytes 0x5a")
_SEED: Final = hex_bytes(64, "present where a proposal is made")
_STATE: Final[dict[str, Schema]] = {
    "phase": one_of(*_PHASES.values()),
    "e": integer(),
    "healing": integer(1),
    "closed_chains": integer(64),
    "root_key": hex_bytes(32, "of the newest epoch agreed on"),
    "authentication_key": hex_bytes(32, "AK of the newest epoch agreed on"),
    "receiving_chain_key": hex_bytes(32, "of the newest receiving chain"),
}
_SENT: Final = record(
    ("rejected_secret",),
    step=constant("send"),
    **_MESSAGE,
    chain_key=hex_bytes(32),
    message_key=hex_bytes(32, "MK_pq"),
    phase=one_of(*_PHASES.values()),
    rejected_secret=REJECTED,
)
_RECEIVED: Final = record(
    step=constant("receive"), message_key=hex_bytes(32, "MK_pq"), skipped_keys=integer(), **_STATE
)
_HEALING: Final = record(step=constant("heal"), **_STATE)
_FORGOTTEN: Final = record(step=constant("forget"), **_STATE)
_INTERMEDIATE: Final = (
    "root_key",
    "sending_chain_key",
    "receiving_chain_key",
    "authentication_key",
    "chain_key",
    "skipped_keys",
    "phase",
    "closed_chains",
    "rejected_secret",
)

PQ_RATCHET: Final = Operation(
    "PqRatchet",
    "One end, from SK_pq; of an invalid case the last step is refused",
    record(
        role=one_of("initiator", "responder"),
        sk_pq=hex_bytes(32),
        time=timestamp("when the session starts, Unix milliseconds"),
        steps=array(
            either(
                record(("seed",), step=constant("send"), time=timestamp(), seed=_SEED),
                record(
                    ("shared_secret", "ciphertext"),
                    step=constant("receive"),
                    time=timestamp(),
                    **_MESSAGE,
                    **ENCAPSULATED,
                ),
                record(step=constant("heal")),
                record(step=constant("forget"), time=timestamp()),
            ),
            1,
        ),
    ),
    record(
        root_key=hex_bytes(32),
        sending_chain_key=hex_bytes(32),
        receiving_chain_key=hex_bytes(32),
        authentication_key=hex_bytes(32, "AK"),
        steps=array(either(_SENT, _RECEIVED, _HEALING, _FORGOTTEN), 1),
    ),
    _run_end,
    _INTERMEDIATE,
)

_END: Final = one_of("initiator", "responder")
PQ_CONVERSATION: Final = Operation(
    "PqConversation",
    "Two ends; a message is delivered any number of times, or never; a refused one is an outcome, and changes nothing",
    record(
        sk_pq=hex_bytes(32),
        time=timestamp("when the session starts on both ends, Unix milliseconds"),
        steps=array(
            either(
                record(("seed",), step=constant("send"), end=_END, time=timestamp(), seed=_SEED),
                record(
                    ("shared_secret", "ciphertext"),
                    step=constant("deliver"),
                    end=_END,
                    time=timestamp(),
                    message_of=integer(description="number of the send step, from 0"),
                    **ENCAPSULATED,
                ),
                record(step=constant("heal"), end=_END),
                record(step=constant("forget"), end=_END, time=timestamp()),
            ),
            1,
        ),
    ),
    record(
        steps=array(
            either(
                _SENT,
                _RECEIVED,
                _HEALING,
                _FORGOTTEN,
                record(
                    step=constant("refused"),
                    error=one_of("authentication_failed", "duplicate_message", "epoch_unknown", "key_evicted"),
                ),
            ),
            1,
        )
    ),
    _run_conversation,
    _INTERMEDIATE,
)

FILE = VectorFile(
    "pq_ratchet",
    (
        "The post-quantum ratchet alone (protocol.md section 7.3): every message that arrives counts as authenticated.",
        "The four keys beside the steps are those of epoch 0 before the first step. A step shows what it leaves;",
        "chain_key is the sending chain's. Skipped keys are never evicted here. heal: healing on demand is asked for.",
        "forget: chains that were closed more than 7 days before `time` are dropped.",
    ),
    (PQ_RATCHET, PQ_CONVERSATION),
)
