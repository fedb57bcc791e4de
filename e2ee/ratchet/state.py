"""The state of both ratchets, as values.

Owns: the named tuples. They nest by meaning, so a step makes anew only what it changes.
Does not know about: the steps.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, NewType, NoReturn, TypeVar, final

from e2ee.private_keys import PqAuthenticationKey, PqRootKey, RatchetKemSeed, RatchetKeyPair, RootKey
from e2ee.wire.public_keys import RatchetPublicKey

new_record: Final = tuple.__new__
"""`new_record(SendingChain, (key, index))` is `SendingChain(key, index)` in less than half the time.

For the steps that every message takes, and nowhere else: the named constructor checks the number of fields.
"""

ChainKey = NewType("ChainKey", bytes)
"""CK of one chain of the Double Ratchet, 32 bytes. Lives only inside the records below, which redact it."""

PqChainKey = NewType("PqChainKey", bytes)
"""CK of one direction of one post-quantum epoch, 32 bytes. Lives only inside the records below, which redact it."""

T = TypeVar("T", bound=type)


def secret_record(record: T) -> T:
    """Make a named tuple that holds a key as plain bytes redact itself and refuse to be pickled or copied.

    For what every message makes anew: a wrapper around each of its keys costs a tenth of the message.
    """

    def redacted(self: object) -> str:
        return f"<{type(self).__name__} redacted>"

    def refuse(self: object, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is serialised by e2ee.persist only")

    record.__repr__ = redacted  # type: ignore[assignment]
    record.__reduce_ex__ = refuse  # type: ignore[assignment, method-assign]
    return record


# --- Double Ratchet ------------------------------------------------------------------------------------------


@secret_record
class SendingChain(NamedTuple):
    """CKs and Ns."""

    key: ChainKey
    next_index: int


@secret_record
class ReceivingChain(NamedTuple):
    """DHr, CKr and Nr."""

    ratchet_key: RatchetPublicKey
    key: ChainKey
    next_index: int


class DoubleRatchetState(NamedTuple):
    """The state variables of Double Ratchet section 3.2, without MKSKIPPED, which is kept apart as rows."""

    root_key: RootKey
    our_ratchet_key_pair: RatchetKeyPair | None
    """DHs. Erased after the Diffie-Hellman of a receive step; the next send makes a new one."""
    sending: SendingChain | None
    """None until the first send, and after a receive step until the next send."""
    their_ratchet_key: RatchetPublicKey | None
    """DHr: what the next sending chain is derived from. None for a responder that received nothing yet."""
    receiving: ReceivingChain | None
    previous_chain_length: int
    """PN: length of our previous sending chain."""
    closed_ratchet_keys: tuple[bytes, ...]
    """Their last 64 closed ratchet keys, 32 public bytes each, oldest first: tell a duplicate from a new chain."""


# --- Post-quantum ratchet (protocol.md section 7.3) ----------------------------------------------------------


@secret_record
class PqChain(NamedTuple):
    """Our direction of one epoch: its chain key and the next index."""

    key: PqChainKey
    next_index: int


@secret_record
class PqReceivingChain(NamedTuple):
    """The peer's direction of one epoch."""

    epoch: int
    key: PqChainKey
    next_index: int


class ClosedPqChain(NamedTuple):
    """A receiving chain that the peer has left, kept for late messages."""

    chain: PqReceivingChain
    closed_at: int
    """Unix milliseconds."""
    closed_receives: int
    """`RatchetState.receives` when it was closed."""


@final
@dataclass(frozen=True, slots=True)
class ProposeIdle:
    """It is our turn, and no proposal is due yet."""


@final
@dataclass(frozen=True, slots=True)
class Offering:
    """We offer an encapsulation key until the answer comes."""

    seed: RatchetKemSeed
    payload: bytes = field(repr=False)
    """ek and its mac, 1,216 bytes."""


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """It is the peer's turn."""


@final
@dataclass(frozen=True, slots=True)
class Answering:
    """We have encapsulated, and send the answer until a message of the new epoch shows that it arrived."""

    payload: bytes = field(repr=False)
    """ct and its mac, 1,120 bytes."""

    accepted: bytes = field(repr=False)
    """SHA-256 of the payload that we answer, 32 bytes."""

    sending: PqChain
    """Our chain of the new epoch."""


PqPhase = ProposeIdle | Offering | Waiting | Answering


class PqTurn(NamedTuple):
    """Where the agreement on the next epoch stands."""

    phase: PqPhase
    entered_at: int
    """Unix milliseconds."""
    attached_at: int
    """When a payload was last attached in this phase, Unix milliseconds; 0 before."""
    asked: bool
    """The peer asked for our turn: our proposal is due, and attached to every message."""
    again: bool
    """The peer repeated its proposal, so it lacks our answer: the next message carries it."""
    healing: bool
    """Healing was asked for here, and no epoch has completed with something made since."""
    fresh: bool
    """Our part in this epoch was made while `healing` was set."""
    reported: bool
    """It was reported that this phase does not end."""


class PqRatchetState(NamedTuple):
    """The post-quantum ratchet."""

    sent: int
    """Messages encrypted in this phase. This and the next are here and not in the turn because every message counts."""
    received: int
    """Messages authenticated in this phase."""
    sending: PqChain
    """Of epoch e - 1."""
    receiving: tuple[PqReceivingChain, ...]
    """The open ones, one or two, oldest epoch first."""
    closed: tuple[ClosedPqChain, ...]
    """Oldest epoch first; with the open ones no epoch is missing between."""
    turn: PqTurn
    epoch: int
    """e: the epoch being agreed on."""
    root_key: PqRootKey
    authentication_key: PqAuthenticationKey
    """RK and AK of the newest epoch that was agreed on: e - 1, in `Answering` e."""
    initiator: bool
    """Whether we started the session: which of an epoch's two chains is ours."""


class RatchetState(NamedTuple):
    """Both ratchets of one session."""

    double: DoubleRatchetState
    pq: PqRatchetState
    receives: int = 0
    """Messages authenticated so far; ages skipped keys and closed chains."""


Ratchets = tuple[DoubleRatchetState, PqRatchetState, int]
"""A `RatchetState`, or its fields, as they come out of each message."""
