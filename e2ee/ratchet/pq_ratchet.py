"""The post-quantum ratchet beside the Double Ratchet (protocol.md section 7.3).

    ROOT(e, RK, ss, bind) = HKDF-SHA-512(salt = RK, IKM = ss, info = "E2EE/1 PQ root" || u32 e || bind, L = 128)
                            -> RK' || CK initiator->responder || CK responder->initiator || AK
    epoch 0 = ROOT(0, 32 zero bytes, SK_pq, "")

Owns: the epochs' chains and which key a message gets from them.
Does not know about: the Double Ratchet, AEAD, storage.

This release runs epoch 0 only and proposes no further one, so a message that names a later epoch is refused, and so is
one that carries a payload, after its authentication; the bytes of both are laid out already (wire/message.py).
"""

from typing import Final, NamedTuple

from e2ee.errors import EpochUnknownError, UnsupportedVersionError
from e2ee.limits import MAX_SKIP
from e2ee.primitives import kdf
from e2ee.private_keys import PqAuthenticationKey, PqChainKey, PqMessageKey, PqRootKey, SharedSecret
from e2ee.ratchet import chains
from e2ee.ratchet.skipped_keys import FindSkipped, Ratchet, SkippedKey, SkippedPosition, take
from e2ee.ratchet.state import PqChain, PqRatchetState, PqReceivingChain, new_record
from e2ee.wire.message import PqPayloadType

PQ_ROOT_INFO: Final = b"E2EE/1 PQ root"
"""Domain separation; changing it is a wire break."""


class PqHeader(NamedTuple):
    """The post-quantum part of a ratchet message's header."""

    epoch: int
    chain_index: int


class PqSending(NamedTuple):
    """The outcome of a send step."""

    state: PqRatchetState
    header: PqHeader
    message_key: PqMessageKey


class PqReceiving(NamedTuple):
    """The outcome of a receive step, to be committed only after the message authenticated."""

    state: PqRatchetState
    message_key: PqMessageKey
    skipped: tuple[SkippedKey, ...]
    used: SkippedPosition | None


def start(pq_secret: SharedSecret, *, initiator: bool) -> PqRatchetState:
    """Start at epoch 0 from SK_pq."""
    output = kdf.hkdf_sha512(bytes(32), pq_secret.expose(), PQ_ROOT_INFO + bytes(4), 128)
    root_key, to_responder, to_initiator, authentication_key = (output[at : at + 32] for at in (0, 32, 64, 96))
    sending, receiving = (to_responder, to_initiator) if initiator else (to_initiator, to_responder)
    return PqRatchetState(
        root_key=PqRootKey(root_key),
        authentication_key=PqAuthenticationKey(authentication_key),
        epoch=1,
        sending=PqChain(PqChainKey(sending), 0),
        receiving=(PqReceivingChain(0, PqChainKey(receiving), 0),),
    )


def send(state: PqRatchetState) -> PqSending:
    """Return the next message key of the sending epoch, e - 1."""
    index = state.sending.next_index
    chain_key, message_key = kdf.kdf_pair(state.sending.key.expose(), chains.PQ_CHAIN + index.to_bytes(4, "big"))
    sending = new_record(PqChain, (PqChainKey(chain_key), index + 1))
    advanced = new_record(PqRatchetState, (*state[:3], sending, state.receiving))
    header = new_record(PqHeader, (state.epoch - 1, index))
    return new_record(PqSending, (advanced, header, PqMessageKey(message_key)))


def receive(state: PqRatchetState, header: PqHeader, find: FindSkipped, max_skip: int = MAX_SKIP) -> PqReceiving:
    """Return the key of a received message.

    Raises:
        EpochUnknownError: an epoch that this state does not hold.
        DuplicateMessageError, KeyEvictedError: an earlier index whose key is used up or was dropped.
        TooManySkippedError: the header skips more than `max_skip`.
    """
    epoch, index = header
    chain = _chain_of(state, epoch)
    skipped: tuple[SkippedKey, ...] = ()
    at_index = chain.key.expose()
    if index != chain.next_index:
        origin = (Ratchet.POST_QUANTUM, epoch.to_bytes(4, "big"))
        if index < chain.next_index:
            position = SkippedPosition(*origin, index)
            return PqReceiving(state, PqMessageKey(take(find, position)), (), position)
        at_index, skipped = chains.skip(at_index, chain.next_index, index, origin, max_skip)
    chain_key, message_key = kdf.kdf_pair(at_index, chains.PQ_CHAIN + index.to_bytes(4, "big"))
    advanced = new_record(PqReceivingChain, (epoch, PqChainKey(chain_key), index + 1))
    receiving = tuple([advanced if each is chain else each for each in state.receiving])
    state = new_record(PqRatchetState, (*state[:4], receiving))
    return new_record(PqReceiving, (state, PqMessageKey(message_key), skipped, None))


def _chain_of(state: PqRatchetState, epoch: int) -> PqReceivingChain:
    for chain in reversed(state.receiving):
        if chain.epoch == epoch:
            return chain
    raise EpochUnknownError(epoch)


def judge_payload(payload_type: int) -> None:
    """Judge the payload of a message that has authenticated.

    Raises:
        UnsupportedVersionError: any payload: this release takes no turn.
    """
    if payload_type != PqPayloadType.NONE:
        raise UnsupportedVersionError("post-quantum payload", payload_type)
