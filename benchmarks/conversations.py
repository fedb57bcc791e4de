"""Our side of the comparison: two sessions, as `Messenger` uses them.

Owns: making them.
Does not know about: what is measured.
"""

from typing import final

from e2ee import session as sessions
from e2ee.account import Account
from e2ee.pqxdh import ResponderKeys
from e2ee.primitives.rng import system_rng
from e2ee.private_keys import KemPreKeyPair, PreKeyPair
from e2ee.ratchet.skipped_keys import nothing_skipped
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.session import Session
from e2ee.wire.identifiers import PreKeyId, UserId
from e2ee.wire.message import PreKeyMessage, RatchetMessage, decode_body
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, SignedPreKey, VerifiedPreKeyBundle

_NOW = 1_700_000_000_000
_NEVER = 1 << 50
_ARRIVAL = Arrival(nothing_skipped, _NOW)


@final
class Pair:
    """Alice and Bob with their long-term keys, and a session between them after one message each way."""

    def __init__(self) -> None:
        self.alice = Account.generate(UserId("alice"), system_rng)
        self.bob = Account.generate(UserId("bob"), system_rng)
        self._alice_party, self._bob_party = self.alice.party, self.bob.party
        self._signed, self._one_time = PreKeyPair.generate(system_rng), PreKeyPair.generate(system_rng)
        self._kem = KemPreKeyPair.generate(system_rng)
        self._keys = ResponderKeys(self.bob.identity_key_pair, self._signed, self._one_time, self._kem)
        self._bundle = self._make_bundle()
        self.ours, self.theirs = self.set_up()
        self.theirs, reply = self.theirs.encrypt(b"reply", _NOW, system_rng)
        self.ours = self.ours.decrypt(RatchetMessage.decode(reply), _ARRIVAL).session

    def set_up(self) -> tuple[Session, Session]:
        """Start a session on both sides, the first message included. The bundle was verified before."""
        clock = sessions.Clock(_NOW, _NOW)
        ours = sessions.start_as_initiator(
            self._alice_party, self.alice.identity_key_pair, self._bundle, clock, system_rng
        )
        ours, body = ours.encrypt(b"first", _NOW, system_rng)
        first = decode_body(body)
        if not isinstance(first, PreKeyMessage):
            raise TypeError("a first message carries the handshake")
        theirs = sessions.start_as_responder(self._bob_party, self._keys, self.alice.address, first.handshake, _NOW)
        return ours, theirs.decrypt(first.message, _ARRIVAL).session

    def stream(self, content: bytes) -> None:
        """One message, one direction."""
        self.ours, body = self.ours.encrypt(content, _NOW, system_rng)
        self.theirs = self.theirs.decrypt(RatchetMessage.decode(body), _ARRIVAL).session

    def ping_pong(self, content: bytes) -> None:
        """One message each way."""
        self.stream(content)
        self.theirs, body = self.theirs.encrypt(content, _NOW, system_rng)
        self.ours = self.ours.decrypt(RatchetMessage.decode(body), _ARRIVAL).session

    def _make_bundle(self) -> VerifiedPreKeyBundle:
        unsigned = bytes(64)
        return VerifiedPreKeyBundle(
            self.bob.address,
            self._bob_party.account_key,
            self._bob_party.device_signing_key,
            self._bob_party.identity_key,
            SignedPreKey(PreKeyId(1), _NEVER, self._signed.public, unsigned),
            OneTimePreKey(PreKeyId(2), self._one_time.public),
            KemPreKey(KemPreKeyKind.ONE_TIME, PreKeyId(3), _NEVER, self._kem.public, unsigned),
        )
