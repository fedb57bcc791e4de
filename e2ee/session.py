"""Session: a handshake's result, both ratchets and their associated data, as a value.

Owns: encryption and decryption of contents in one session, what a session remembers about its peer.
Does not know about: which session is used (messenger.py), storage, envelopes.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

from e2ee.limits import UNANSWERED_SESSION_MS
from e2ee.pqxdh import Party, ResponderKeys, initiate, respond
from e2ee.primitives.rng import Rng
from e2ee.private_keys import Encapsulate, IdentityKeyPair, encapsulate
from e2ee.ratchet import double_ratchet, pq_ratchet, pq_turns, triple_ratchet
from e2ee.ratchet.skipped_keys import FindSkipped, SkippedKey, SkippedPosition
from e2ee.ratchet.state import RatchetState, new_record
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.wire.identifiers import DeviceAddress
from e2ee.wire.message import HandshakeHeader, PreKeyMessage, RatchetMessage
from e2ee.wire.padding import pad, unpad
from e2ee.wire.prekey_bundle import VerifiedPreKeyBundle


@final
@dataclass(frozen=True, slots=True)
class SessionOrigin:
    """What the handshake fixed for the life of a session."""

    associated_data: bytes
    """T, 32 bytes: the transcript hash, and the session's id."""
    peer: Party
    created: int
    """The initiator's `created`, Unix milliseconds; with T it orders the sessions of a device pair."""
    handshake_hash: bytes
    """H, 32 bytes: recognises a repeated first message."""
    we_initiated: bool
    established_at: int
    """Our clock when the session came to be, Unix milliseconds."""


class DecryptedContent(NamedTuple):
    """The outcome of `Session.decrypt`: commit all of it in one transaction, or nothing."""

    session: "Session"
    content: bytes
    skipped: tuple[SkippedKey, ...]
    used: tuple[SkippedPosition, ...]
    epoch_stalled: bool
    """With this message it is to be reported that the post-quantum epoch does not progress."""

    def __repr__(self) -> str:
        return f"DecryptedContent({self.session!r}, {len(self.content)} bytes redacted)"


class Session(NamedTuple):
    """One session with one device of a peer. A failed call leaves it as it was, because it never changes."""

    origin: SessionOrigin
    ratchets: RatchetState
    pending_handshake: HandshakeHeader | None
    """Sent in front of every message until the first reply authenticates."""
    owes_answer: bool = False
    """A post-quantum payload came, and nothing was sent since."""
    dead: bool = False
    """Not used for sending any more; still receives."""

    @property
    def session_id(self) -> bytes:
        return self.origin.associated_data

    @property
    def peer(self) -> DeviceAddress:
        return self.origin.peer.address

    @property
    def receives(self) -> int:
        """Messages decrypted so far; ages skipped keys."""
        return self.ratchets.receives

    @property
    def precedence(self) -> tuple[int, bytes]:
        """Both ends send on the session with the highest (created, T); receiving never changes the order."""
        return self.origin.created, self.origin.associated_data

    @property
    def carries_handshake(self) -> bool:
        """Whether the next message is a PreKeyMessage and its content must hold the sender's device list."""
        return self.pending_handshake is not None

    @property
    def is_wanted(self) -> bool:
        """Whether we started this session, or ever sent anything on it."""
        double = self.ratchets.double
        return self.origin.we_initiated or double.sending is not None or double.previous_chain_length > 0

    @property
    def is_unused(self) -> bool:
        """Whether we started this session and nothing was sent on it yet: the peer does not know of it."""
        double = self.ratchets.double
        return self.origin.we_initiated and double.sending is None and double.previous_chain_length == 0

    def may_send(self, now: int) -> bool:
        """Whether this session may be chosen for sending at `now` (Unix milliseconds)."""
        unanswered_too_long = self.carries_handshake and now - self.origin.established_at > UNANSWERED_SESSION_MS
        return not self.dead and not unanswered_too_long

    def encrypt(self, content: bytes, now: int, rng: Rng) -> "tuple[Session, bytes]":
        """Pad and encrypt an encoded Content at `now` (Unix milliseconds); return the next session and the body."""
        origin, ratchets, handshake, _, dead = self
        ratchets, message = triple_ratchet.encrypt(ratchets, origin.associated_data, pad(content), now, rng)
        session = new_record(Session, (origin, ratchets, handshake, False, dead))
        if handshake is None:
            return session, message
        return session, PreKeyMessage(handshake, RatchetMessage.decode(message)).encode()

    def decrypt(self, message: RatchetMessage, arrival: Arrival) -> DecryptedContent:
        """Decrypt and unpad one message.

        Raises:
            AuthenticationError, DuplicateMessageError, KeyEvictedError, TooManySkippedError, EpochUnknownError,
            InvalidPublicKeyError: see `triple_ratchet.decrypt`.
            MalformedMessageError: it authenticated, and its padding is wrong.
        """
        origin, before, _, owes_answer, dead = self
        ratchets, plaintext, skipped, used = triple_ratchet.decrypt(before, origin.associated_data, message, arrival)
        content = unpad(plaintext)
        owes_answer = owes_answer or message.carries_pq_payload or pq_turns.is_to_heal(ratchets.pq)
        # Any authentic message of the peer proves that it has the session, so the handshake need not be sent again.
        session = new_record(Session, (origin, ratchets, None, owes_answer, dead))
        stalled = ratchets.pq.turn.reported and not before.pq.turn.reported
        return new_record(DecryptedContent, (session, content, skipped, used, stalled))

    def knows(self, message: RatchetMessage, find: FindSkipped) -> bool:
        """Whether the message's chain belongs to this session, so that only this one can decrypt it."""
        return double_ratchet.knows(self.ratchets.double, message.fields[:3], find)

    def can_turn(self) -> bool:
        """Whether a message with an unknown ratchet key could belong to this session."""
        return self.ratchets.double.our_ratchet_key_pair is not None

    def ask_for_healing(self) -> "Session":
        """Return the session, whose post-quantum ratchet heals as soon as it can (protocol.md section 7.3)."""
        pq = pq_turns.ask_for_healing(self.ratchets.pq)
        return self._replace(ratchets=self.ratchets._replace(pq=pq))

    def forget_closed_chains(self, now: int) -> "Session":
        """Return the session without the post-quantum chains that no late message can need any more."""
        pq = pq_ratchet.forget_closed(self.ratchets.pq, now)
        return self if pq is self.ratchets.pq else self._replace(ratchets=self.ratchets._replace(pq=pq))

    def mark_dead(self) -> "Session":
        """Return the session, excluded from sending."""
        return self._replace(dead=True)


class Clock(NamedTuple):
    """The two times of a handshake, Unix milliseconds: the initiator's `created`, and our own now."""

    created: int
    now: int


def start_as_initiator(
    ours: Party,
    identity_key_pair: IdentityKeyPair,
    bundle: VerifiedPreKeyBundle,
    clock: Clock,
    rng: Rng,
    encapsulate: Encapsulate = encapsulate,
) -> Session:
    """Start a session from a verified bundle.

    Raises:
        InvalidPublicKeyError: a key of the bundle is of low order or out of range.
    """
    output, header = initiate(ours, identity_key_pair, bundle, clock.created, rng, encapsulate)
    peer = Party(bundle.address, bundle.account_key, bundle.device_signing_key, bundle.identity_key)
    ratchets = RatchetState(
        double_ratchet.start_as_initiator(output.root_key, bundle.signed_prekey.public_key),
        pq_ratchet.start(output.pq_secret, initiator=True, now=clock.now),
    )
    origin = SessionOrigin(output.associated_data, peer, clock.created, header.hash(), True, clock.now)
    return Session(origin, ratchets, header)


def start_as_responder(
    ours: Party, keys: ResponderKeys, initiator: DeviceAddress, header: HandshakeHeader, now: int
) -> Session:
    """Start a session from a first message's header. Nothing may be stored before that message has authenticated.

    Raises:
        InvalidPublicKeyError: a key of the header is of low order.
    """
    output = respond(ours, keys, initiator, header)
    peer = Party(initiator, header.account_key, header.device_signing_key, header.identity_key)
    ratchets = RatchetState(
        double_ratchet.start_as_responder(output.root_key, keys.signed_prekey),
        pq_ratchet.start(output.pq_secret, initiator=False, now=now),
    )
    origin = SessionOrigin(output.associated_data, peer, header.created, header.hash(), False, now)
    return Session(origin, ratchets, None)
