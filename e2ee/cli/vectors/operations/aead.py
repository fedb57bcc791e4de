"""One message: both chain steps, the joint key, the commitment, AES-256-GCM (protocol.md sections 7.4 and 8.3).

Owns: the operations of aead.json, from two chain keys to a RatchetMessage and back.
Does not know about: cases, how the chain keys came to be, padding.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import Schema, hex_bytes, integer, record
from e2ee.cli.vectors.script import Script
from e2ee.primitives.kdf import kdf, kdf_pair
from e2ee.private_keys import (
    PqAuthenticationKey,
    PqRootKey,
    RatchetKeyPair,
    RootKey,
    SeedBytes32,
)
from e2ee.ratchet import chains, triple_ratchet
from e2ee.ratchet.skipped_keys import nothing_skipped
from e2ee.ratchet.state import (
    ChainKey,
    DoubleRatchetState,
    PqChain,
    PqChainKey,
    PqRatchetState,
    PqReceivingChain,
    PqTurn,
    RatchetState,
    ReceivingChain,
    SendingChain,
    Waiting,
)
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.wire.message import RatchetMessage
from e2ee.wire.public_keys import RatchetPublicKey

_UNUSED = bytes(32)
"""In place of state that encryption of one message does not touch."""

_CHAINS: Final[dict[str, Schema]] = {
    "associated_data": hex_bytes(32, "T"),
    "chain_key": hex_bytes(32),
    "pq_chain_key": hex_bytes(32),
}
_KEYS: Final[dict[str, Schema]] = {
    "message_key": hex_bytes(32, "MK_dr"),
    "pq_message_key": hex_bytes(32, "MK_pq"),
    "aes_key": hex_bytes(32),
    "commitment": hex_bytes(32),
}


def joint_keys(message_key: bytes, pq_message_key: bytes) -> tuple[bytes, bytes]:
    """Return (AES key, commitment) of one message (section 7.4)."""
    output = kdf(pq_message_key, b"E2EE/1 message", message_key)
    return output[:32], output[32:]


def _keys_json(chain_key: bytes, pq_chain_key: bytes, pq_index: int) -> JsonObject:
    """Return the keys on the way from two chain keys to a message."""
    _, message_key = kdf_pair(chain_key, chains.CHAIN)
    _, pq_message_key = kdf_pair(pq_chain_key, chains.PQ_CHAIN + pq_index.to_bytes(4, "big"))
    aes_key, commitment = joint_keys(message_key, pq_message_key)
    return {
        "message_key": message_key.hex(),
        "pq_message_key": pq_message_key.hex(),
        "aes_key": aes_key.hex(),
        "commitment": commitment.hex(),
    }


def _pq_state(sending: PqChain, receiving: PqReceivingChain, epoch: int) -> PqRatchetState:
    turn = PqTurn(Waiting(), 0, 0, asked=False, again=False, healing=False, fresh=False, reported=False)
    keys = PqRootKey(_UNUSED), PqAuthenticationKey(_UNUSED)
    return PqRatchetState(0, 0, sending, (receiving,), (), turn, epoch + 1, *keys, initiator=True)


def _seal(fields: Fields) -> JsonObject:
    chain_key, pq_chain_key = fields.hex("chain_key"), fields.hex("pq_chain_key")
    epoch, pq_index = fields.number("pq_epoch"), fields.number("pq_index")
    ratchet_key = RatchetPublicKey.from_bytes(fields.hex("ratchet_key"))
    state = RatchetState(
        DoubleRatchetState(
            root_key=RootKey(_UNUSED),
            our_ratchet_key_pair=RatchetKeyPair.restore(SeedBytes32(_UNUSED), ratchet_key),
            sending=SendingChain(ChainKey(chain_key), fields.number("index")),
            their_ratchet_key=None,
            receiving=None,
            previous_chain_length=fields.number("previous_chain_length"),
            closed_ratchet_keys=(),
        ),
        _pq_state(PqChain(PqChainKey(pq_chain_key), pq_index), PqReceivingChain(epoch, PqChainKey(_UNUSED), 0), epoch),
    )
    script = Script(fields.hex("nonce"))
    _, message = triple_ratchet.encrypt(state, fields.hex("associated_data"), fields.hex("plaintext"), 0, script)
    script.finish()
    return {**_keys_json(chain_key, pq_chain_key, pq_index), "message": message.hex()}


def _open(fields: Fields) -> JsonObject:
    with decoding():
        message = RatchetMessage.decode(fields.hex("message"))
    header = message.header
    chain_key, pq_chain_key = fields.hex("chain_key"), fields.hex("pq_chain_key")
    state = RatchetState(
        DoubleRatchetState(
            root_key=RootKey(_UNUSED),
            our_ratchet_key_pair=None,
            sending=None,
            their_ratchet_key=header.ratchet_key,
            receiving=ReceivingChain(header.ratchet_key, ChainKey(chain_key), header.chain_index),
            previous_chain_length=0,
            closed_ratchet_keys=(),
        ),
        _pq_state(
            PqChain(PqChainKey(_UNUSED), 0),
            PqReceivingChain(header.pq_epoch, PqChainKey(pq_chain_key), header.pq_index),
            header.pq_epoch,
        ),
    )
    arrival = Arrival(nothing_skipped, 0)
    _, plaintext, _, _ = triple_ratchet.decrypt(state, fields.hex("associated_data"), message, arrival)
    return {**_keys_json(chain_key, pq_chain_key, header.pq_index), "plaintext": plaintext.hex()}


SEAL = Operation(
    "MessageSeal",
    "A padded plaintext to a RatchetMessage; the header has no payload",
    record(
        **_CHAINS,
        ratchet_key=hex_bytes(32),
        previous_chain_length=integer(),
        index=integer(),
        pq_epoch=integer(),
        pq_index=integer(),
        nonce=hex_bytes(12),
        plaintext=hex_bytes(),
    ),
    record(**_KEYS, message=hex_bytes()),
    _seal,
    tuple(_KEYS),
)
OPEN = Operation(
    "MessageOpen",
    "A RatchetMessage to its padded plaintext; the chain keys are those for the header's indices",
    record(**_CHAINS, message=hex_bytes()),
    record(**_KEYS, plaintext=hex_bytes()),
    _open,
    tuple(_KEYS),
)

FILE = VectorFile(
    "aead",
    ("One message under two chain keys: joint key, commitment, AES-256-GCM (protocol.md sections 7.4 and 8.3).",),
    (SEAL, OPEN),
)
