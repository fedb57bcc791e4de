"""A conversation while it is written down: each step is taken at once, so the next one can follow from it.

Owns: names for all randomness, the clock, the steps of a case.
Does not know about: what makes a good story (conversation.py, reception.py).
"""

from typing import Final, final

from e2ee.cli.vectors.cases.people import NOW, Person, kem_pair
from e2ee.cli.vectors.drawn import drawn, encapsulation
from e2ee.cli.vectors.model import Fields, JsonObject
from e2ee.cli.vectors.operations.conversation import Conversation
from e2ee.session import Session
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PreKeyMessage, decode_body
from e2ee.wire.public_keys import RatchetEncapsulationKey

WEEKS: Final = 4 * 7 * 24 * 3600
"""The longest ttl, in seconds."""


@final
class Story:
    """Steps so far. `name` keeps its randomness apart from that of other stories."""

    def __init__(self, name: str, *people: Person) -> None:
        self._name = name
        self._people = {each.user_id: each for each in people}
        self._talk = Conversation([Fields(each.device_json()) for each in people])
        self._seeds = self._waited = 0
        self._steps: list[JsonObject] = []
        self._outcomes: list[JsonObject] = []

    def start(
        self,
        who: Person,
        peer: Person,
        *,
        one_time: bool = True,
        last_resort: bool = False,
        number: int = 0,
        **changes: object,
    ) -> None:
        """Start a session from a bundle of the peer; `number` picks the recorded encapsulation and one-time prekey."""
        kem = peer.last_resort if last_resort else peer.one_time_kem
        shared_secret, ciphertext = encapsulation(kem_pair(kem).public.raw, number)
        named = {"one_time_prekey_id": peer.one_time_prekeys[number].prekey_id} if one_time else {}
        fields: JsonObject = {
            "peer": peer.user_id,
            "signed_prekey_id": peer.signed_prekey.prekey_id,
            **named,
            "kem_prekey_id": kem.prekey_id,
            "created": self._time(),
            "ephemeral_private_key": self._drawn("ephemeral key", 32),
            "kem_shared_secret": shared_secret.hex(),
            "kem_ciphertext": ciphertext.hex(),
            **changes,
        }
        self.step("start", who, **fields)

    def send(self, who: Person, peer: Person, body: bytes | None = None, kind: int = 1, **changes: object) -> int:
        """Send text that names the step, or another body; return the number of the step."""
        number = len(self._steps)
        turning = self.session(who, peer).ratchets.double.sending is None
        turn = {"ratchet_private_key": self._drawn("ratchet key", 32)} if turning else {}
        fields: JsonObject = {
            "peer": peer.user_id,
            "kind": int(kind),
            "body": (f"\1message {number}".encode() if body is None else body).hex(),
            "conversation_id": "",
            "lane": 1,
            "ttl": WEEKS,
            "message_id": self._drawn("message id", 16),
            **turn,
            "nonce": self._drawn("nonce", 12),
            "envelope_id": self._drawn("envelope id", 16),
            **changes,
        }
        try:
            self.step("send", who, **fields)
        except ValueError:
            # Nothing changed: the script refused a draw, so a post-quantum epoch is proposed, from a seed.
            self.step("send", who, **fields, seed=ratchet_seed(self._seeds).hex())
            self._seeds += 1
        return number

    def deliver(self, who: Person, *numbers: int) -> None:
        """Deliver the envelopes of these send steps to a device, in this order."""
        for number in numbers:
            try:
                self.step("deliver", who, envelope_of=number)
            except ValueError:
                # Nothing changed: something is to be encapsulated, and the outcome is prescribed.
                secret, ciphertext = encapsulation(_proposed(self.envelope(number)))
                named = {"shared_secret": secret.hex(), "ciphertext": ciphertext.hex()}
                self.step("deliver", who, envelope_of=number, **named)

    def deliver_changed(self, who: Person, number: int, offset: int) -> None:
        """Deliver an envelope of which one byte was complemented on the way."""
        self.step("deliver", who, envelope_of=number, complement_byte=offset)

    def pass_on(self, who: Person, peer: Person, count: int = 1) -> None:
        """Send some messages and deliver each at once."""
        for _ in range(count):
            self.deliver(peer, self.send(who, peer))

    def step(self, step: str, who: Person, **fields: object) -> None:
        """Take a step now, or at the time that the fields name."""
        taken: JsonObject = {"step": step, "device": who.user_id, "time": self._time(), **fields}
        self._outcomes.append(self._talk.step(Fields(taken)))
        self._steps.append(taken)

    def envelope(self, number: int) -> bytes:
        """Return what a send step gave."""
        return bytes.fromhex(self._outcomes[number]["envelope"])

    def session(self, who: Person, peer: Person) -> Session:
        """Return the session that the next message goes on."""
        return self._talk.devices[who.user_id].sending_session(peer.address, self._time())

    def conversation(self) -> JsonObject:
        """Return the case of both ends, with those prekeys alone that a session started from."""
        devices = [_with_prekeys(each.device_json(), self._claimed(each)) for each in self._people.values()]
        return {"devices": devices, "steps": self._steps}

    def reception(self, who: Person, *envelopes: bytes) -> JsonObject:
        """Return the case of one end, to which further envelopes come."""
        steps = [self._seen_alone(each) for each in self._steps if each["device"] == who.user_id]
        more = [_receive(who, self._time(), each) for each in envelopes]
        return {"device": who.device_json(), "steps": [*steps, *more]}

    def _claimed(self, who: Person) -> set[int]:
        started = [each for each in self._steps if each["step"] == "start" and each["peer"] == who.user_id]
        names = ("signed_prekey_id", "one_time_prekey_id", "kem_prekey_id")
        return {each[name] for each in started for name in names if name in each}

    def _seen_alone(self, step: JsonObject) -> JsonObject:
        if step["step"] != "deliver":
            return step
        seen = _receive(self._people[step["device"]], step["time"], self.envelope(step["envelope_of"]))
        return {**seen, **{name: step[name] for name in ("shared_secret", "ciphertext") if name in step}}

    def wait(self, milliseconds: int) -> None:
        """Let time pass for everybody."""
        self._waited += milliseconds

    def _time(self) -> int:
        return NOW + self._waited + 1_000 * (len(self._steps) + 1)

    def _drawn(self, what: str, length: int) -> str:
        return drawn(f"{self._name}: {what} of step {len(self._steps)}", length).hex()


def ratchet_seed(number: int) -> bytes:
    """Return the seed of a post-quantum proposal; its encapsulation is recorded."""
    return drawn(f"pq ratchet: seed {number}", 64)


def _proposed(envelope: bytes) -> bytes:
    """Return the encapsulation key that an envelope brings."""
    body = decode_body(Envelope.decode(envelope).body)
    message = body.message if isinstance(body, PreKeyMessage) else body
    return message.header.pq_payload[: RatchetEncapsulationKey.LENGTH]


def _receive(who: Person, time: int, envelope: bytes) -> JsonObject:
    return {"step": "receive", "device": who.user_id, "time": time, "envelope": envelope.hex()}


def _with_prekeys(device: JsonObject, prekey_ids: set[int]) -> JsonObject:
    lists = ("signed_prekeys", "one_time_prekeys", "kem_prekeys")
    return {**device, **{name: [each for each in device[name] if each["prekey_id"] in prekey_ids] for name in lists}}
