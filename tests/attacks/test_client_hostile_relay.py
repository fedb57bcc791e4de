"""A relay that lies to the client: whatever it delivers is refused by name, and nothing stored is lost by it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from e2ee.ports import Record, Table
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, parse_user_id
from tests.client_world import Actor, ClientWorld, Tap, client_world, within
from tests.contract.relay_world import eventually
from transport_adapters import events
from transport_adapters.base import Connected, Delivery, Incoming, Outgoing, Refused, SendResult

HIGHEST = 2**63 - 1
PRECIOUS = (Table.ACCOUNT, Table.OWN_DEVICE_LISTS, Table.CONTACTS, Table.PREKEYS, Table.SESSIONS, Table.SKIPPED_KEYS)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


class Pair:
    """Alice and Bob in the middle of a conversation; Bob's relay is the liar."""

    def __init__(self, alice: Actor, bob: Actor, tap: Tap) -> None:
        self.alice, self.bob, self.tap = alice, bob, tap
        self._seq = 1_000

    @classmethod
    async def meet(cls, world: ClientWorld) -> "Pair":
        tap = Tap(world)
        alice, bob = await world.open("alice"), await world.open("bob", transport=tap)
        for sender, recipient in ((alice, bob), (bob, alice)):
            await sender.client.send(recipient.user, "hello")
            assert await recipient.read() == ["hello"]
        return cls(alice, bob, tap)

    def deliver(self, envelope: bytes) -> None:
        self._seq += 1
        self.tap.inject(Delivery(self.epoch, self._seq, envelope))

    @property
    def epoch(self) -> int:
        assert self.tap.connected is not None
        return self.tap.connected.epoch

    async def assert_unharmed(self) -> None:
        """The conversation goes on in both directions."""
        self.tap.change = lambda incoming: [incoming]
        await self.alice.client.send("bob", "after the attack")
        assert await self.bob.read() == ["after the attack"]
        await self.bob.client.send("alice", "still here")
        assert await self.alice.read() == ["still here"]
        assert self.bob.events(events.Ended) == []


def precious(actor: Actor) -> dict[Table, Sequence[Record]]:
    with actor.store.read() as tx:
        return {table: tuple(tx.scan(table)) for table in PRECIOUS}


async def test_garbage_is_refused_by_name_and_changes_nothing(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    genuine = pair.tap.delivered[0].envelope
    assert genuine is not None
    contact = pair.bob.client.messenger.contact(pair.alice.client.address.user_id)
    before, random = precious(pair.bob), Random(7)
    cut = [genuine[:length] for length in (0, 1, 17, 100, len(genuine) - 1)]
    flipped = []
    for _ in range(40):
        changed = bytearray(genuine)
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        flipped.append(bytes(changed))
    garbage = [*cut, *flipped, random.randbytes(500), genuine + b"\0", b"\xff" * 96 * 1024]
    for each in garbage:
        pair.deliver(each)
    # A flipped bit in a field that says how to transport the body leaves a duplicate, which is dropped in silence.
    await pair.bob.event(events.Unreadable, len(cut) + 3)
    await pair.assert_unharmed()
    assert {event.code for event in pair.bob.events(events.Unreadable)} <= {
        "malformed_message",
        "unsupported_version",
        "authentication_failed",
        "wrong_recipient",
        "session_not_found",
        "invalid_public_key",
        "unknown_prekey",
        "unlisted_device",
        "replayed_handshake",
        "too_many_skipped",
        "epoch_unknown",
        "duplicate_message",
        "invalid_signature",
    }
    after = precious(pair.bob)
    kept = (Table.ACCOUNT, Table.OWN_DEVICE_LISTS, Table.PREKEYS)
    assert {table: after[table] for table in kept} == {table: before[table] for table in kept}
    # It may make us fetch alice's list and start a session with her, which is what heals a lost one.
    now = pair.bob.client.messenger.contact(pair.alice.client.address.user_id)
    assert contact is not None
    assert now is not None
    assert replace(now, queried_at=contact.queried_at) == contact


async def test_a_replayed_envelope_is_shown_once_and_acknowledged_each_time(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    for text in ("one", "two"):
        await pair.alice.client.send("bob", text)
    assert await pair.bob.read(2) == ["one", "two"]
    before = precious(pair.bob)
    replays = [each.envelope for each in pair.tap.delivered if each.envelope is not None]
    for _ in range(3):
        for envelope in replays:
            pair.deliver(envelope)
    for delivery in pair.tap.delivered:
        pair.tap.inject(delivery)
    await pair.assert_unharmed()
    assert pair.bob.events(events.Unreadable) == []
    assert precious(pair.bob)[Table.PREKEYS] == before[Table.PREKEYS]
    acked = {seq for _, ranges in pair.tap.acked for each in ranges for seq in range(each.first, each.last + 1)}
    assert {1_000 + number for number in range(1, 3 * len(replays) + 1)} <= acked


async def test_messages_withheld_doubled_and_shuffled_arrive_once_each(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    withheld: list[Incoming] = []

    def withhold(incoming: Incoming) -> list[Incoming]:
        withheld.append(incoming)
        return []

    pair.tap.change = withhold
    texts = [str(number) for number in range(30)]
    for text in texts:
        await pair.alice.client.send("bob", text)
    await within(pair.alice.client.flushed())
    await eventually(lambda: len(withheld) == len(texts))
    doubled = withheld * 2
    Random(3).shuffle(doubled)
    for incoming in doubled:
        pair.tap.inject(incoming)
    assert sorted(map(str, await pair.bob.read(len(texts)))) == sorted(texts)
    await pair.assert_unharmed()
    assert pair.bob.count(Table.MESSAGE_IDS) == len(texts) + 2
    assert pair.bob.events(events.Unreadable) == []


@pytest.mark.parametrize("seq", [0, 1, HIGHEST])
@pytest.mark.parametrize("epoch", [0, 1, HIGHEST])
async def test_positions_of_another_epoch_or_beyond_the_head_harm_nothing(
    world: ClientWorld, epoch: int, seq: int
) -> None:
    pair = await Pair.meet(world)
    genuine = pair.tap.delivered[0].envelope
    mallory = DeviceAddress(parse_user_id("mallory"), pair.alice.client.address.device_id)
    pair.tap.inject(Delivery(epoch, seq, genuine))
    pair.tap.inject(Delivery(epoch, seq, b"garbage"))
    pair.tap.inject(Delivery(epoch, seq, None, mallory, EnvelopeId(bytes(16)), "ttl"))
    await pair.bob.event(events.Expired)
    await pair.assert_unharmed()


@pytest.mark.parametrize(
    "hello",
    [
        Connected(0, 0, 0, 0, 0, 0, 0),
        Connected(HIGHEST, HIGHEST, HIGHEST, HIGHEST, HIGHEST, HIGHEST, HIGHEST),
        Connected(1, 0, HIGHEST, 7, HIGHEST, 0, HIGHEST),
    ],
)
async def test_a_hello_with_extreme_numbers_harms_nothing(world: ClientWorld, hello: Connected) -> None:
    pair = await Pair.meet(world)
    before = precious(pair.bob)
    pair.tap.inject(hello)
    await pair.bob.event(events.Online, 2)
    await pair.assert_unharmed()
    after = precious(pair.bob)
    # It may make us start anew, once an hour, and nothing more: no private half and no session is lost by it.
    kept = {record.key for record in after[Table.PREKEYS]}
    assert {record.key for record in before[Table.PREKEYS]} <= kept
    assert len(after[Table.SESSIONS]) >= len(before[Table.SESSIONS])


async def test_an_envelope_of_another_recipient_or_sender_is_refused_by_name(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    carol = await world.open("carol")
    await pair.alice.client.send("carol", "for carol alone")
    [message] = await carol.take(1)
    assert message.data == "for carol alone"
    await pair.bob.client.send("alice", "for alice alone")
    assert await pair.alice.read() == ["for alice alone"]
    to_bob = pair.tap.delivered[0].envelope
    assert to_bob is not None
    genuine = Envelope.decode(to_bob)
    to_carol = replace(genuine, recipient=carol.client.address)
    from_carol = replace(genuine, sender=carol.client.address)
    own = replace(genuine, sender=pair.bob.client.address)
    sent_by_bob = Envelope.decode(pair.tap.sent[0].envelope)
    reflected = replace(sent_by_bob, sender=pair.alice.client.address, recipient=pair.bob.client.address)
    before = precious(pair.bob)
    for each in (to_carol, from_carol, own, reflected):
        # Fresh bytes, so that they are not dropped as committed before.
        pair.deliver(replace(each, body=each.body[:-1] + bytes([each.body[-1] ^ 1])).encode())
    await pair.bob.event(events.Unreadable, 4)
    assert pair.bob.events(events.Unreadable)[0].code == "wrong_recipient"
    assert precious(pair.bob) == before
    await pair.assert_unharmed()


async def test_a_refusal_that_names_a_stranger_pins_nobody(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    mallory = await world.open("mallory")
    refusals = 5

    def blame_mallory(outgoing: Outgoing) -> SendResult | None:
        nonlocal refusals
        refusals -= 1
        stale = Refused(outgoing.envelope_id, "stale_device_list", "", None, parse_user_id("mallory"), 9)
        return stale if refusals >= 0 else None

    pair.tap.answer = blame_mallory
    await pair.bob.client.send("alice", "hello again")
    assert await pair.alice.read() == ["hello again"]
    assert pair.bob.client.messenger.contact(parse_user_id(mallory.user)) is None
    await pair.assert_unharmed()


async def test_nothing_that_is_sent_shows_what_it_says(world: ClientWorld) -> None:
    pair = await Pair.meet(world)
    text = "a sentence that would be recognised anywhere"
    message_id = await pair.bob.client.send("alice", text, conversation="a-conversation-id")
    assert await pair.alice.read() == [text]
    for outgoing in pair.tap.sent:
        for secret in (text.encode(), b"a-conversation-id", message_id.raw):
            assert secret not in outgoing.envelope
