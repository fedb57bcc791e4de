"""The Double Ratchet (Signal's specification, revision 4, section 3), as a state machine over values.

    KDF_RK(RK, DH) = HKDF-SHA-512(salt = RK, IKM = DH, info = "E2EE/1 root", L = 64) -> RK' || CK

Owns: when the ratchet turns, which key a message gets.
Does not know about: AEAD, the post-quantum ratchet, storage. An independent implementation can check it alone.

Each function takes a state and returns the next; a call that raises has changed nothing. Outcomes are plain tuples,
which the caller takes apart at once: a named one for each step of a message takes a tenth of the message's time.
"""

from typing import Final, NamedTuple

from e2ee.errors import AuthenticationError
from e2ee.limits import MAX_CLOSED_RATCHET_KEYS, MAX_SKIP
from e2ee.primitives.kdf import hkdf_sha512, kdf_pair
from e2ee.primitives.rng import Rng
from e2ee.private_keys import PreKeyPair, RatchetKeyPair, RootKey, SharedSecret, diffie_hellman
from e2ee.ratchet import chains
from e2ee.ratchet.chains import CHAIN
from e2ee.ratchet.skipped_keys import FindSkipped, Ratchet, SkippedPosition, take
from e2ee.ratchet.state import ChainKey, DoubleRatchetState, ReceivingChain, SendingChain, new_record
from e2ee.wire.public_keys import PreKeyPublicKey, RatchetPublicKey

ROOT_KDF_INFO: Final = b"E2EE/1 root"
"""Domain separation; changing it is a wire break."""


class DoubleRatchetHeader(NamedTuple):
    """HEADER of Double Ratchet section 3.1: ratchet key, PN, N."""

    ratchet_key: RatchetPublicKey
    previous_chain_length: int
    chain_index: int


Header = tuple[RatchetPublicKey, int, int]
"""What a receive step reads of a header: a `DoubleRatchetHeader`, or its fields."""


Sending = tuple[DoubleRatchetState, bytes, RatchetPublicKey, int, int]
"""The outcome of a send step: the next state, the message's key (32 bytes, secret), and the fields of its header."""

Receiving = tuple[DoubleRatchetState, bytes, tuple[chains.Gap, ...], SkippedPosition | None]
"""The outcome of a receive step, to be committed only after the message authenticated: the next state, the message's
key (32 bytes, secret), what it overtook, and the entry of the map that it used up."""


def start_as_initiator(root_key: RootKey, their_signed_prekey: PreKeyPublicKey) -> DoubleRatchetState:
    """Start with the responder's signed prekey as its first ratchet key (section 3.3)."""
    return DoubleRatchetState(root_key, None, None, RatchetPublicKey(their_signed_prekey.raw), None, 0, ())


def start_as_responder(root_key: RootKey, our_signed_prekey: PreKeyPair) -> DoubleRatchetState:
    """Start with our signed prekey as our first ratchet key (section 3.3). Cannot send before it received."""
    return DoubleRatchetState(root_key, RatchetKeyPair(our_signed_prekey.private), None, None, None, 0, ())


def send(state: DoubleRatchetState, rng: Rng) -> Sending:
    """Return the key of the next message; turns the ratchet if the last step was a receive (section 3.4).

    Raises:
        InvalidPublicKeyError: their ratchet key is of low order.
    """
    root_key, pair, sending, theirs, receiving, previous, closed = state
    if pair is None or sending is None:
        root_key, pair, sending = _turn_for_sending(state, rng)
    key, index = sending
    chain_key, message_key = kdf_pair(key, CHAIN)
    advanced = new_record(SendingChain, (chain_key, index + 1))
    state = new_record(DoubleRatchetState, (root_key, pair, advanced, theirs, receiving, previous, closed))
    return state, message_key, pair.public, previous, index


def receive(state: DoubleRatchetState, header: Header, find: FindSkipped, max_skip: int = MAX_SKIP) -> Receiving:
    """Return the key of a received message (section 3.5).

    Raises:
        DuplicateMessageError, KeyEvictedError: an earlier index whose key is used up or was dropped.
        TooManySkippedError: the header skips more than `max_skip` in the old or in the new chain.
        AuthenticationError: an unknown ratchet key that no honest peer can have made yet.
        InvalidPublicKeyError: the ratchet key is of low order.
    """
    chain, (ratchet_key, _, index) = state.receiving, header
    if chain is not None and ratchet_key.raw == chain.ratchet_key.raw:
        if index >= chain.next_index:
            return _receive_on(state, chain, index, (), max_skip)
        return _receive_skipped(state, header, find)
    if ratchet_key.raw in state.closed_ratchet_keys or find(_position(header)) is not None:
        return _receive_skipped(state, header, find)
    return _receive_after_turn(state, header, max_skip)


def knows(state: DoubleRatchetState, header: Header, find: FindSkipped) -> bool:
    """Whether the header's chain belongs to this state, so that no other session can have sent it."""
    ratchet_key, _, _ = header
    if state.receiving is not None and ratchet_key.raw == state.receiving.ratchet_key.raw:
        return True
    return ratchet_key.raw in state.closed_ratchet_keys or find(_position(header)) is not None


def _position(header: Header) -> SkippedPosition:
    ratchet_key, _, index = header
    return SkippedPosition(Ratchet.DOUBLE, ratchet_key.raw, index)


def _receive_skipped(state: DoubleRatchetState, header: Header, find: FindSkipped) -> Receiving:
    position = _position(header)
    return state, take(find, position), (), position


def _receive_on(
    state: DoubleRatchetState, chain: ReceivingChain, index: int, earlier: tuple[chains.Gap, ...], max_skip: int
) -> Receiving:
    at_index: bytes
    ratchet_key, at_index, next_index = chain
    gaps = earlier
    if index != next_index:
        origin = (Ratchet.DOUBLE, ratchet_key.raw)
        at_index, overtaken = chains.skip(at_index, next_index, index, origin, max_skip)
        gaps += overtaken
    chain_key, message_key = kdf_pair(at_index, CHAIN)
    receiving = new_record(ReceivingChain, (ratchet_key, chain_key, index + 1))
    root_key, pair, sending, theirs, _, previous, closed = state
    state = new_record(DoubleRatchetState, (root_key, pair, sending, theirs, receiving, previous, closed))
    return state, message_key, gaps, None


def _receive_after_turn(state: DoubleRatchetState, header: Header, max_skip: int) -> Receiving:
    if state.our_ratchet_key_pair is None:
        # The peer changes its key only after seeing our next one, which we have not sent yet: nobody honest made this.
        raise AuthenticationError
    ratchet_key, previous, index = header
    gaps: tuple[chains.Gap, ...] = ()
    old = state.receiving
    closed = state.closed_ratchet_keys
    if old is not None:
        origin = (Ratchet.DOUBLE, old.ratchet_key.raw)
        gaps = chains.gap(old.key, old.next_index, previous, origin, max_skip)
        closed = (*closed, old.ratchet_key.raw)[-MAX_CLOSED_RATCHET_KEYS:]
    shared_secret = diffie_hellman(state.our_ratchet_key_pair, ratchet_key)
    root_key, chain_key = _root_step(state.root_key, shared_secret)
    turned = DoubleRatchetState(
        root_key=root_key,
        our_ratchet_key_pair=None,
        sending=None,
        their_ratchet_key=ratchet_key,
        receiving=None,
        previous_chain_length=state.sending.next_index if state.sending else 0,
        closed_ratchet_keys=closed,
    )
    return _receive_on(turned, ReceivingChain(ratchet_key, chain_key, 0), index, gaps, max_skip)


def _turn_for_sending(state: DoubleRatchetState, rng: Rng) -> tuple[RootKey, RatchetKeyPair, SendingChain]:
    """DHRatchet's second half (section 3.5), made on the send so that the new private key lives as short as it can."""
    if state.their_ratchet_key is None:
        raise ValueError("a responder receives before it sends")
    pair = RatchetKeyPair.generate(rng)
    root_key, chain_key = _root_step(state.root_key, diffie_hellman(pair, state.their_ratchet_key))
    return root_key, pair, SendingChain(chain_key, 0)


def _root_step(root_key: RootKey, shared_secret: SharedSecret) -> tuple[RootKey, ChainKey]:
    """KDF_RK: return the next root key and a chain key."""
    output = hkdf_sha512(root_key.expose(), shared_secret.expose(), ROOT_KDF_INFO, 64)
    return RootKey(output[:32]), ChainKey(output[32:])
