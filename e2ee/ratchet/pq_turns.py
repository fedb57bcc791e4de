"""How the two ends of a session agree on the next post-quantum epoch: by turns (protocol.md section 7.3).

    phase          sending                                a payload or epoch that arrived, authenticated
    ProposeIdle    when due: make a seed -> Offering      type 3: due
    Offering       attach ek                              ct: decapsulate, e + 1 -> Waiting      type 3: always attach
    Waiting        when healing: ask (type 3)             ek: encapsulate -> Answering
    Answering      attach ct                              a message of epoch e: e + 1 -> ProposeIdle

Owns: phases and their transitions, when a payload is attached, what the macs cover.
Does not know about: chains and message keys (pq_ratchet.py), storage, the clock.

Each function takes a state and returns the next; a call that raises has changed nothing. Messages are sent in epoch
e - 1 whatever the phase, so a lost or late payload delays healing and never blocks decryption.
"""

import hmac
from typing import Final, NamedTuple, assert_never

from e2ee.errors import AuthenticationError, InvalidPublicKeyError
from e2ee.limits import PQ_ATTACH_AGE_MS, PQ_PROPOSAL_AGE_MS, PQ_PROPOSAL_MESSAGES, PQ_STALLED_RECEIVED, PQ_STALLED_SENT
from e2ee.primitives.kdf import mac, sha256
from e2ee.primitives.rng import Rng
from e2ee.private_keys import PqAuthenticationKey, RatchetEncapsulate, RatchetKemSeed, SharedSecret
from e2ee.ratchet.pq_ratchet import EpochKeys, close_chains, derive_epoch
from e2ee.ratchet.state import (
    Answering,
    Offering,
    PqChain,
    PqPhase,
    PqRatchetState,
    PqTurn,
    ProposeIdle,
    Waiting,
    new_record,
)
from e2ee.wire.message import PqPayloadType
from e2ee.wire.public_keys import RatchetEncapsulationKey

EK_LABEL: Final = b"E2EE/1 PQ ek"
CT_LABEL: Final = b"E2EE/1 PQ ct"
"""Domain separation; changing one is a wire break."""

MAC_LENGTH: Final = 32
_ATTACHED: Final = frozenset({1, 8, 16, 32, 64, 128})
_ATTACHED_EVERY: Final = 256
_NO_PAYLOAD: Final = (int(PqPayloadType.NONE), b"")


class Arrived(NamedTuple):
    """What a message that has authenticated says to the post-quantum ratchet, and when it came."""

    epoch: int
    payload_type: int
    payload: bytes
    now: int
    """Unix milliseconds."""
    receives: int
    """Messages authenticated on the session before it."""


def before_sending(state: PqRatchetState, now: int, rng: Rng) -> tuple[PqTurn, int, bytes]:
    """Count a message that is about to be sent; return the turn, and the type and bytes of the payload to attach."""
    turn = state.turn
    if type(turn.phase) is ProposeIdle and _is_due(turn, now):
        turn = _enter(turn, _propose(state, rng), now)._replace(asked=turn.asked, fresh=turn.healing)
    turn = new_record(PqTurn, (turn[0] + 1, *turn[1:]))
    payload_type, payload = _payload(turn, now)
    if payload:
        turn = turn._replace(attached_at=now, again=False)
    return turn, payload_type, payload


def after_authentication(state: PqRatchetState, arrived: Arrived, encapsulate: RatchetEncapsulate) -> PqRatchetState:
    """Count a message that has authenticated, and take the steps that its epoch and its payload cause.

    Raises:
        AuthenticationError: the payload has no place in this phase, its mac is wrong, or ek is no encapsulation key.
    """
    turn = state.turn
    turn = new_record(PqTurn, (turn[0], turn[1] + 1, *turn[2:]))
    if turn.received >= PQ_STALLED_RECEIVED and _has_stalled(turn):
        turn = turn._replace(reported=True)
    state = new_record(PqRatchetState, (turn, *state[1:]))
    if arrived.epoch > state.receiving[0].epoch:
        state = close_chains(state, arrived.epoch, arrived.now, arrived.receives)
    if type(turn.phase) is Answering and arrived.epoch == state.epoch:
        state = _complete(state, turn.phase.sending, ProposeIdle(), arrived.now)
    payload_epoch = arrived.epoch + 1
    if arrived.payload_type == PqPayloadType.NONE or payload_epoch < state.epoch:
        return state  # late repetitions of a payload are honest and frequent
    if payload_epoch > state.epoch:
        raise AuthenticationError
    return _judge(state, arrived, encapsulate)


def ask_for_healing(state: PqRatchetState) -> PqRatchetState:
    """Return the state that heals as soon as it can. What was contributed before may have leaked, so it counts not."""
    return state._replace(turn=state.turn._replace(healing=True, fresh=False))


def _is_due(turn: PqTurn, now: int) -> bool:
    by_number = turn.sent + turn.received >= PQ_PROPOSAL_MESSAGES
    return by_number or turn.asked or turn.healing or now - turn.entered_at >= PQ_PROPOSAL_AGE_MS


def _has_stalled(turn: PqTurn) -> bool:
    return turn.sent >= PQ_STALLED_SENT and type(turn.phase) is not ProposeIdle


def _payload(turn: PqTurn, now: int) -> tuple[int, bytes]:
    match turn.phase:
        case ProposeIdle():
            return _NO_PAYLOAD
        case Waiting():
            return (PqPayloadType.REQUEST, b"") if turn.healing else _NO_PAYLOAD
        case Offering(payload=payload) if _is_attached(turn, now):
            return PqPayloadType.ENCAPSULATION_KEY, payload
        case Answering(payload=payload) if _is_attached(turn, now):
            return PqPayloadType.CIPHERTEXT, payload
        case Offering() | Answering():
            return _NO_PAYLOAD
        case _:
            assert_never(turn.phase)


def _is_attached(turn: PqTurn, now: int) -> bool:
    by_number = turn.sent in _ATTACHED or turn.sent % _ATTACHED_EVERY == 0
    return by_number or turn.asked or turn.again or turn.healing or now - turn.attached_at >= PQ_ATTACH_AGE_MS


def _propose(state: PqRatchetState, rng: Rng) -> Offering:
    """ProposeIdle -> Offering: make an encapsulation key."""
    seed = RatchetKemSeed.generate(rng)
    ek = seed.encapsulation_key().raw
    return Offering(seed, ek + _mac(state.authentication_key, EK_LABEL, state.epoch, ek))


def _judge(state: PqRatchetState, arrived: Arrived, encapsulate: RatchetEncapsulate) -> PqRatchetState:
    """Take the step that a payload of the current epoch causes. Whatever is not named here no honest peer sends."""
    match arrived.payload_type, state.turn.phase:
        case PqPayloadType.ENCAPSULATION_KEY, Waiting():
            return _answer(state, arrived, encapsulate)
        case PqPayloadType.ENCAPSULATION_KEY, Answering(accepted=accepted) if accepted == sha256(arrived.payload):
            return state._replace(turn=state.turn._replace(again=True))
        case PqPayloadType.CIPHERTEXT, Offering() as offering:
            return _conclude(state, arrived, offering)
        case PqPayloadType.REQUEST, ProposeIdle() | Offering():
            return state._replace(turn=state.turn._replace(asked=True))
        case _:
            raise AuthenticationError


def _answer(state: PqRatchetState, arrived: Arrived, encapsulate: RatchetEncapsulate) -> PqRatchetState:
    """Waiting -> Answering: encapsulate to the peer's key."""
    ek, tag = arrived.payload[:-MAC_LENGTH], arrived.payload[-MAC_LENGTH:]
    _check(tag, _mac(state.authentication_key, EK_LABEL, state.epoch, ek))
    try:
        shared_secret, ct = encapsulate(RatchetEncapsulationKey.from_bytes(ek))
    except InvalidPublicKeyError:
        raise AuthenticationError from None
    keys = _derive(state, shared_secret, ek, ct)
    payload = ct + _mac(keys.authentication_key, CT_LABEL, state.epoch, ct)
    turn = _enter(state.turn, Answering(payload, sha256(arrived.payload), keys.sending), arrived.now)
    return _with_keys(state, keys)._replace(turn=turn._replace(fresh=turn.healing))


def _conclude(state: PqRatchetState, arrived: Arrived, offering: Offering) -> PqRatchetState:
    """Offering -> Waiting: decapsulate the peer's answer."""
    ct, tag = arrived.payload[:-MAC_LENGTH], arrived.payload[-MAC_LENGTH:]
    keys = _derive(state, offering.seed.decapsulate(ct), offering.payload[:-MAC_LENGTH], ct)
    _check(tag, _mac(keys.authentication_key, CT_LABEL, state.epoch, ct))
    return _complete(_with_keys(state, keys), keys.sending, Waiting(), arrived.now)


def _derive(state: PqRatchetState, shared_secret: SharedSecret, ek: bytes, ct: bytes) -> EpochKeys:
    bind = sha256(ek) + sha256(ct)
    return derive_epoch(state.epoch, (state.root_key, shared_secret), bind, initiator=state.initiator)


def _with_keys(state: PqRatchetState, keys: EpochKeys) -> PqRatchetState:
    """Take over what is known as soon as the epoch's secret is; our sending chain waits for its end."""
    return state._replace(
        root_key=keys.root_key,
        authentication_key=keys.authentication_key,
        receiving=(*state.receiving, keys.receiving),
    )


def _complete(state: PqRatchetState, sending: PqChain, phase: PqPhase, now: int) -> PqRatchetState:
    """End the epoch: send in it from now on, and let the other side have its turn. The old sending chain is dropped."""
    turn = state.turn
    healed = turn.healing and turn.fresh
    turn = _enter(turn, phase, now)._replace(healing=turn.healing and not healed)
    return state._replace(turn=turn, sending=sending, epoch=state.epoch + 1)


def _enter(turn: PqTurn, phase: PqPhase, now: int) -> PqTurn:
    return PqTurn(0, 0, phase, now, 0, asked=False, again=False, healing=turn.healing, fresh=False, reported=False)


def _mac(key: PqAuthenticationKey, label: bytes, epoch: int, data: bytes) -> bytes:
    return mac(key.expose(), label, epoch.to_bytes(4, "big") + data)


def _check(tag: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(tag, expected):
        raise AuthenticationError
