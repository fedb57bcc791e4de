"""The Double Ratchet alone (protocol.md section 7.2).

Owns: the operation of double_ratchet.json: one end, which sends and receives headers.
Does not know about: cases, AEAD, the post-quantum ratchet.
"""

from typing import final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import array, constant, either, hex_bytes, integer, one_of, record
from e2ee.cli.vectors.script import Script
from e2ee.private_keys import PreKeyPair, RootKey, SeedBytes32, diffie_hellman
from e2ee.ratchet import chains, double_ratchet
from e2ee.ratchet.double_ratchet import DoubleRatchetHeader
from e2ee.ratchet.skipped_keys import SkippedPosition
from e2ee.ratchet.state import DoubleRatchetState
from e2ee.wire.public_keys import PreKeyPublicKey, RatchetPublicKey


@final
class End:
    """One end with its map of skipped keys."""

    def __init__(self, state: DoubleRatchetState) -> None:
        self._state = state
        self._skipped: dict[SkippedPosition, bytes] = {}

    def step(self, fields: Fields) -> JsonObject:
        """Take one step; a refused one raises and changes nothing."""
        return self._send(fields) if fields.text("step") == "send" else self._receive(fields)

    def _send(self, fields: Fields) -> JsonObject:
        before, script = self._state, Script(fields.optional_hex("ratchet_private_key"))
        after, message_key, ratchet_key, previous, index = double_ratchet.send(before, script)
        script.finish()
        self._state = after
        if after.our_ratchet_key_pair is None or after.sending is None or after.their_ratchet_key is None:
            raise AssertionError("a send leaves a ratchet key pair, a sending chain and the peer's key")
        turn = {}
        if before.sending is None:
            turn["dh"] = diffie_hellman(after.our_ratchet_key_pair, after.their_ratchet_key).expose().hex()
        return {
            "step": "send",
            **turn,
            "ratchet_key": str(ratchet_key),
            "previous_chain_length": previous,
            "index": index,
            "root_key": after.root_key.expose().hex(),
            "chain_key": after.sending.key.hex(),
            "message_key": message_key.hex(),
        }

    def _receive(self, fields: Fields) -> JsonObject:
        before = self._state
        with decoding():
            key = RatchetPublicKey.from_bytes(fields.hex("ratchet_key"))
        header = DoubleRatchetHeader(key, fields.number("previous_chain_length"), fields.number("index"))
        after, message_key, gaps, used = double_ratchet.receive(before, header, self._skipped.get)
        self._state = after
        self._skipped.update({each.position: each.key for each in chains.skipped_keys(gaps)})
        if used is not None:
            del self._skipped[used]
        turn = {}
        if after.root_key != before.root_key and before.our_ratchet_key_pair is not None:
            turn["dh"] = diffie_hellman(before.our_ratchet_key_pair, key).expose().hex()
        if after.receiving is None:
            raise AssertionError("a receive leaves a receiving chain")
        return {
            "step": "receive",
            **turn,
            "root_key": after.root_key.expose().hex(),
            "chain_key": after.receiving.key.hex(),
            "message_key": message_key.hex(),
            "skipped_keys": len(self._skipped),
        }


def _run(fields: Fields) -> JsonObject:
    root_key = RootKey(fields.hex("root_key"))
    if fields.text("role") == "initiator":
        with decoding():
            theirs = PreKeyPublicKey.from_bytes(fields.hex("their_signed_prekey"))
        end = End(double_ratchet.start_as_initiator(root_key, theirs))
    else:
        pair = PreKeyPair(SeedBytes32(fields.hex("signed_prekey_private_key")))
        end = End(double_ratchet.start_as_responder(root_key, pair))
    return {"steps": [end.step(each) for each in fields.records("steps")]}


_STEP = either(
    record(("ratchet_private_key",), step=constant("send"), ratchet_private_key=hex_bytes(32)),
    record(
        step=constant("receive"),
        ratchet_key=hex_bytes(32),
        previous_chain_length=integer(),
        index=integer(),
    ),
)
_KEYS = {"root_key": hex_bytes(32), "chain_key": hex_bytes(32), "message_key": hex_bytes(32)}
_OUTCOME = either(
    record(
        ("dh",),
        step=constant("send"),
        dh=hex_bytes(32),
        ratchet_key=hex_bytes(32),
        previous_chain_length=integer(),
        index=integer(),
        **_KEYS,
    ),
    record(("dh",), step=constant("receive"), dh=hex_bytes(32), **_KEYS, skipped_keys=integer()),
)

DOUBLE_RATCHET = Operation(
    "DoubleRatchet",
    "One end, from the root key of the handshake; of an invalid case the last step is refused",
    record(
        ("their_signed_prekey", "signed_prekey_private_key"),
        role=one_of("initiator", "responder"),
        root_key=hex_bytes(32, "SK_dr"),
        their_signed_prekey=hex_bytes(32, "the initiator has it"),
        signed_prekey_private_key=hex_bytes(32, "the responder has it"),
        steps=array(_STEP, 1),
    ),
    record(steps=array(_OUTCOME, 1)),
    _run,
    ("dh", "root_key", "chain_key", "skipped_keys"),
)

FILE = VectorFile(
    "double_ratchet",
    (
        "The Double Ratchet alone (protocol.md section 7.2).",
        "A send step has ratchet_private_key where the ratchet turns. root_key and chain_key are those after the step,",
        "chain_key that of the chain which the step used or, for a skipped message, of the receiving chain.",
    ),
    (DOUBLE_RATCHET,),
)
