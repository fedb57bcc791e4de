"""The post-quantum ratchet beside the Double Ratchet: its chains (protocol.md section 7.3).

    ROOT(e, RK, ss, bind) = HKDF-SHA-512(salt = RK, IKM = ss, info = "E2EE/1 PQ root" || u32 e || bind, L = 128)
                            -> RK' || CK initiator->responder || CK responder->initiator || AK
    epoch 0 = ROOT(0, 32 zero bytes, SK_pq, "");   bind_e = SHA-256(ek) || SHA-256(ct)

Owns: which key a message gets, which chains are kept.
Does not know about: how epochs are agreed on (pq_turns.py), the Double Ratchet, AEAD, storage.

Each function takes a state and returns the next; a call that raises has changed nothing. Outcomes are plain tuples, as
those of the Double Ratchet.
"""

from itertools import dropwhile
from typing import Final, NamedTuple

from e2ee.errors import EpochUnknownError, KeyEvictedError
from e2ee.limits import CLOSED_EPOCH_LIFETIME_MS, CLOSED_EPOCH_RECEIVES, MAX_CLOSED_EPOCHS, MAX_SKIP
from e2ee.primitives.kdf import hkdf_sha512, kdf_pair
from e2ee.private_keys import PqAuthenticationKey, PqRootKey, SharedSecret
from e2ee.ratchet import chains
from e2ee.ratchet.chains import PQ_CHAIN
from e2ee.ratchet.skipped_keys import FindSkipped, Ratchet, SkippedPosition, take
from e2ee.ratchet.state import (
    ClosedPqChain,
    PqChain,
    PqChainKey,
    PqRatchetState,
    PqReceivingChain,
    PqTurn,
    ProposeIdle,
    Waiting,
    new_record,
)

PQ_ROOT_INFO: Final = b"E2EE/1 PQ root"
"""Domain separation; changing it is a wire break."""


class PqHeader(NamedTuple):
    """The post-quantum part of a message's header."""

    pq_epoch: int
    pq_index: int
    pq_type: int = 0
    pq_payload: bytes = b""

    def __repr__(self) -> str:
        return f"PqHeader({self.pq_epoch}/{self.pq_index}, payload type {self.pq_type})"


Header = tuple[int, int, int, bytes]
"""What both receive steps read of a header: a `PqHeader`, or its fields."""


PqSending = tuple[PqRatchetState, bytes, int, int]
"""The outcome of a send step: the next state, the message's key (32 bytes, secret), its epoch (e - 1) and index."""

PqReceiving = tuple[PqRatchetState, bytes, tuple[chains.Gap, ...], SkippedPosition | None]
"""The outcome of a receive step, to be committed only after the message authenticated: the next state, the message's
key (32 bytes, secret), what it overtook, and the entry of the map that it used up."""


class EpochKeys(NamedTuple):
    """What ROOT gives, the two chains told apart as ours and theirs."""

    root_key: PqRootKey
    authentication_key: PqAuthenticationKey
    sending: PqChain
    receiving: PqReceivingChain


def start(pq_secret: SharedSecret, *, initiator: bool, now: int) -> PqRatchetState:
    """Start at epoch 0 from SK_pq; the session's initiator has the first turn. `now` is Unix milliseconds."""
    keys = derive_epoch(0, (PqRootKey(bytes(32)), pq_secret), b"", initiator=initiator)
    phase = ProposeIdle() if initiator else Waiting()
    return PqRatchetState(
        sent=0,
        received=0,
        sending=keys.sending,
        receiving=(keys.receiving,),
        closed=(),
        turn=PqTurn(phase, now, 0, asked=False, again=False, healing=False, fresh=False, reported=False),
        epoch=1,
        root_key=keys.root_key,
        authentication_key=keys.authentication_key,
        initiator=initiator,
    )


def derive_epoch(epoch: int, secrets: tuple[PqRootKey, SharedSecret], bind: bytes, *, initiator: bool) -> EpochKeys:
    """ROOT: the keys of an epoch from (RK, ss); `bind` is 64 bytes, for epoch 0 empty."""
    root_key, shared_secret = secrets
    info = PQ_ROOT_INFO + epoch.to_bytes(4, "big") + bind
    output = hkdf_sha512(root_key.expose(), shared_secret.expose(), info, 128)
    sending, receiving = output[32:64], output[64:96]
    if not initiator:
        sending, receiving = receiving, sending
    return EpochKeys(
        PqRootKey(output[:32]),
        PqAuthenticationKey(output[96:]),
        PqChain(PqChainKey(sending), 0),
        PqReceivingChain(epoch, PqChainKey(receiving), 0),
    )


def send(state: PqRatchetState) -> PqSending:
    """Count the next message and return its key."""
    sent, received, sending, receiving, closed, turn, epoch, root_key, authentication_key, initiator = state
    key, index = sending
    chain_key, message_key = kdf_pair(key, PQ_CHAIN + index.to_bytes(4, "big"))
    advanced = new_record(PqChain, (chain_key, index + 1))
    counted = new_record(
        PqRatchetState,
        (sent + 1, received, advanced, receiving, closed, turn, epoch, root_key, authentication_key, initiator),
    )
    return counted, message_key, epoch - 1, index


def receive(state: PqRatchetState, header: Header, find: FindSkipped, max_skip: int = MAX_SKIP) -> PqReceiving:
    """Count a received message and return its key.

    Raises:
        EpochUnknownError: an epoch above the newest chain's.
        DuplicateMessageError, KeyEvictedError: an earlier index whose key is used up or was dropped.
        TooManySkippedError: the header skips more than `max_skip`.
    """
    epoch, index, _, _ = header
    open_chains = state.receiving
    newest, oldest = open_chains[-1], open_chains[0]
    chain = newest if newest.epoch == epoch else oldest if oldest.epoch == epoch else _closed_chain(state, epoch)
    if chain is None or index < chain.next_index:
        position = SkippedPosition(Ratchet.POST_QUANTUM, epoch.to_bytes(4, "big"), index)
        key = _skipped(find, position, gone=chain is None)
        return state._replace(received=state.received + 1), key, (), position
    gaps: tuple[chains.Gap, ...] = ()
    at_index: bytes
    _, at_index, next_index = chain
    if index != next_index:
        origin = (Ratchet.POST_QUANTUM, epoch.to_bytes(4, "big"))
        at_index, gaps = chains.skip(at_index, next_index, index, origin, max_skip)
    chain_key, message_key = kdf_pair(at_index, PQ_CHAIN + index.to_bytes(4, "big"))
    advanced = new_record(PqReceivingChain, (epoch, chain_key, index + 1))
    if chain is oldest:
        open_chains = (advanced,) if newest is oldest else (advanced, newest)
    elif chain is newest:
        open_chains = (oldest, advanced)
    else:
        state = _advance_closed(state, advanced)
    sent, received, sending, _, closed, turn, current, root_key, authentication_key, initiator = state
    counted = new_record(
        PqRatchetState,
        (sent, received + 1, sending, open_chains, closed, turn, current, root_key, authentication_key, initiator),
    )
    return counted, message_key, gaps, None


def close_chains(state: PqRatchetState, epoch: int, now: int, receives: int) -> PqRatchetState:
    """Close what the peer left when it sent a message of `epoch`, and drop what was closed too many messages ago."""
    if state.receiving[0].epoch >= epoch:
        return state
    closing = tuple(ClosedPqChain(each, now, receives) for each in state.receiving if each.epoch < epoch)
    kept = [each for each in state.closed if receives - each.closed_receives <= CLOSED_EPOCH_RECEIVES]
    return state._replace(
        receiving=tuple(each for each in state.receiving if each.epoch >= epoch),
        closed=(*kept, *closing)[-MAX_CLOSED_EPOCHS:],
    )


def forget_closed(state: PqRatchetState, now: int) -> PqRatchetState:
    """Drop the chains that were closed more than 7 days before `now`, from the oldest on.

    Call it only after the inbox was drained once since coming online: their messages may be waiting there.
    """
    kept = tuple(dropwhile(lambda each: now - each.closed_at > CLOSED_EPOCH_LIFETIME_MS, state.closed))
    return state if kept == state.closed else state._replace(closed=kept)


def _closed_chain(state: PqRatchetState, epoch: int) -> PqReceivingChain | None:
    """Return the closed chain of an epoch; None if it is gone."""
    if epoch > state.receiving[-1].epoch:
        raise EpochUnknownError(epoch)
    return next((each.chain for each in state.closed if each.chain.epoch == epoch), None)


def _advance_closed(state: PqRatchetState, advanced: PqReceivingChain) -> PqRatchetState:
    epoch = advanced.epoch
    closed = (each._replace(chain=advanced) if each.chain.epoch == epoch else each for each in state.closed)
    return state._replace(closed=tuple(closed))


def _skipped(find: FindSkipped, position: SkippedPosition, *, gone: bool) -> bytes:
    """Look an earlier message up. Of a chain that is gone nobody can tell whether its key was used."""
    if gone and not isinstance(find(position), bytes):
        raise KeyEvictedError
    return take(find, position)
