"""Keys or plaintext in logs, reprs and errors (docs/attacks.md, rows 7, 8, 16 and 32)."""

import base64
import dataclasses
import logging
from collections.abc import Iterator

import pytest

from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.errors import ProtocolError
from e2ee.messenger import Messenger
from e2ee.prekey_supply import ServerCounts
from e2ee.private_keys import SecretBytes
from e2ee.ratchet.skipped_keys import SkippedKey
from e2ee.ratchet.state import PqChain, PqReceivingChain, ReceivingChain, SendingChain
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.sending import Draft
from e2ee.session import Session
from e2ee.stores import message_records, records, session_records
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId
from e2ee.wire.message import PreKeyMessage, decode_body
from tests.world import Device, World, content_from, flip

PLAINTEXT = "correct horse battery staple"


def secrets_in(value: object) -> Iterator[bytes]:
    """Find every secret in a state: all the wrappers that a value leads to."""
    if isinstance(value, SecretBytes):
        yield value.expose()
    elif isinstance(value, SkippedKey | SendingChain | ReceivingChain | PqChain | PqReceivingChain):
        yield value.key
    elif isinstance(value, tuple):
        for each in value:
            yield from secrets_in(each)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from secrets_in(getattr(value, field.name))
    else:
        for owner in type(value).__mro__:
            for name in getattr(owner, "__slots__", ()):
                yield from secrets_in(getattr(value, name, None))


def spellings(secret: bytes) -> Iterator[str]:
    """Return the texts in which bytes show up, without the ends that may fall into other groups."""
    yield secret.hex()
    yield secret.hex().upper()
    yield repr(secret)[2:-1]
    yield base64.b64encode(secret).decode().rstrip("=")[:-1]
    yield base64.urlsafe_b64encode(secret).decode().rstrip("=")[:-1]
    yield str(list(secret))[1:-1]


def assert_silent(text: str, secrets: set[bytes]) -> None:
    assert PLAINTEXT not in text
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in text


class Conversation:
    """A whole conversation with failures in it, and everything that it let somebody see."""

    def __init__(self) -> None:
        world = World("logs")
        self.alice, self.bob = world.device("alice"), world.device("bob")
        self.secrets: set[bytes] = set()
        self.shown: list[object] = []
        self.ciphertexts: set[bytes] = set()
        alice, bob = self.alice, self.bob
        self.show(bob.messenger.registration.due_prekeys(ServerCounts(0, 0)), alice.start_session(bob))
        for sender, recipient in ((alice, bob), (alice, bob), (bob, alice), (alice, bob)):
            lost, kept = sender.encrypt(recipient, PLAINTEXT), sender.encrypt(recipient, PLAINTEXT)
            self.receive(recipient, flip(kept, 8 * len(kept) - 1))
            self.receive(recipient, kept)
            self.receive(recipient, kept)
            self.receive(recipient, lost)
            self.show(recipient.messenger.inbound(), sender.sending_session(recipient), recipient.sessions(sender))
        self.show(
            alice.messenger.send(bob.user_id, PLAINTEXT), alice.messenger.outbox.entries(), alice.messenger.status()
        )
        self.ciphertexts.update(entry.envelope[-64:] for entry in alice.messenger.outbox.entries())
        self.show(content_from(alice, bob), Draft(1, PLAINTEXT.encode(), ConversationId(""), Lane.CHAT, 1))
        self.look_into_stores()

    def receive(self, recipient: Device, envelope: bytes) -> None:
        body = decode_body(Envelope.decode(envelope).body)
        self.ciphertexts.add(Envelope.decode(envelope).body[-64:])
        self.show(Envelope.decode(envelope), body)
        sessions = recipient.sessions(next(each for each in (self.alice, self.bob) if each is not recipient))
        message = body.message if isinstance(body, PreKeyMessage) else body
        for session in sessions:
            try:
                with recipient.store.read() as tx:
                    find = session_records.skipped_lookup(tx, session)
                    self.show(session.decrypt(message, Arrival(find, recipient.world.now)))
            except ProtocolError as error:
                self.show(error)
        reception = recipient.receive(envelope)
        self.show(reception, reception.error, str(reception.error))

    def show(self, *values: object) -> None:
        self.shown += values
        for value in values:
            self.secrets.update(secrets_in(tuple(value) if isinstance(value, list) else value))

    def look_into_stores(self) -> None:
        for device in (self.alice, self.bob):
            self.show(device.messenger, device.messenger.account, device.snapshot(), device.store)
            with device.store.read() as tx:
                for kind in PreKeyKind:
                    self.show(*records.prekeys(tx, kind))
                self.show(message_records.outbox(tx))


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    return Conversation()


def test_the_search_finds_the_secrets(conversation: Conversation) -> None:
    """Guards the other tests of this file against finding nothing because they look for nothing."""
    assert len(conversation.secrets) > 200 + 20, "prekeys of one device, and states of two sessions"
    kinds = {type(each) for each in conversation.shown}
    assert {Account, OwnPreKey, Session, Messenger, Draft} <= kinds
    secret = next(iter(conversation.secrets))
    for text in (secret.hex(), repr(secret), base64.b64encode(secret).decode()):
        with pytest.raises(AssertionError):
            assert_silent(f"key={text}", {secret})


def test_no_repr_and_no_error_shows_a_secret_a_plaintext_or_a_ciphertext(conversation: Conversation) -> None:
    text = "\n".join(f"{value!r} {value!s}" for value in conversation.shown)
    assert_silent(text, conversation.secrets)
    for ciphertext in conversation.ciphertexts:
        for spelling in spellings(ciphertext[:32]):
            assert spelling not in text


def test_a_whole_conversation_logs_nothing_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        finished = Conversation()
    assert_silent(caplog.text, finished.secrets)
    assert [record for record in caplog.records if record.name.startswith(("e2ee", "root"))] == []


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    Conversation()
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
