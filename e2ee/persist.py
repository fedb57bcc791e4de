"""Versioned serialisation of what a device keeps: the only explicit way out for secrets.

Owns: the bytes of accounts, prekeys and sessions at rest. Each opens with the version of its layout; an absent or
unknown version is an error, never a guess.
Does not know about: tables, encryption at rest (stores/).

Whatever fails to decode here was authenticated by the store, so it is `CorruptStateError`, not a peer's fault.
"""

from collections.abc import Callable
from typing import TypeVar, assert_never

from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.errors import CorruptStateError, ProtocolError
from e2ee.limits import MAX_CLOSED_RATCHET_KEYS
from e2ee.pqxdh import Party
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PqAuthenticationKey,
    PqRootKey,
    PreKeyPair,
    RatchetKemSeed,
    RatchetKeyPair,
    RootKey,
    SeedBytes32,
    SeedBytes64,
)
from e2ee.ratchet.state import (
    Answering,
    ChainKey,
    ClosedPqChain,
    DoubleRatchetState,
    Offering,
    PqChain,
    PqChainKey,
    PqPhase,
    PqRatchetState,
    PqReceivingChain,
    PqTurn,
    ProposeIdle,
    RatchetState,
    ReceivingChain,
    SendingChain,
    Waiting,
)
from e2ee.session import Session, SessionOrigin
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import DeviceAddress, PreKeyId
from e2ee.wire.message import PQ_PAYLOAD_LENGTHS, HandshakeHeader, PqPayloadType
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey, RatchetPublicKey

_ACCOUNT_VERSION = 1
_PREKEY_VERSION = 1
_SESSION_VERSION = 2

T = TypeVar("T")


def encode_account(account: Account) -> bytes:
    """Return the account with its private keys."""
    writer = Writer().u8(_ACCOUNT_VERSION).raw(account.address.encode())
    writer.raw(account.account_key_pair.seed.expose()).raw(account.device_signing_key_pair.seed.expose())
    return writer.raw(account.identity_key_pair.private.expose()).finish()


def decode_account(data: bytes) -> Account:
    """Parse an account.

    Raises:
        CorruptStateError: it does not decode, or has another layout version.
    """
    return _decode("account", _ACCOUNT_VERSION, data, _read_account)


def encode_prekey(prekey: OwnPreKey) -> bytes:
    """Return a prekey with its private half; public keys are derived again when needed."""
    secret = prekey.pair.seed if isinstance(prekey.pair, KemPreKeyPair) else prekey.pair.private
    writer = Writer().u8(_PREKEY_VERSION).u8(prekey.kind).u32(prekey.prekey_id).u64(prekey.created_at)
    writer.u8(prekey.published).u8(prekey.replaced_at is not None).u64(prekey.replaced_at or 0)
    return writer.raw(secret.expose()).finish()


def decode_prekey(data: bytes) -> OwnPreKey:
    """Parse a prekey.

    Raises:
        CorruptStateError: it does not decode, or has another layout version.
    """
    return _decode("prekey", _PREKEY_VERSION, data, _read_prekey)


def encode_session(session: Session) -> bytes:
    """Return a session without its skipped keys, which are rows of their own."""
    origin, double, pq = session.origin, session.ratchets.double, session.ratchets.pq
    writer = Writer().u8(_SESSION_VERSION)
    _write_origin(writer, origin)
    writer.u8(session.dead).u8(session.owes_answer).u64(session.receives)
    pending = session.pending_handshake
    writer.bytes16(pending.encode() if pending else b"")
    _write_double(writer, double)
    _write_pq(writer, pq)
    return writer.finish()


def decode_session(data: bytes) -> Session:
    """Parse a session.

    Raises:
        CorruptStateError: it does not decode, or has another layout version.
    """
    return _decode("session", _SESSION_VERSION, data, _read_session)


def _decode(what: str, version: int, data: bytes, read: Callable[[Reader], T]) -> T:
    reader = Reader(data)
    try:
        found = reader.u8()
        if found != version:
            raise CorruptStateError(f"{what} has layout version {found}, not {version}")
        value = read(reader)
        reader.finish()
    except (ProtocolError, ValueError):
        raise CorruptStateError(f"{what} does not decode") from None
    return value


def _read_account(reader: Reader) -> Account:
    return Account(
        DeviceAddress.decode(reader),
        AccountKeyPair(SeedBytes32(reader.fixed(32))),
        DeviceSigningKeyPair(SeedBytes32(reader.fixed(32))),
        IdentityKeyPair(SeedBytes32(reader.fixed(32))),
    )


def _read_prekey(reader: Reader) -> OwnPreKey:
    kind, prekey_id, created_at = PreKeyKind(reader.u8()), PreKeyId(reader.u32()), reader.u64()
    published, replaced, replaced_at = reader.flag(), reader.flag(), reader.u64()
    pair: PreKeyPair | KemPreKeyPair
    pair = KemPreKeyPair(SeedBytes64(reader.fixed(64))) if kind.is_kem else PreKeyPair(SeedBytes32(reader.fixed(32)))
    return OwnPreKey(kind, prekey_id, pair, created_at, published, replaced_at if replaced else None)


def _write_origin(writer: Writer, origin: SessionOrigin) -> None:
    peer = origin.peer
    writer.raw(origin.associated_data).raw(peer.address.encode())
    writer.raw(peer.account_key.raw).raw(peer.device_signing_key.raw).raw(peer.identity_key.raw)
    writer.u64(origin.created).raw(origin.handshake_hash).u8(origin.we_initiated).u64(origin.established_at)


def _read_origin(reader: Reader) -> SessionOrigin:
    associated_data, address = reader.fixed(32), DeviceAddress.decode(reader)
    keys = AccountKey.decode(reader), DeviceSigningKey.decode(reader), IdentityKey.decode(reader)
    created, handshake_hash = reader.u64(), reader.fixed(32)
    return SessionOrigin(associated_data, Party(address, *keys), created, handshake_hash, reader.flag(), reader.u64())


def _write_double(writer: Writer, state: DoubleRatchetState) -> None:
    writer.raw(state.root_key.expose())
    pair, sending, receiving, theirs = (
        state.our_ratchet_key_pair,
        state.sending,
        state.receiving,
        state.their_ratchet_key,
    )
    writer.bytes8(pair.private.expose() + pair.public.raw if pair else b"")
    writer.bytes8(sending.key if sending else b"").u32(sending.next_index if sending else 0)
    writer.bytes8(theirs.raw if theirs else b"")
    writer.bytes8(receiving.ratchet_key.raw + receiving.key if receiving else b"")
    writer.u32(receiving.next_index if receiving else 0).u32(state.previous_chain_length)
    writer.u8(len(state.closed_ratchet_keys)).raw(b"".join(state.closed_ratchet_keys))


def _read_double(reader: Reader) -> DoubleRatchetState:
    root_key = RootKey(reader.fixed(32))
    pair, sending_key, sending_index = reader.bytes8(), reader.bytes8(), reader.u32()
    theirs, receiving, receiving_index = reader.bytes8(), reader.bytes8(), reader.u32()
    previous_chain_length, closed = reader.u32(), reader.u8()
    if len(sending_key) not in (0, 32) or len(receiving) not in (0, 64):
        raise CorruptStateError("session has a chain key of another length")
    if closed > MAX_CLOSED_RATCHET_KEYS:
        raise CorruptStateError("session has too many closed ratchet keys")
    return DoubleRatchetState(
        root_key=root_key,
        our_ratchet_key_pair=_ratchet_key_pair(pair) if pair else None,
        sending=SendingChain(ChainKey(sending_key), sending_index) if sending_key else None,
        their_ratchet_key=RatchetPublicKey(theirs) if theirs else None,
        receiving=_receiving_chain(receiving, receiving_index) if receiving else None,
        previous_chain_length=previous_chain_length,
        closed_ratchet_keys=tuple(reader.fixed(32) for _ in range(closed)),
    )


def _ratchet_key_pair(data: bytes) -> RatchetKeyPair:
    return RatchetKeyPair.restore(SeedBytes32(data[:32]), RatchetPublicKey(data[32:]))


def _receiving_chain(data: bytes, index: int) -> ReceivingChain:
    return ReceivingChain(RatchetPublicKey(data[:32]), ChainKey(data[32:]), index)


def _write_pq(writer: Writer, state: PqRatchetState) -> None:
    turn = state.turn
    writer.u32(state.epoch).u8(state.initiator).raw(state.root_key.expose()).raw(state.authentication_key.expose())
    writer.raw(state.sending.key).u32(state.sending.next_index)
    writer.u8(len(state.receiving))
    for chain in state.receiving:
        _write_pq_chain(writer, chain)
    writer.u8(len(state.closed))
    for closed in state.closed:
        _write_pq_chain(writer, closed.chain)
        writer.u64(closed.closed_at).u64(closed.closed_receives)
    writer.u32(state.sent).u32(state.received).u64(turn.entered_at).u64(turn.attached_at)
    writer.u8(turn.asked).u8(turn.again).u8(turn.healing).u8(turn.fresh).u8(turn.reported)
    _write_pq_phase(writer, turn.phase)


def _write_pq_chain(writer: Writer, chain: PqReceivingChain) -> None:
    writer.u32(chain.epoch).raw(chain.key).u32(chain.next_index)


def _write_pq_phase(writer: Writer, phase: PqPhase) -> None:
    match phase:
        case ProposeIdle():
            writer.u8(0)
        case Offering(seed=seed, payload=payload):
            writer.u8(1).raw(seed.expose()).raw(payload)
        case Waiting():
            writer.u8(2)
        case Answering(payload=payload, accepted=accepted, sending=sending):
            writer.u8(3).raw(payload).raw(accepted).raw(sending.key).u32(sending.next_index)
        case _:
            assert_never(phase)


def _read_pq(reader: Reader) -> PqRatchetState:
    epoch, initiator = reader.u32(), reader.flag()
    root_key, authentication_key = PqRootKey(reader.fixed(32)), PqAuthenticationKey(reader.fixed(32))
    sending = PqChain(PqChainKey(reader.fixed(32)), reader.u32())
    receiving = tuple(_read_pq_chain(reader) for _ in range(reader.u8()))
    closed = tuple(ClosedPqChain(_read_pq_chain(reader), reader.u64(), reader.u64()) for _ in range(reader.u8()))
    sent, received, entered_at, attached_at = reader.u32(), reader.u32(), reader.u64(), reader.u64()
    asked, again, healing, fresh, reported = (reader.flag() for _ in range(5))
    phase = _read_pq_phase(reader)
    turn = PqTurn(phase, entered_at, attached_at, asked, again, healing, fresh, reported)
    if not receiving:
        raise CorruptStateError("session has no open post-quantum chain")
    keys = root_key, authentication_key
    return PqRatchetState(sent, received, sending, receiving, closed, turn, epoch, *keys, initiator)


def _read_pq_chain(reader: Reader) -> PqReceivingChain:
    return PqReceivingChain(reader.u32(), PqChainKey(reader.fixed(32)), reader.u32())


def _read_pq_phase(reader: Reader) -> PqPhase:
    number = reader.u8()
    match number:
        case 0:
            return ProposeIdle()
        case 1:
            seed = RatchetKemSeed(reader.fixed(RatchetKemSeed.LENGTH))
            return Offering(seed, reader.fixed(PQ_PAYLOAD_LENGTHS[PqPayloadType.ENCAPSULATION_KEY]))
        case 2:
            return Waiting()
        case 3:
            payload, accepted = reader.fixed(PQ_PAYLOAD_LENGTHS[PqPayloadType.CIPHERTEXT]), reader.fixed(32)
            return Answering(payload, accepted, PqChain(PqChainKey(reader.fixed(32)), reader.u32()))
        case _:
            raise CorruptStateError(f"post-quantum phase {number}")


def _read_session(reader: Reader) -> Session:
    origin = _read_origin(reader)
    dead, owes_answer, receives, pending = reader.flag(), reader.flag(), reader.u64(), reader.bytes16()
    handshake = None
    if pending:
        handshake_reader = Reader(pending)
        handshake = HandshakeHeader.decode(handshake_reader)
        handshake_reader.finish()
    ratchets = RatchetState(_read_double(reader), _read_pq(reader), receives)
    return Session(origin, ratchets, handshake, owes_answer, dead)
