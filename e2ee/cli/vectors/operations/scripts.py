"""The files that hold conversations, of two ends and of one.

Owns: the operations and schemas of conversation.json, sessions.json, reception.json and limits.json.
Does not know about: what a step does (conversation.py), cases.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.conversation import Conversation
from e2ee.cli.vectors.operations.devices import DEVICE, PUBLISHED
from e2ee.cli.vectors.operations.parts import ADDRESS
from e2ee.cli.vectors.operations.pq_ratchet import ENCAPSULATED, REJECTED
from e2ee.cli.vectors.refusals import LAYERS, Refused
from e2ee.cli.vectors.schema import Schema, array, constant, either, hex_bytes, integer, one_of, record, text, timestamp


def _run_conversation(fields: Fields) -> JsonObject:
    conversation = Conversation(fields.records("devices"))
    published = conversation.published_json()
    return {"devices": published, "steps": [conversation.step(each) for each in fields.records("steps")]}


def _run_reception(fields: Fields) -> JsonObject:
    """Run the steps; the first refused envelope decides, and a case holds none before its last."""
    conversation = Conversation([fields.record("device")])
    (published,) = conversation.published_json()
    outcomes: list[JsonObject] = []
    for each in fields.records("steps"):
        outcomes.append(conversation.step(each))
        if outcomes[-1].get("outcome") == "refused":
            raise Refused(outcomes[-1]["fails_at"])
    return {"device": published, "steps": outcomes}


_START: Final = record(
    ("one_time_prekey_id",),
    step=constant("start"),
    device=text("user id of the device that starts a session"),
    peer=text(),
    time=timestamp(),
    signed_prekey_id=integer(),
    one_time_prekey_id=integer(),
    kem_prekey_id=integer(),
    created=timestamp(),
    ephemeral_private_key=hex_bytes(32),
    kem_shared_secret=hex_bytes(32),
    kem_ciphertext=hex_bytes(1568),
)
_SEND: Final = record(
    ("ratchet_private_key", "seed"),
    step=constant("send"),
    device=text(),
    peer=text(),
    time=timestamp(),
    kind=integer(255),
    body=hex_bytes(),
    conversation_id=text(),
    lane=integer(3),
    ttl=integer(),
    message_id=hex_bytes(16),
    ratchet_private_key=hex_bytes(32, "present where the ratchet turns"),
    seed=hex_bytes(64, "present where a post-quantum epoch is proposed"),
    nonce=hex_bytes(12),
    envelope_id=hex_bytes(16),
)
_DELIVER: Final = record(
    ("complement_byte", "shared_secret", "ciphertext"),
    step=constant("deliver"),
    device=text(),
    time=timestamp(),
    envelope_of=integer(description="number of the send step, from 0"),
    complement_byte=integer(description="offset in the envelope of a byte that is complemented on the way"),
    **ENCAPSULATED,
)
_RECEIVE: Final = record(
    ("shared_secret", "ciphertext"),
    step=constant("receive"),
    device=text(),
    time=timestamp(),
    envelope=hex_bytes(),
    **ENCAPSULATED,
)
_PRUNE: Final = record(step=constant("prune"), device=text(), peer=text(), time=timestamp())

_STARTED: Final = record(
    step=constant("start"),
    associated_data=hex_bytes(32, "T, the session's id"),
    handshake_hash=hex_bytes(32, "H"),
    root_key=hex_bytes(32, "SK_dr"),
    pq_root_key=hex_bytes(32, "RK' of epoch 0"),
)
_SENT: Final = record(
    ("rejected_secret",),
    step=constant("send"),
    associated_data=hex_bytes(32, "of the session that was chosen"),
    root_key=hex_bytes(32),
    chain_key=hex_bytes(32, "of the sending chain, after the step"),
    message_key=hex_bytes(32, "MK_dr"),
    pq_message_key=hex_bytes(32, "MK_pq"),
    aes_key=hex_bytes(32),
    commitment=hex_bytes(32),
    plaintext=hex_bytes(None, "the padded content"),
    envelope=hex_bytes(),
    rejected_secret=REJECTED,
)
_TAKEN_IN: Final[dict[str, Schema]] = {
    "envelope_id": hex_bytes(16),
    "sender": record(**ADDRESS),
    "lane": integer(3),
    "ttl": integer(),
    "associated_data": hex_bytes(32, "of the session that decrypted"),
    "root_key": hex_bytes(32),
    "chain_key": hex_bytes(32, "of the receiving chain, after the step"),
    "pq_root_key": hex_bytes(32, "of the newest post-quantum epoch"),
    "skipped_keys": integer(description="stored on this device afterwards, of both ratchets and all sessions"),
}
_MESSAGE: Final = record(
    message_id=hex_bytes(16), kind=integer(255), conversation_id=text(), sent_at=timestamp(), body=hex_bytes()
)
_STORED: Final = record(step=constant("receive"), outcome=constant("stored"), **_TAKEN_IN, message=_MESSAGE)
_CONSUMED: Final = record(step=constant("receive"), outcome=constant("consumed"), **_TAKEN_IN)
_REFUSED: Final = record(step=constant("receive"), outcome=constant("refused"), fails_at=one_of(*LAYERS))
_PRUNED: Final = record(step=constant("prune"), sessions=integer(description="left with the peer"))

_INTERMEDIATE: Final = (
    "rejected_secrets",
    "associated_data",
    "handshake_hash",
    "root_key",
    "pq_root_key",
    "chain_key",
    "message_key",
    "pq_message_key",
    "aes_key",
    "commitment",
    "plaintext",
    "skipped_keys",
    "rejected_secret",
)

CONVERSATION: Final = Operation(
    "Conversation",
    "Devices that talk with one another; a refused delivery is an outcome, and changes nothing",
    record(devices=array(DEVICE, 1), steps=array(either(_START, _SEND, _DELIVER, _PRUNE), 1)),
    record(devices=array(PUBLISHED), steps=array(either(_STARTED, _SENT, _STORED, _CONSUMED, _REFUSED, _PRUNED), 1)),
    _run_conversation,
    _INTERMEDIATE,
)
RECEPTION: Final = Operation(
    "Reception",
    "One device and the envelopes that reach it; of an invalid case the last envelope is refused, and no other",
    record(device=DEVICE, steps=array(either(_RECEIVE, _SEND, _PRUNE), 1)),
    record(device=PUBLISHED, steps=array(either(_SENT, _STORED, _CONSUMED, _PRUNED), 1)),
    _run_reception,
    _INTERMEDIATE,
)

_COMMON: Final = (
    "A device is a user's only one. `time` is its clock. Randomness is given by name and drawn in this order:",
    "message_id, ratchet_private_key where the ratchet turns, seed where an epoch is proposed, nonce, envelope_id; one",
    "ephemeral key for a session.",
)

CONVERSATION_FILE: Final = VectorFile(
    "conversation",
    ("Whole conversations of both ends, with all private keys and all randomness (protocol.md section 12).", *_COMMON),
    (CONVERSATION,),
)
SESSIONS_FILE: Final = VectorFile(
    "sessions",
    ("Several sessions of one pair of devices: which one sends, which one goes (protocol.md section 12.1).", *_COMMON),
    (CONVERSATION,),
)
RECEPTION_FILE: Final = VectorFile(
    "reception",
    ("What one device makes of the envelopes that reach it (protocol.md sections 6.2, 8.3 and 12.4).", *_COMMON),
    (RECEPTION,),
)
LIMITS_FILE: Final = VectorFile(
    "limits",
    (
        "Sessions and skipped keys that go for their number or their age (protocol.md section 11).",
        "The numbers are implementation constants of this package. Another implementation may choose others, and then",
        "answers that it does not support this file.",
        *_COMMON,
    ),
    (CONVERSATION, RECEPTION),
)
