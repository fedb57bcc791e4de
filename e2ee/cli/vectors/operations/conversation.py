"""Whole conversations: devices with all their secrets, and steps with all their randomness (protocol.md section 12).

Owns: what each step does and what it shows.
Does not know about: cases, the files that hold conversations (scripts.py).

A step goes through Messenger, so it exercises all layers at once: envelope, session choice, ratchets, content, trust.
"""

from typing import Final, final

from e2ee.cli.vectors.model import Fields, JsonObject
from e2ee.cli.vectors.operations.aead import joint_keys
from e2ee.cli.vectors.operations.devices import VectorDevice
from e2ee.cli.vectors.operations.parts import address_json
from e2ee.cli.vectors.operations.pq_ratchet import rejected_ratchet_secret
from e2ee.cli.vectors.operations.pqxdh import recorded
from e2ee.cli.vectors.refusals import Layer, Refused, decoding, layer_of
from e2ee.cli.vectors.script import Encapsulation, Script
from e2ee.errors import E2EEError
from e2ee.messenger import Outcome, Reception
from e2ee.primitives import aead
from e2ee.ratchet import double_ratchet, pq_ratchet
from e2ee.sending import Draft
from e2ee.session import Clock, Session, start_as_initiator
from e2ee.stores.session_records import add_session
from e2ee.wire.content import Content
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, parse_conversation_id, parse_user_id
from e2ee.wire.message import PreKeyMessage, decode_body


@final
class Conversation:
    """Devices by user id, and the envelopes sent so far by the number of their step."""

    def __init__(self, devices: list[Fields]) -> None:
        self.devices = {each.text("user_id"): VectorDevice(each) for each in devices}
        self._envelopes: list[bytes] = []
        self._steps: Final = {
            "start": self._start,
            "send": self._send,
            "deliver": self._deliver,
            "receive": self._receive,
            "prune": self._prune,
        }

    def published_json(self) -> list[JsonObject]:
        return [device.published_json() for device in self.devices.values()]

    def step(self, fields: Fields) -> JsonObject:
        """Take one step; return what it gave. A refused delivery is an outcome too."""
        self._envelopes.append(b"")
        try:
            return self._steps[fields.text("step")](fields)
        except BaseException:
            self._envelopes.pop()  # whoever writes a conversation down may try the step again
            raise

    def _device(self, fields: Fields, name: str = "device") -> VectorDevice:
        return self.devices[fields.text(name)]

    def _start(self, fields: Fields) -> JsonObject:
        """Fetch the peer's list, claim and verify a bundle, start a session; nothing is sent yet."""
        ours, theirs, now = self._device(fields), self._device(fields, "peer"), fields.number("time")
        ours.messenger(now, Script()).learn_device_lists(theirs.user_id, [theirs.device_list()])
        one_time = fields.number("one_time_prekey_id") if "one_time_prekey_id" in fields else None
        bundle = theirs.bundle(fields.number("signed_prekey_id"), one_time, fields.number("kem_prekey_id"))
        verified = bundle.verify(theirs.device_list().verify(theirs.user_id), now)
        script = Script(fields.hex("ephemeral_private_key"))
        encapsulated = recorded(fields.hex("kem_shared_secret"), fields.hex("kem_ciphertext"))
        session = start_as_initiator(
            ours.account.party,
            ours.account.identity_key_pair,
            verified,
            Clock(fields.number("created"), now),
            script,
            lambda _theirs: encapsulated,
        )
        script.finish()
        with ours.store.write() as tx:
            add_session(tx, session)
        return {
            "step": "start",
            "associated_data": session.session_id.hex(),
            "handshake_hash": session.origin.handshake_hash.hex(),
            "root_key": session.ratchets.double.root_key.expose().hex(),
            "pq_root_key": session.ratchets.pq.root_key.expose().hex(),
        }

    def _send(self, fields: Fields) -> JsonObject:
        ours, now = self._device(fields), fields.number("time")
        peer = parse_user_id(fields.text("peer"))
        peer_address = _only_device(ours, peer, now)
        before = ours.sending_session(peer_address, now)
        turn, nonce = fields.optional_hex("ratchet_private_key"), fields.hex("nonce")
        seed = fields.optional_hex("seed")
        script = Script(fields.hex("message_id"), turn, seed, nonce, fields.hex("envelope_id"))
        draft = Draft(
            fields.number("kind"),
            fields.hex("body"),
            parse_conversation_id(fields.text("conversation_id")),
            Lane(fields.number("lane")),
            fields.number("ttl"),
        )
        messenger = ours.messenger(now, script)
        messenger.learn_device_lists(peer, ())  # the server has none that is newer, should the one known have expired
        queued = messenger.queue(peer, draft)
        script.finish()
        (entry,) = queued.entries
        self._envelopes[-1] = entry.envelope
        after = ours.sending_session(peer_address, now)
        return {
            "step": "send",
            **_sending_json(before, after, turn, entry.envelope),
            "envelope": entry.envelope.hex(),
            **({} if seed is None else {"rejected_secret": rejected_ratchet_secret(seed)}),
        }

    def _deliver(self, fields: Fields) -> JsonObject:
        envelope = bytearray(self._envelopes[fields.number("envelope_of")])
        if "complement_byte" in fields:
            envelope[fields.number("complement_byte")] ^= 0xFF
        return self._take_in(fields, bytes(envelope))

    def _receive(self, fields: Fields) -> JsonObject:
        return self._take_in(fields, fields.hex("envelope"))

    def _take_in(self, fields: Fields, encoded: bytes) -> JsonObject:
        ours, now = self._device(fields), fields.number("time")
        encapsulation = Encapsulation(fields.optional_hex("shared_secret"), fields.optional_hex("ciphertext"))
        messenger = ours.messenger(now, Script(), encapsulation)
        before = {session.session_id: session for session in _sessions_of(ours, encoded)}
        reception = messenger.receive(encoded)
        encapsulation.finish()
        if reception.error is not None:
            return {"step": "receive", "outcome": "refused", "fails_at": _layer(reception, encoded)}
        changed = [each for each in _sessions_of(ours, encoded) if before.get(each.session_id) != each]
        (session,) = changed or _gone_at_once(ours, encoded, now)
        outcome: JsonObject = {
            "step": "receive",
            "outcome": "consumed",
            **_envelope_json(encoded),
            **_receiving_json(session),
            "skipped_keys": ours.skipped_keys(),
        }
        if reception.outcome is Outcome.STORED:
            outcome["outcome"] = "stored"
            outcome["message"] = _content_json(messenger.inbound()[-1].content)
        return outcome

    def _prune(self, fields: Fields) -> JsonObject:
        """Let a device delete what no late envelope can need any more."""
        ours, now = self._device(fields), fields.number("time")
        ours.messenger(now, Script()).prune()
        peer = parse_user_id(fields.text("peer"))
        return {"step": "prune", "sessions": len(ours.sessions(_only_device(ours, peer, now)))}


def _only_device(ours: VectorDevice, peer: str, now: int) -> DeviceAddress:
    contact = ours.messenger(now, Script()).contact(parse_user_id(peer))
    if contact is None:
        raise ValueError("the vector sends to somebody whose device list is unknown")
    (address,) = contact.device_list.content.addresses()
    return address


def _sessions_of(ours: VectorDevice, encoded: bytes) -> list[Session]:
    try:
        sender = Envelope.decode(encoded).sender
    except E2EEError:
        return []
    return ours.sessions(sender)


def _gone_at_once(ours: VectorDevice, encoded: bytes, now: int) -> list[Session]:
    """Return the session of a first message that was the lowest of too many: seen on a device that has no others."""
    alone = ours.anew()
    alone.messenger(now, Script()).receive(encoded)
    return _sessions_of(alone, encoded)


def _layer(reception: Reception, encoded: bytes) -> Layer:
    try:
        with decoding():
            decode_body(Envelope.decode(encoded).body)
    except Refused as refused:
        return refused.layer
    except E2EEError as error:
        return layer_of(error)
    if reception.error is None:
        raise AssertionError("only a refused envelope has a layer")
    return layer_of(reception.error)


def _sending_json(before: Session, after: Session, turn: bytes | None, encoded: bytes) -> JsonObject:
    """Return the keys that a send went through: the step is taken once more, apart, on the state before it."""
    double, message_key, *_ = double_ratchet.send(before.ratchets.double, Script(turn))
    _, pq_message_key, *_ = pq_ratchet.send(before.ratchets.pq)
    if double != after.ratchets.double or double.sending is None:
        raise AssertionError("the step taken apart is not the one that was sent")
    aes_key, commitment = joint_keys(message_key, pq_message_key)
    body = decode_body(Envelope.decode(encoded).body)
    message = body.message if isinstance(body, PreKeyMessage) else body
    plaintext = aead.unseal(aes_key, message.nonce, message.ciphertext, after.session_id + message.prefix)
    return {
        "associated_data": after.session_id.hex(),
        "root_key": after.ratchets.double.root_key.expose().hex(),
        "chain_key": double.sending.key.hex(),
        "message_key": message_key.hex(),
        "pq_message_key": pq_message_key.hex(),
        "aes_key": aes_key.hex(),
        "commitment": commitment.hex(),
        "plaintext": plaintext.hex(),
    }


def _receiving_json(session: Session) -> JsonObject:
    receiving = session.ratchets.double.receiving
    if receiving is None:
        raise AssertionError("a session that received has a receiving chain")
    return {
        "associated_data": session.session_id.hex(),
        "root_key": session.ratchets.double.root_key.expose().hex(),
        "chain_key": receiving.key.hex(),
        "pq_root_key": session.ratchets.pq.root_key.expose().hex(),
    }


def _envelope_json(encoded: bytes) -> JsonObject:
    envelope = Envelope.decode(encoded)
    return {
        "envelope_id": str(envelope.envelope_id),
        "sender": address_json(envelope.sender),
        "lane": int(envelope.lane),
        "ttl": envelope.ttl,
    }


def _content_json(content: Content) -> JsonObject:
    return {
        "message_id": str(content.message_id),
        "kind": content.kind,
        "conversation_id": content.conversation_id,
        "sent_at": content.sent_at,
        "body": content.body.hex(),
    }
