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
from typing import Final, assert_never

from e2ee.errors import AuthenticationError, InvalidPublicKeyError
from e2ee.limits import PQ_ATTACH_AGE_MS, PQ_PROPOSAL_AGE_MS, PQ_PROPOSAL_MESSAGES, PQ_STALLED_RECEIVED, PQ_STALLED_SENT
from e2ee.primitives.kdf import mac, sha256
from e2ee.primitives.rng import Rng
from e2ee.private_keys import PqAuthenticationKey, RatchetEncapsulate, RatchetKemSeed, SharedSecret
from e2ee.ratchet.pq_ratchet import EpochKeys, Header, close_chains, derive_epoch
from e2ee.ratchet.state import (
    Answering,
    Offering,
    PqChain,
    PqPhase,
    PqRatchetState,
    PqTurn,
    ProposeIdle,
    Waiting,
)
from e2ee.wire.message import PqPayloadType
from e2ee.wire.public_keys import RatchetEncapsulationKey

EK_LABEL: Final = b"E2EE/1 PQ ek"
CT_LABEL: Final = b"E2EE/1 PQ ct"
"""Domain separation; changing one is a wire break."""

MAC_LENGTH: Final = 32
_ATTACHED: Final = frozenset({1, 8, 16, 32, 64, 128})
_ATTACHED_EVERY: Final = 256


def before_sending(state: PqRatchetState, now: int, rng: Rng) -> tuple[PqRatchetState, int, bytes]:
    """Prepare the state for sending a message, which `pq_ratchet.send` counts; return it with the payload to attach."""
    turn = state.turn
    phase = type(turn.phase)
    if phase is Waiting:
        return state, PqPayloadType.REQUEST if turn.healing else 0, b""
    if phase is ProposeIdle:
        if not _is_due(state, now):
            return state, 0, b""
        state = _propose(state, now, rng)
    if not _is_attached(state, now):
        return state, 0, b""
    return state._replace(turn=state.turn._replace(attached_at=now, again=False)), *_payload(state.turn.phase)


def after_authentication(
    state: PqRatchetState, header: Header, now: int, receives: int, encapsulate: RatchetEncapsulate
) -> PqRatchetState:
    """Take the steps that follow from a message which `pq_ratchet.receive` counted and which has authenticated.

    `now` is Unix milliseconds; `receives` the messages authenticated on the session before it.

    Raises:
        AuthenticationError: the payload has no place in this phase, its mac is wrong, or ek is no encapsulation key.
    """
    epoch, _, pq_type, _ = header
    if state.received >= PQ_STALLED_RECEIVED and state.sent >= PQ_STALLED_SENT:
        state = _report(state)
    if epoch > state.receiving[0].epoch:
        state = close_chains(state, epoch, now, receives)
    phase = state.turn.phase
    if type(phase) is Answering and epoch == state.epoch:
        state = _complete(state, phase.sending, ProposeIdle(), now)
    if not pq_type or epoch + 1 < state.epoch:
        return state  # late repetitions of a payload are honest and frequent
    if epoch + 1 > state.epoch:
        raise AuthenticationError
    return _judge(state, header, now, encapsulate)


def ask_for_healing(state: PqRatchetState) -> PqRatchetState:
    """Return the state that heals as soon as it can. What was contributed before may have leaked, so it counts not."""
    return state._replace(turn=state.turn._replace(healing=True, fresh=False))


def is_to_heal(state: PqRatchetState) -> bool:
    """Whether the turn is ours with healing still to come: what was under way at the call has just completed."""
    return state.turn.healing and type(state.turn.phase) is ProposeIdle


def _is_due(state: PqRatchetState, now: int) -> bool:
    turn = state.turn
    by_number = state.sent + state.received >= PQ_PROPOSAL_MESSAGES
    return by_number or turn.asked or turn.healing or now - turn.entered_at >= PQ_PROPOSAL_AGE_MS


def _is_attached(state: PqRatchetState, now: int) -> bool:
    turn, count = state.turn, state.sent + 1
    by_number = count in _ATTACHED or count % _ATTACHED_EVERY == 0
    return by_number or turn.asked or turn.again or turn.healing or now - turn.attached_at >= PQ_ATTACH_AGE_MS


def _report(state: PqRatchetState) -> PqRatchetState:
    """Return the state once the application is to be told that the epoch does not progress."""
    if state.turn.reported or type(state.turn.phase) is ProposeIdle:
        return state
    return state._replace(turn=state.turn._replace(reported=True))


def _payload(phase: PqPhase) -> tuple[int, bytes]:
    """Return the type and the payload of a phase that attaches one."""
    match phase:
        case Offering(payload=payload):
            return PqPayloadType.ENCAPSULATION_KEY, payload
        case Answering(payload=payload):
            return PqPayloadType.CIPHERTEXT, payload
        case ProposeIdle() | Waiting():
            return PqPayloadType.NONE, b""
        case _:
            assert_never(phase)


def _propose(state: PqRatchetState, now: int, rng: Rng) -> PqRatchetState:
    """ProposeIdle -> Offering: make an encapsulation key."""
    seed = RatchetKemSeed.generate(rng)
    ek = seed.encapsulation_key().raw
    offering = Offering(seed, ek + _mac(state.authentication_key, EK_LABEL, state.epoch, ek))
    return _enter(state, offering, now, asked=state.turn.asked, fresh=state.turn.healing)


def _judge(state: PqRatchetState, header: Header, now: int, encapsulate: RatchetEncapsulate) -> PqRatchetState:
    """Take the step that a payload of the current epoch causes. Whatever is not named here no honest peer sends."""
    _, _, pq_type, payload = header
    match pq_type, state.turn.phase:
        case PqPayloadType.ENCAPSULATION_KEY, Waiting():
            return _answer(state, payload, now, encapsulate)
        case PqPayloadType.ENCAPSULATION_KEY, Answering(accepted=accepted) if accepted == sha256(payload):
            return state._replace(turn=state.turn._replace(again=True))
        case PqPayloadType.CIPHERTEXT, Offering() as offering:
            return _conclude(state, payload, now, offering)
        case PqPayloadType.REQUEST, ProposeIdle() | Offering():
            return state._replace(turn=state.turn._replace(asked=True))
        case _:
            raise AuthenticationError


def _answer(state: PqRatchetState, payload: bytes, now: int, encapsulate: RatchetEncapsulate) -> PqRatchetState:
    """Waiting -> Answering: encapsulate to the peer's key."""
    ek, tag = payload[:-MAC_LENGTH], payload[-MAC_LENGTH:]
    _check(tag, _mac(state.authentication_key, EK_LABEL, state.epoch, ek))
    try:
        shared_secret, ct = encapsulate(RatchetEncapsulationKey.from_bytes(ek))
    except InvalidPublicKeyError:
        raise AuthenticationError from None
    keys = _derive(state, shared_secret, ek, ct)
    answer = ct + _mac(keys.authentication_key, CT_LABEL, state.epoch, ct)
    answering = Answering(answer, sha256(payload), keys.sending)
    return _enter(_with_keys(state, keys), answering, now, fresh=state.turn.healing)


def _conclude(state: PqRatchetState, payload: bytes, now: int, offering: Offering) -> PqRatchetState:
    """Offering -> Waiting: decapsulate the peer's answer."""
    ct, tag = payload[:-MAC_LENGTH], payload[-MAC_LENGTH:]
    keys = _derive(state, offering.seed.decapsulate(ct), offering.payload[:-MAC_LENGTH], ct)
    _check(tag, _mac(keys.authentication_key, CT_LABEL, state.epoch, ct))
    return _complete(_with_keys(state, keys), keys.sending, Waiting(), now)


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
    state = state._replace(turn=turn._replace(healing=turn.healing and not healed))
    return _enter(state, phase, now)._replace(sending=sending, epoch=state.epoch + 1)


def _enter(
    state: PqRatchetState, phase: PqPhase, now: int, *, asked: bool = False, fresh: bool = False
) -> PqRatchetState:
    turn = PqTurn(phase, now, 0, asked, again=False, healing=state.turn.healing, fresh=fresh, reported=False)
    return state._replace(sent=0, received=0, turn=turn)


def _mac(key: PqAuthenticationKey, label: bytes, epoch: int, data: bytes) -> bytes:
    return mac(key.expose(), label, epoch.to_bytes(4, "big") + data)


def _check(tag: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(tag, expected):
        raise AuthenticationError
