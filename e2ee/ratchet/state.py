"""The state of both ratchets, as values.

Owns: the named tuples. They nest by meaning, so a step makes anew only what it changes.
Does not know about: the steps.
"""

from typing import Final, NamedTuple

from e2ee.private_keys import (
    ChainKey,
    PqAuthenticationKey,
    PqChainKey,
    PqRootKey,
    RatchetKeyPair,
    RootKey,
)
from e2ee.wire.public_keys import RatchetPublicKey

new_record: Final = tuple.__new__
"""`new_record(SendingChain, (key, index))` is `SendingChain(key, index)` in less than half the time.

For the steps that every message takes, and nowhere else: the named constructor checks the number of fields.
"""


class SendingChain(NamedTuple):
    """CKs and Ns."""

    key: ChainKey
    next_index: int


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
    closed_ratchet_keys: tuple[RatchetPublicKey, ...]
    """Their last 64 closed ratchet keys, oldest first: tell a duplicate from a new chain."""


class PqChain(NamedTuple):
    """One direction of one post-quantum epoch: its chain key and the next index."""

    key: PqChainKey
    next_index: int


class PqReceivingChain(NamedTuple):
    """A receiving chain with the epoch that it belongs to."""

    epoch: int
    key: PqChainKey
    next_index: int


class PqRatchetState(NamedTuple):
    """The post-quantum ratchet (protocol.md section 7.3)."""

    root_key: PqRootKey
    authentication_key: PqAuthenticationKey
    """AK of the newest epoch."""
    epoch: int
    """e: the epoch being agreed on. Sending uses e - 1."""
    sending: PqChain
    receiving: tuple[PqReceivingChain, ...]
    """Receiving chains, oldest epoch first."""


class RatchetState(NamedTuple):
    """Both ratchets of one session."""

    double: DoubleRatchetState
    pq: PqRatchetState
