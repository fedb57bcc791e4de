"""First messages that no honest device would send, and the honest one that they are made from.

Owns: a first message from alice to bob as a value, with everything in it open to change.
Does not know about: what bob makes of it.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, final

from e2ee.cli.vectors.cases.people import NOW, Person, kem_pair, list_of, person, signed
from e2ee.cli.vectors.drawn import drawn, encapsulation
from e2ee.cli.vectors.operations.pqxdh import recorded
from e2ee.cli.vectors.script import Script
from e2ee.pqxdh import Party
from e2ee.ratchet import triple_ratchet
from e2ee.session import Clock, Session, start_as_initiator
from e2ee.wire.content import Content, ContentKind
from e2ee.wire.device_list import ListedDevice, SignedDeviceList
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, EnvelopeId, MessageId
from e2ee.wire.message import PreKeyMessage, RatchetMessage
from e2ee.wire.padding import pad

ALICE: Final = person("alice")
BOB: Final = person("bob")


@final
@dataclass(frozen=True)
class Forgery:
    """A first message to bob. Fields that are None are honest."""

    sender: Person = ALICE
    one_time: bool = True
    last_resort: bool = False
    number: int = 0
    """Of the recorded encapsulation."""
    party: Party | None = None
    """What the handshake says of the sender."""
    envelope_sender: DeviceAddress | None = None
    envelope_recipient: DeviceAddress | None = None
    device_list: SignedDeviceList | None = None
    carries_list: bool = True
    body: bytes = b"\1hello"
    kind: ContentKind = ContentKind.APPLICATION

    def claiming(self, **keys: Any) -> "Forgery":
        """Return the message with a handshake that was really made with other keys of the party."""
        return replace(self, party=self.sender.account.party._replace(**keys))

    def sent_as(self, address: DeviceAddress) -> "Forgery":
        return replace(self, envelope_sender=address)

    def sent_to(self, address: DeviceAddress) -> "Forgery":
        return replace(self, envelope_recipient=address)

    def with_list(self, device_list: SignedDeviceList) -> "Forgery":
        return replace(self, device_list=device_list)

    def without_list(self) -> "Forgery":
        return replace(self, carries_list=False)

    def with_body(self, body: bytes, kind: ContentKind = ContentKind.APPLICATION) -> "Forgery":
        return replace(self, body=body, kind=kind)

    def list_with(self, *others: ListedDevice) -> SignedDeviceList:
        """Return the sender's first list with further devices."""
        return self._list(self.sender.listed, *others)

    def list_with_other_keys(self) -> SignedDeviceList:
        other = person(self.sender.user_id, 2).listed
        return self._list(replace(self.sender.listed, identity_key=other.identity_key))

    def empty_list(self) -> SignedDeviceList:
        return self._list()

    def unsigned_list(self) -> SignedDeviceList:
        return replace(self.sender.device_list().signed, signature=bytes(64))

    def _list(self, *devices: ListedDevice) -> SignedDeviceList:
        return signed(self.sender, list_of(self.sender, devices))

    def content(self) -> Content:
        own = self.device_list or self.sender.device_list().signed
        return Content(
            message_id=MessageId(drawn(f"forgery {self.number}: message id", 16)),
            kind=self.kind,
            conversation_id=ConversationId(""),
            sent_at=NOW,
            sender_list=own.unverified.position,
            recipient_list=BOB.device_list().position,
            body=self.body,
            device_list=own if self.carries_list else None,
        )

    def plaintext(self) -> bytes:
        return pad(self.content().encode())

    @staticmethod
    def padded(content: bytes) -> bytes:
        return pad(content)

    def envelope(self, plaintext: bytes | None = None) -> bytes:
        """Encrypt and return the envelope; the plaintext need not be a padded content."""
        session = self._session()
        script = Script(self._drawn("ratchet key", 32), self._drawn("nonce", 12))
        data = self.plaintext() if plaintext is None else plaintext
        _, message = triple_ratchet.encrypt(session.ratchets, session.session_id, data, NOW, script)
        handshake = session.pending_handshake
        if handshake is None:
            raise AssertionError("a session that just started carries its handshake")
        envelope = Envelope(
            EnvelopeId(self._drawn("envelope id", 16)),
            self.envelope_sender or self.sender.address,
            self.envelope_recipient or BOB.address,
            Lane.CHAT,
            3_600,
            PreKeyMessage(handshake, RatchetMessage.decode(message)).encode(),
        )
        return envelope.encode()

    def _session(self) -> Session:
        bundle = BOB.bundle(one_time=self.one_time, last_resort=self.last_resort)
        kem = BOB.last_resort if self.last_resort else BOB.one_time_kem
        encapsulated = recorded(*encapsulation(kem_pair(kem).public.raw, self.number))
        return start_as_initiator(
            self.party or self.sender.account.party,
            self.sender.account.identity_key_pair,
            bundle.verify(BOB.device_list(), NOW),
            Clock(NOW + self.number, NOW),
            Script(self._drawn("ephemeral key", 32)),
            lambda _key: encapsulated,
        )

    def _drawn(self, what: str, length: int) -> bytes:
        return drawn(f"forgery {self.number}: {what}", length)


def mallory_first() -> SignedDeviceList:
    """Return mallory's list, with a device that has alice's id and keys."""
    mallory = person("mallory")
    return signed(mallory, list_of(mallory, [person("alice").listed]))
