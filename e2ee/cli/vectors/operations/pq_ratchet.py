"""The post-quantum ratchet alone: its first epoch (protocol.md section 7.3).

Owns: the operation of pq_ratchet.json: one end, which sends and receives epochs and indices.
Does not know about: cases, AEAD, the Double Ratchet, turns (this release takes none).
"""

from typing import final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.schema import array, constant, either, hex_bytes, integer, one_of, record
from e2ee.private_keys import SharedSecret
from e2ee.ratchet import pq_ratchet
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.skipped_keys import SkippedPosition
from e2ee.ratchet.state import PqRatchetState


@final
class PqEnd:
    """One end with its map of skipped keys."""

    def __init__(self, state: PqRatchetState) -> None:
        self._state = state
        self._skipped: dict[SkippedPosition, bytes] = {}

    def step(self, fields: Fields) -> JsonObject:
        """Take one step; a refused one raises and changes nothing."""
        return self._send() if fields.text("step") == "send" else self._receive(fields)

    def _send(self) -> JsonObject:
        sent = pq_ratchet.send(self._state)
        self._state = sent.state
        return {
            "step": "send",
            "epoch": sent.header.epoch,
            "index": sent.header.chain_index,
            "chain_key": sent.state.sending.key.expose().hex(),
            "message_key": sent.message_key.expose().hex(),
        }

    def _receive(self, fields: Fields) -> JsonObject:
        header = PqHeader(fields.number("epoch"), fields.number("index"))
        received = pq_ratchet.receive(self._state, header, self._skipped.get)
        self._state = received.state
        self._skipped.update({each.position: each.key for each in received.skipped})
        if received.used is not None:
            del self._skipped[received.used]
        chain = next(each for each in received.state.receiving if each.epoch == header.epoch)
        return {
            "step": "receive",
            "chain_key": chain.key.expose().hex(),
            "message_key": received.message_key.expose().hex(),
            "skipped_keys": len(self._skipped),
        }


def _run(fields: Fields) -> JsonObject:
    initiator = fields.text("role") == "initiator"
    state = pq_ratchet.start(SharedSecret(fields.hex("sk_pq")), initiator=initiator)
    end = PqEnd(state)
    return {
        "root_key": state.root_key.expose().hex(),
        "sending_chain_key": state.sending.key.expose().hex(),
        "receiving_chain_key": state.receiving[0].key.expose().hex(),
        "authentication_key": state.authentication_key.expose().hex(),
        "steps": [end.step(each) for each in fields.records("steps")],
    }


_KEYS = {"chain_key": hex_bytes(32), "message_key": hex_bytes(32, "MK_pq")}

PQ_RATCHET = Operation(
    "PqRatchet",
    "One end, from SK_pq; of an invalid case the last step is refused",
    record(
        role=one_of("initiator", "responder"),
        sk_pq=hex_bytes(32),
        steps=array(
            either(record(step=constant("send")), record(step=constant("receive"), epoch=integer(), index=integer())),
            1,
        ),
    ),
    record(
        root_key=hex_bytes(32),
        sending_chain_key=hex_bytes(32),
        receiving_chain_key=hex_bytes(32),
        authentication_key=hex_bytes(32, "AK"),
        steps=array(
            either(
                record(step=constant("send"), epoch=integer(), index=integer(), **_KEYS),
                record(step=constant("receive"), **_KEYS, skipped_keys=integer()),
            ),
            1,
        ),
    ),
    _run,
    ("root_key", "sending_chain_key", "receiving_chain_key", "authentication_key", "chain_key", "skipped_keys"),
)

FILE = VectorFile(
    "pq_ratchet",
    (
        "The chains of the post-quantum ratchet's first epoch (protocol.md section 7.3).",
        "The four keys are those of epoch 0 before the first step; chain_key is the one after a step.",
    ),
    (PQ_RATCHET,),
)
