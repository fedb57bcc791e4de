"""Fuzz targets for devices that talk: a hostile network, a hostile peer, and two parties.

Owns: one prepared world, put back after every input, and what must hold in it.
Does not know about: how the inputs are found.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from e2ee import persist
from e2ee.errors import E2EEError
from e2ee.limits import DAY_MS, HOUR_MS
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.primitives.kdf import mac
from e2ee.private_keys import RatchetKemSeed
from e2ee.ratchet.pq_turns import CT_LABEL, EK_LABEL
from e2ee.ratchet.skipped_keys import nothing_skipped
from e2ee.ratchet.state import Answering, Offering, PqPhase, PqRatchetState, ProposeIdle, Waiting
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.session import Session
from e2ee.stores import session_records
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import RatchetMessage
from tests.fuzz.script import Script, edited
from tests.properties.test_two_parties import TwoParties
from tests.wire_objects import seeded_rng
from tests.world import Device, World, changed, content_from, talk, without

TEXT = "a message"
MAX_STEPS: Final = 60
OF_REFUSED: Final = (Table.UNREADABLE, Table.HEALING)
"""What a refused envelope may leave: a record of it, and a note to ask for it."""


class Prepared:
    """Bob in a session with Alice, and envelopes to him that have not arrived: of that session, and first ones."""

    def __init__(self) -> None:
        world = World("fuzz")
        self.alice, self.bob, carol, dave = (world.device(name) for name in ("alice", "bob", "carol", "dave"))
        talk(self.alice, self.bob)
        self.established = [self.alice.encrypt(self.bob, TEXT) for _ in range(3)]
        first = [carol.encrypt(self.bob, TEXT), carol.encrypt(self.bob, TEXT)]
        world.directory.prekeys[self.bob.address].one_time.clear()
        world.directory.prekeys[self.bob.address].one_time_kem.clear()
        last_resort = [dave.encrypt(self.bob, TEXT)]
        self.envelopes = [*self.established, *first, *last_resort]
        self.bodies = {Envelope.decode(each).body for each in self.envelopes}
        self._kept = [(device, device.snapshot()) for device in (self.alice, self.bob)]
        self.before = self.bob.snapshot()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put every device back after the block."""
        yield
        for device, snapshot in self._kept:
            device.restore(snapshot)


@cache
def prepared() -> Prepared:
    return Prepared()


def session_decrypt(data: bytes) -> None:
    """An edited message is refused with a typed error, and the session is the value that it was."""
    world, script = prepared(), Script(data)
    body = Envelope.decode(script.pick(world.established)).body
    session = world.bob.sending_session(world.alice)
    before = persist.encode_session(session)
    try:
        # Raw bytes too: the length of the corpus must not bound what a decoder sees.
        message = RatchetMessage.decode(edited(body, script))
        decrypted = session.decrypt(message, Arrival(nothing_skipped, world.bob.world.now))
    except E2EEError:
        assert persist.encode_session(session) == before
        return
    assert message.encode() == body
    assert decrypted.session != session


def messenger_receive(data: bytes) -> None:
    """An edited envelope never raises; unless its ciphertext and sender are genuine, it changes nothing."""
    world, script = prepared(), Script(data)
    genuine = script.pick(world.envelopes)
    if script.number() % 2:
        encoded = edited(genuine, script)
    else:
        body = edited(Envelope.decode(genuine).body, script)
        encoded = changed(genuine, body=body)
    with world.restored():
        reception = world.bob.receive(encoded)
        if reception.outcome is Outcome.STORED:
            assert Envelope.decode(encoded).body in world.bodies
            assert reception.sender == Envelope.decode(genuine).sender
            assert world.bob.read() == [TEXT]
        else:
            assert reception.outcome is Outcome.UNREADABLE
            assert without(world.bob.snapshot(), *OF_REFUSED) == without(world.before, *OF_REFUSED)


def hostile_peer(data: bytes) -> None:
    """An authenticated peer sends bytes that need not be a content, under a header that may lie."""
    world, script = prepared(), Script(data)
    with world.restored():
        session, now = world.alice.sending_session(world.bob), world.alice.world.now
        if script.number() % 2:
            double = session.ratchets.double._replace(previous_chain_length=script.number(4))
            session = session._replace(state=session.ratchets._replace(double=double))
        for _ in range(script.number() % 4):
            session, _ = session.encrypt(b"", now, world.alice.world.random.randbytes)
        assert_stored_or_unchanged(world.bob, world.alice.seal(world.bob, script.rest(), session))


def hostile_turn(data: bytes) -> None:
    """An authenticated peer takes any turn in the post-quantum ratchet, with any payload, authenticated or not."""
    world, script = prepared(), Script(data)
    with world.restored():
        liar, honest = script.pick(((world.alice, world.bob), (world.bob, world.alice)))
        if script.number() % 2:
            # Its own turn is due: it offers a key if it may, else it asks for one.
            _save(honest, honest.sending_session(liar).ask_for_healing())
            honest.encrypt(liar, TEXT)
        for _ in range(1 + script.number() % 3):
            # One message is lost, so that what is sealed below leaves no trace of the lie in the liar's own store.
            liar.encrypt(honest, TEXT)
            session = liar.sending_session(honest)
            pq = session.ratchets.pq
            pq = pq._replace(epoch=pq.epoch + script.number() % 3)
            turn = pq.turn._replace(phase=_any_phase(pq, script), asked=True, healing=script.number() % 2 == 1)
            lie = session._replace(state=session.ratchets._replace(pq=pq._replace(turn=turn)))
            content = content_from(liar, honest).encode()
            _, body = lie.encrypt(content, liar.world.now, liar.world.random.randbytes)
            assert_stored_or_unchanged(honest, liar.wrap(honest, body))


def _save(device: Device, session: Session) -> None:
    with device.store.write() as tx:
        session_records.save_session(tx, session)


def _any_phase(pq: PqRatchetState, script: Script) -> PqPhase:
    seed = RatchetKemSeed.generate(seeded_rng("a hostile turn"))
    match script.number() % 4:
        case 0:
            return Offering(seed, _authenticated(pq, EK_LABEL, seed.encapsulation_key().raw, script))
        case 1:
            return Answering(_authenticated(pq, CT_LABEL, bytes(1088), script), bytes(32), pq.sending)
        case 2:
            return Waiting()
        case _:
            return ProposeIdle()


def _authenticated(pq: PqRatchetState, label: bytes, raw: bytes, script: Script) -> bytes:
    raw = edited(raw, script)
    payload = raw + mac(pq.authentication_key.expose(), label, pq.epoch.to_bytes(4, "big") + raw)
    return edited(payload, script)


def assert_stored_or_unchanged(device: Device, envelope: bytes) -> None:
    before, waiting = device.snapshot(), len(device.messenger.inbound())
    reception = device.receive(envelope)
    if reception.outcome is Outcome.UNREADABLE:
        assert without(device.snapshot(), *OF_REFUSED) == without(before, *OF_REFUSED)
    elif reception.outcome is Outcome.STORED:
        assert len(device.messenger.inbound()) == waiting + 1
    else:
        assert reception.outcome is Outcome.CONSUMED


def two_parties(data: bytes) -> None:
    """A script of two devices and their network; `TwoParties` holds the invariants."""
    script, parties = Script(data), TwoParties()
    parties.begin(seed=script.number())
    for _ in range(MAX_STEPS):
        if not script:
            break
        script.pick(steps(parties))(parties, script)
        parties.nothing_was_shown_that_was_not_sent_and_nothing_twice()
    parties.teardown()


Step = Callable[[TwoParties, Script], None]

_ALWAYS: Final[tuple[Step, ...]] = (
    lambda parties, script: parties.send(script.number() % 2, script.number(2) % 500),
    lambda parties, script: parties.start_a_new_session(script.number() % 2),
    lambda parties, script: parties.restart(script.number() % 2),
    lambda parties, script: parties.wait(script.pick((1, HOUR_MS, DAY_MS))),
)
_IN_FLIGHT: Final[tuple[Step, ...]] = (
    lambda parties, script: parties.deliver_any(script.number()),
    lambda parties, script: parties.repeat_any(script.number()),
    lambda parties, script: parties.drop_any(script.number()),
    lambda parties, script: parties.tamper_with_any(script.number(), script.number(2)),
)
_AFTER_SENDING: Final[tuple[Step, ...]] = (lambda parties, script: parties.replay_any_ever_sent(script.number()),)


def steps(parties: TwoParties) -> tuple[Step, ...]:
    """Return what may happen next."""
    in_flight = _IN_FLIGHT if parties.world.network.in_flight else ()
    return _ALWAYS + in_flight + (_AFTER_SENDING if parties.texts else ())


CONVERSATIONS: Final = {
    "session_decrypt": session_decrypt,
    "messenger_receive": messenger_receive,
    "hostile_peer": hostile_peer,
    "hostile_turn": hostile_turn,
    "two_parties": two_parties,
}
