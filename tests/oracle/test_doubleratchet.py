"""The Double Ratchet against an independent implementation: `doubleratchet` by Tim Henkes (MIT), from PyPI.

It shares no code with ours, and its Diffie-Hellman and HKDF come from another library. It is told our two key
derivations. Compared are headers, message keys, and whether a message is accepted; how an implementation words a
refusal is its own matter.

Where the two differ, and why that changes no outcome:

| situation | the oracle | ours |
|---|---|---|
| the new ratchet key pair | is made on receiving | is made on the next send, so the private key lives shorter |
| a replay from a closed chain | derives a wrong key: authentication fails | names it a duplicate |
| an unknown ratchet key before our next send | derives a wrong key: authentication fails | refuses without computing |
| the signed prekey as ratchet key of a reply | stops: there is no such chain | derives a key nobody honest has |
| too large a gap in the previous chain | warns and goes on; warnings are errors here | refuses |
"""

import warnings
from collections.abc import Callable, Coroutine
from hashlib import blake2b, sha256
from random import Random
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import pytest
from doubleratchet import AEAD, KDF, AuthenticationFailedException, DoubleRatchet, EncryptedMessage, Header
from doubleratchet.diffie_hellman_ratchet import DoSProtectionException, DuplicateMessageException
from doubleratchet.recommended import HashFunction, diffie_hellman_ratchet_curve25519 as curve25519, kdf_hkdf
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from e2ee.errors import ProtocolError
from e2ee.limits import MAX_SKIP
from e2ee.private_keys import PreKeyPair, RootKey, SeedBytes32
from e2ee.ratchet import double_ratchet
from e2ee.ratchet.double_ratchet import DoubleRatchetHeader
from e2ee.ratchet.skipped_keys import SkippedPosition
from e2ee.ratchet.state import DoubleRatchetState
from e2ee.wire.public_keys import RatchetPublicKey
from tests import ratchet_steps

T = TypeVar("T")

Answer = Callable[[bytes], bytes]
"""The private key with which an end answers a ratchet key of its peer.

A function of that key, so that it does not matter when an implementation asks for it, or how often.
"""

ROOT: Final = sha256(b"the root key of all conversations here").digest()
BOB: Final = sha256(b"the private half of the responder's signed prekey").digest()
BOB_PUBLIC: Final = PreKeyPair(SeedBytes32(BOB)).public


class Message(NamedTuple):
    """A header, and in place of a ciphertext the key that its sender has for it: it authenticates under that key."""

    ratchet_key: bytes
    previous_chain_length: int
    chain_index: int
    key: bytes


class Outcome(NamedTuple):
    """What came of a message."""

    accepted: bool
    derived: bytes | None
    """The key that was derived for it, the right one or not. None if it was refused before."""


class End(Protocol):
    """One end of a conversation, in either implementation."""

    def can_send(self) -> bool: ...

    def send(self) -> Message: ...

    def receive(self, message: Message) -> Outcome: ...


# --- ours ------------------------------------------------------------------------------------------------------


class Ours:
    """An end made of our functions, and the map of skipped keys that their caller keeps."""

    def __init__(self, state: DoubleRatchetState, answer: Answer, max_skip: int) -> None:
        self._state, self._answer, self._max_skip = state, answer, max_skip
        self._skipped: dict[SkippedPosition, bytes] = {}

    @classmethod
    def initiator(cls, answer: Answer, max_skip: int = MAX_SKIP) -> "Ours":
        return cls(double_ratchet.start_as_initiator(RootKey(ROOT), BOB_PUBLIC), answer, max_skip)

    @classmethod
    def responder(cls, answer: Answer, max_skip: int = MAX_SKIP) -> "Ours":
        prekey = PreKeyPair(SeedBytes32(BOB))
        return cls(double_ratchet.start_as_responder(RootKey(ROOT), prekey), answer, max_skip)

    def can_send(self) -> bool:
        return self._state.their_ratchet_key is not None

    def send(self) -> Message:
        theirs = self._state.their_ratchet_key
        assert theirs is not None
        sending = ratchet_steps.send(self._state, lambda length: self._answer(theirs.raw)[:length])
        self._state = sending.state
        key, previous_chain_length, chain_index = sending.header
        return Message(key.raw, previous_chain_length, chain_index, sending.message_key)

    def receive(self, message: Message) -> Outcome:
        header = DoubleRatchetHeader(
            RatchetPublicKey(message.ratchet_key), message.previous_chain_length, message.chain_index
        )
        try:
            received = ratchet_steps.receive(self._state, header, self._skipped.get, self._max_skip)
        except ProtocolError:
            return Outcome(accepted=False, derived=None)
        derived = received.message_key
        if derived != message.key:
            return Outcome(accepted=False, derived=derived)
        self._state = received.state
        self._skipped |= {each.position: each.key for each in received.skipped}
        if received.used is not None:
            del self._skipped[received.used]
        return Outcome(accepted=True, derived=derived)


# --- the oracle ------------------------------------------------------------------------------------------------


class RootChain(kdf_hkdf.KDF):
    """HKDF-SHA-512(salt = RK, IKM = DH, info, 64) -> RK' || CK."""

    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_512

    @staticmethod
    def _get_info() -> bytes:
        return b"E2EE/1 root"


class MessageChain(KDF):
    """BLAKE2b-512(CK, constant) -> CK' || MK."""

    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        return blake2b(data, key=key, digest_size=length).digest()


CHAIN_CONSTANT: Final = b"\x0cE2EE/1 chain"
REFUSALS: Final = (
    AuthenticationFailedException,
    DoSProtectionException,
    DuplicateMessageException,
    UserWarning,
    ValueError,  # of the backend, for a ratchet key of low order
    AssertionError,  # a chain that is not there
)


class Ratchet(DoubleRatchet):
    """The oracle. Headers need no authentication of their own: what they lead to is compared."""

    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        return b""


class Theirs:
    """An end of the oracle. Its object is made by the first message, sent or accepted."""

    def __init__(self, answer: Answer, max_skip: int, *, initiator: bool) -> None:
        self._ratchet: Ratchet | None = None
        self._initiator = initiator
        self._derived: bytes | None = None
        self._settings: dict[str, Any] = {
            "diffie_hellman_ratchet_class": answering(answer, BOB_PUBLIC.raw),
            "root_chain_kdf": RootChain,
            "message_chain_kdf": MessageChain,
            "message_chain_constant": CHAIN_CONSTANT,
            "dos_protection_threshold": max_skip,
            "max_num_skipped_message_keys": 1 << 20,
            "aead": self._transparent_aead(),
            "shared_secret": ROOT,
            "associated_data": b"",
        }

    @classmethod
    def initiator(cls, answer: Answer, max_skip: int = MAX_SKIP) -> "Theirs":
        return cls(answer, max_skip, initiator=True)

    @classmethod
    def responder(cls, answer: Answer, max_skip: int = MAX_SKIP) -> "Theirs":
        return cls(answer, max_skip, initiator=False)

    def can_send(self) -> bool:
        return self._initiator or self._ratchet is not None

    def send(self) -> Message:
        if self._ratchet is None:
            first = Ratchet.encrypt_initial_message(**self._settings, recipient_ratchet_pub=BOB_PUBLIC.raw, message=b"")
            self._ratchet, encrypted = completed(first)
        else:
            encrypted = completed(self._ratchet.encrypt_message(b"", b""))
        return Message(*encrypted.header, encrypted.ciphertext)

    def receive(self, message: Message) -> Outcome:
        encrypted = EncryptedMessage(Header(*message[:3]), message.key)
        self._derived = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if self._ratchet is None:
                    first = Ratchet.decrypt_initial_message(**self._settings, own_ratchet_priv=BOB, message=encrypted)
                    self._ratchet, _ = completed(first)
                else:
                    completed(self._ratchet.decrypt_message(encrypted, b""))
        except REFUSALS:
            return Outcome(accepted=False, derived=self._derived)
        return Outcome(accepted=True, derived=self._derived)

    def _transparent_aead(self) -> type[AEAD]:
        def note(key: bytes) -> None:
            self._derived = key

        class Transparent(AEAD):
            """Encrypts anything to the message key itself."""

            @staticmethod
            async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
                return key

            @staticmethod
            async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
                note(key)
                if ciphertext != key:
                    raise AuthenticationFailedException
                return b""

        return Transparent


def answering(answer: Answer, first: bytes) -> type[curve25519.DiffieHellmanRatchet]:
    """Make a ratchet whose new private keys are those of `answer`. `first` is the key that an initiator answers."""
    asked = first

    class Answering(curve25519.DiffieHellmanRatchet):
        @staticmethod
        def _generate_priv() -> bytes:
            return answer(asked)

        @staticmethod
        def _perform_diffie_hellman(own_priv: bytes, other_pub: bytes) -> bytes:
            nonlocal asked
            asked = other_pub
            return curve25519.DiffieHellmanRatchet._perform_diffie_hellman(own_priv, other_pub)

    return Answering


def completed(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the oracle; none of them ever waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the oracle waits for something")


# --- both at once ----------------------------------------------------------------------------------------------


class Both:
    """One end in both implementations, which must do the same at every step."""

    def __init__(self, ours: Ours, theirs: Theirs) -> None:
        self._ours, self._theirs = ours, theirs

    def can_send(self) -> bool:
        assert self._ours.can_send() == self._theirs.can_send()
        return self._ours.can_send()

    def send(self) -> Message:
        message = self._ours.send()
        assert message == self._theirs.send()
        return message

    def receive(self, message: Message) -> Outcome:
        ours, theirs = self._ours.receive(message), self._theirs.receive(message)
        assert ours.accepted == theirs.accepted
        # The oracle also computes where we know better; where we compute, it must come to the same key.
        if ours.derived is not None and message.ratchet_key != BOB_PUBLIC.raw:
            assert ours.derived == theirs.derived
        return ours


def both_ends(seed: int, max_skip: int = MAX_SKIP) -> tuple[Both, Both]:
    """Return initiator and responder."""
    alice, bob = answers(f"alice {seed}"), answers(f"bob {seed}")
    return (
        Both(Ours.initiator(alice, max_skip), Theirs.initiator(alice, max_skip)),
        Both(Ours.responder(bob, max_skip), Theirs.responder(bob, max_skip)),
    )


def answers(name: str) -> Answer:
    return lambda ratchet_key: sha256(name.encode() + ratchet_key).digest()


# --- the tests -------------------------------------------------------------------------------------------------


def ours_begins() -> tuple[End, End]:
    return Ours.initiator(answers("alice")), Theirs.responder(answers("bob"))


def theirs_begins() -> tuple[End, End]:
    return Theirs.initiator(answers("alice")), Ours.responder(answers("bob"))


@pytest.mark.parametrize("begin", [ours_begins, theirs_begins])
def test_an_end_of_ours_talks_to_an_end_of_the_oracle_in_either_role(begin: Callable[[], tuple[End, End]]) -> None:
    ends = begin()
    for turn in range(12):
        sender, recipient = ends[turn % 2], ends[1 - turn % 2]
        for message in [sender.send() for _ in range(1 + turn % 3)]:
            assert recipient.receive(message).accepted


@pytest.mark.parametrize("begin", [ours_begins, theirs_begins])
@pytest.mark.parametrize("seed", range(4))
def test_over_a_network_that_loses_repeats_and_reorders_each_message_is_accepted_once(
    begin: Callable[[], tuple[End, End]], seed: int
) -> None:
    assert converse(begin(), Random(seed), steps=400) > 100


@pytest.mark.parametrize("seed", range(4))
def test_both_implementations_stay_in_step_over_a_long_conversation(seed: int) -> None:
    assert converse(both_ends(seed), Random(seed), steps=1_000) > 250


@pytest.mark.parametrize("limit", [0, 1, 7])
@pytest.mark.parametrize("beyond", [0, 1])
def test_both_draw_the_line_at_the_same_gap_in_the_first_the_current_the_old_and_the_new_chain(
    limit: int, beyond: int
) -> None:
    allowed = beyond == 0
    alice, bob = both_ends(0, limit)
    assert bob.receive(after(alice, limit + beyond)).accepted == allowed

    alice, bob = both_ends(1, limit)
    assert bob.receive(alice.send()).accepted
    assert bob.receive(after(alice, limit + beyond)).accepted == allowed

    for old, new in ((limit + beyond, 0), (0, limit + beyond)):
        alice, bob = both_ends(2, limit)
        assert bob.receive(alice.send()).accepted
        for _ in range(old):
            alice.send()
        assert alice.receive(bob.send()).accepted
        assert bob.receive(after(alice, new)).accepted == allowed


def test_a_ratchet_key_of_low_order_is_refused_by_both() -> None:
    alice, bob = both_ends(0)
    message = alice.send()
    assert not bob.receive(message._replace(ratchet_key=bytes(32))).accepted
    assert bob.receive(message).accepted
    assert not alice.receive(bob.send()._replace(ratchet_key=bytes(32))).accepted


def after(sender: End, lost: int) -> Message:
    """Return the message that follows so many lost ones."""
    for _ in range(lost):
        sender.send()
    return sender.send()


def converse(ends: tuple[End, End], random: Random, steps: int) -> int:
    """Let both ends talk over a bad network; return how many messages arrived. What arrives again is refused."""
    in_flight: tuple[list[Message], list[Message]] = ([], [])
    arrived: tuple[list[Message], list[Message]] = ([], [])
    for _ in range(steps):
        at = random.randrange(2)
        if ends[at].can_send() and random.random() < 0.5:
            in_flight[1 - at].append(ends[at].send())
        elif in_flight[at]:
            message = in_flight[at].pop(random.randrange(len(in_flight[at])))
            if random.random() < 0.8:
                assert ends[at].receive(message).accepted
                arrived[at].append(message)
        if arrived[at] and random.random() < 0.2:
            assert not ends[at].receive(random.choice(arrived[at])).accepted
    return len(arrived[0]) + len(arrived[1])


ENDS = st.integers(0, 1)
PICKS = st.integers(0, 1 << 16)
"""Chooses one of several, modulo their number."""


class InStep(RuleBasedStateMachine):
    """Random histories: a small limit on skipping is met often, and headers are forged."""

    @initialize(seed=st.integers(0, 1 << 16), limit=st.sampled_from([1, 4, 50]))
    def begin(self, seed: int, limit: int) -> None:
        self.ends = both_ends(seed, limit)
        self.in_flight: tuple[list[Message], list[Message]] = ([], [])
        self.sent: tuple[list[Message], list[Message]] = ([], [])

    @rule(end=ENDS, count=st.integers(1, 4))
    def send(self, end: int, count: int) -> None:
        for _ in range(count if self.ends[end].can_send() else 0):
            message = self.ends[end].send()
            self.in_flight[1 - end].append(message)
            self.sent[1 - end].append(message)

    @precondition(lambda self: any(self.in_flight))
    @rule(end=ENDS, pick=PICKS)
    def deliver(self, end: int, pick: int) -> None:
        if waiting := self.in_flight[end]:
            self.ends[end].receive(waiting.pop(pick % len(waiting)))

    @precondition(lambda self: any(self.in_flight))
    @rule(end=ENDS)
    def deliver_all_in_order(self, end: int) -> None:
        for message in self.in_flight[end]:
            self.ends[end].receive(message)
        self.in_flight[end].clear()

    @precondition(lambda self: any(self.in_flight))
    @rule(end=ENDS, pick=PICKS)
    def lose(self, end: int, pick: int) -> None:
        if waiting := self.in_flight[end]:
            waiting.pop(pick % len(waiting))

    @precondition(lambda self: any(self.sent))
    @rule(end=ENDS, pick=PICKS)
    def repeat(self, end: int, pick: int) -> None:
        if sent := self.sent[end]:
            self.ends[end].receive(sent[pick % len(sent)])

    @precondition(lambda self: any(self.sent))
    @rule(end=ENDS, pick=PICKS, lengths=st.tuples(st.integers(0, 60), st.integers(0, 60)))
    def forge_lengths(self, end: int, pick: int, lengths: tuple[int, int]) -> None:
        """A false previous length alone still authenticates here, and then both must have skipped the same keys."""
        if sent := self.sent[end]:
            message = sent[pick % len(sent)]
            self.ends[end].receive(message._replace(previous_chain_length=lengths[0]))
            self.ends[end].receive(message._replace(previous_chain_length=lengths[0], chain_index=lengths[1]))

    @precondition(lambda self: any(self.sent))
    @rule(end=ENDS, pick=PICKS, other=PICKS)
    def forge_ratchet_key(self, end: int, pick: int, other: int) -> None:
        """With a key of the other direction, of another chain, or one that nobody made."""
        if sent := self.sent[end]:
            keys = [message.ratchet_key for message in (*self.sent[0], *self.sent[1])] + [BOB_PUBLIC.raw]
            message = sent[pick % len(sent)]
            self.ends[end].receive(message._replace(ratchet_key=keys[other % len(keys)]))


TestInStep = InStep.TestCase
TestInStep.settings = settings(max_examples=150, stateful_step_count=40)
