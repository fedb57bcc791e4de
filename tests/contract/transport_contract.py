"""What every transport promises (transport_adapters/base.py), as tests: inherit `TransportContract`, give `carrier`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import func, select

from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    Peer,
    RelayWorld,
    eventually,
    relay_world,
    within,
)
from transport_adapters.base import (
    Accepted,
    Announce,
    Cursor,
    Delivery,
    EnvelopeTransport,
    ListClaim,
    PresenceSeen,
    PresenceState,
    Refused,
    SeqRange,
    TransportRefusedError,
    TransportUnavailableError,
    TypeTo,
    TypingSeen,
    Watch,
)
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.server.settings import DEFAULT_MAILBOX, MailboxSettings, Rate, RelaySettings
from transport_adapters.server.tables import ACKED


class Carrier(Protocol):
    """A transport's two ends around one relay."""

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        """Make a client."""
        ...

    async def drop(self) -> None:
        """Break all connections as a failing network would."""
        ...


@dataclass
class Scene:
    """A relay, a transport to it, and the peers that a test makes."""

    world: RelayWorld
    carrier: Carrier
    peers: list[Peer] = field(default_factory=list)
    tokens_issued: int = 0

    def peer(
        self,
        owner: DeviceAddress,
        *,
        options: LinkOptions = EAGER_LINK,
        cursor: Cursor | None = None,
        lifetime_ms: int = 900_000,
    ) -> Peer:
        cell = CursorCell()
        cell.value = cursor or cell.value

        async def token() -> str:
            self.tokens_issued += 1
            return self.world.tokens.issue(owner, lifetime_ms)

        self.peers.append(Peer(self.carrier.transport(token, cell, options), cell))
        return self.peers[-1]

    async def pair(self) -> tuple[DeviceAddress, DeviceAddress, Peer, Peer]:
        """Two registered devices of two users, both online."""
        alice, bob = await self.world.device("alice"), await self.world.device("bob")
        at_alice, at_bob = self.peer(alice), self.peer(bob)
        await at_alice.online()
        await at_bob.online()
        return alice, bob, at_alice, at_bob

    async def stored(self, owner: DeviceAddress) -> int:
        """Count what waits in a device's mailbox."""
        tables = self.world.relay.tables
        statement = (
            select(func.count())
            .select_from(tables.envelopes.join(tables.inboxes, tables.inboxes.c.id == tables.envelopes.c.inbox_id))
            .where(tables.inboxes.c.user_id == owner.user_id, tables.inboxes.c.device_id == owner.device_id.raw)
            .where(tables.envelopes.c.state < ACKED)
        )
        return await self.world.database.read(lambda on: on.scalar(statement) or 0)

    async def until_stored(self, owner: DeviceAddress, count: int) -> None:
        async def holds() -> bool:
            return await self.stored(owner) == count

        await eventually(holds)


class TransportContract:
    """Inherit, and give `carry`."""

    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        raise NotImplementedError

    @pytest.fixture
    def settings(self) -> RelaySettings:
        return PATIENT

    @pytest.fixture
    def mailbox(self) -> MailboxSettings:
        return DEFAULT_MAILBOX

    @pytest.fixture
    async def scene(self, tmp_path: Path, settings: RelaySettings, mailbox: MailboxSettings) -> AsyncIterator[Scene]:
        async with relay_world(tmp_path, settings, mailbox) as world, self.carry(world) as carrier:
            scene = Scene(world, carrier)
            yield scene
            for peer in scene.peers:
                await peer.close()

    async def test_an_accepted_envelope_is_delivered_byte_for_byte(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob, bytes(range(256)))
        assert await within(at_alice.transport.send(outgoing)) == Accepted(outgoing.envelope_id, duplicate=False)
        delivery = await at_bob.next()
        assert (delivery.seq, delivery.envelope, delivery.dropped) == (1, outgoing.envelope, None)

    async def test_what_was_sent_while_the_recipient_was_away_waits_for_it(self, scene: Scene) -> None:
        alice, bob = await scene.world.device("alice"), await scene.world.device("bob")
        at_alice = scene.peer(alice)
        await at_alice.online()
        outgoing = scene.world.outgoing(alice, bob)
        await within(at_alice.transport.send(outgoing))
        at_bob = scene.peer(bob)
        assert (await at_bob.online()).head_seq == 1
        assert (await at_bob.next()).envelope == outgoing.envelope

    async def test_the_largest_envelope_passes(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        overhead = len(scene.world.outgoing(alice, bob, b"").envelope)
        outgoing = scene.world.outgoing(alice, bob, bytes(MAX_ENVELOPE - overhead))
        assert len(outgoing.envelope) == MAX_ENVELOPE
        await within(at_alice.transport.send(outgoing))
        assert (await at_bob.next()).envelope == outgoing.envelope

    async def test_a_retried_send_is_stored_once(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob)
        await within(at_alice.transport.send(outgoing))
        assert await within(at_alice.transport.send(outgoing)) == Accepted(outgoing.envelope_id, duplicate=True)
        await at_bob.ack(await at_bob.next())
        await scene.until_stored(bob, 0)
        assert await within(at_alice.transport.send(outgoing)) == Accepted(outgoing.envelope_id, duplicate=True)
        assert await scene.stored(bob) == 0

    async def test_two_sends_of_one_envelope_at_once_get_one_answer(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob)
        results = await within(asyncio.gather(*(at_alice.transport.send(outgoing) for _ in range(3))))
        assert {type(each) for each in results} == {Accepted}
        assert await scene.stored(bob) == 1

    async def test_many_sends_at_once_keep_their_order(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        sent = [scene.world.outgoing(alice, bob, b"%d" % n) for n in range(200)]
        results = await within(asyncio.gather(*(at_alice.transport.send(each) for each in sent)))
        assert results == [Accepted(each.envelope_id, duplicate=False) for each in sent]
        received = await at_bob.take(200)
        assert [each.envelope for each in received] == [each.envelope for each in sent]
        assert [each.seq for each in received] == list(range(1, 201))

    async def test_acked_envelopes_are_gone_and_others_come_again_after_a_reconnect(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        sent = [scene.world.outgoing(alice, bob, b"%d" % n) for n in range(5)]
        for each in sent:
            await within(at_alice.transport.send(each))
        received = await at_bob.take(5)
        await at_bob.ack(received[0], received[1], received[3])
        await scene.until_stored(bob, 2)
        await scene.carrier.drop()
        connected = await at_bob.online()
        assert (connected.head_seq, connected.acked_seq) == (5, 4)
        again = await at_bob.take(2)
        assert [each.envelope for each in again] == [sent[2].envelope, sent[4].envelope]
        assert [each.seq for each in again] == [3, 5]

    async def test_a_send_cut_off_before_its_answer_says_so_and_its_retry_is_stored_once(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob)
        sending = asyncio.create_task(at_alice.transport.send(outgoing))
        await asyncio.sleep(0)
        await scene.carrier.drop()
        try:
            await within(sending)
        except TransportUnavailableError:
            await at_alice.online()
            await within(at_alice.transport.send(outgoing))
        await at_bob.online()
        assert (await at_bob.next()).envelope == outgoing.envelope
        assert await scene.stored(bob) == 1

    async def test_sending_without_a_connection_says_so(self, scene: Scene) -> None:
        alice, bob = await scene.world.device("alice"), await scene.world.device("bob")
        cell = CursorCell()

        async def token() -> str:
            return scene.world.tokens.issue(alice)

        transport = scene.carrier.transport(token, cell, EAGER_LINK)
        with pytest.raises(TransportUnavailableError):
            await transport.send(scene.world.outgoing(alice, bob))
        await transport.aclose()

    async def test_hello_states_the_highest_counter_and_the_highest_ack(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        for counter in (7, 3):  # a retry with a lower counter comes late, and lowers nothing
            outgoing = replace(scene.world.outgoing(alice, bob), counter=counter)
            await within(at_alice.transport.send(outgoing))
        await at_bob.ack(*await at_bob.take(2))
        await scene.until_stored(bob, 0)
        await scene.carrier.drop()
        assert (await at_alice.online()).accepted_counter == 7
        connected = await at_bob.online()
        assert (connected.acked_epoch, connected.acked_seq) == (connected.epoch, 2)

    async def test_a_watermark_above_the_head_forces_a_new_epoch_and_loses_nothing(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob)
        await within(at_alice.transport.send(outgoing))
        first = await at_bob.next()
        at_bob.cursor.value = Cursor(first.epoch, 1_000)
        await scene.carrier.drop()
        connected = await at_bob.online()
        assert connected.epoch > first.epoch
        again = await at_bob.next()
        assert (again.epoch, again.seq, again.envelope) == (connected.epoch, first.seq, first.envelope)

    async def test_an_ack_of_another_epoch_or_above_the_head_deletes_nothing(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        await within(at_alice.transport.send(scene.world.outgoing(alice, bob)))
        epoch = (await at_bob.next()).epoch
        await at_bob.transport.ack(epoch + 1, [SeqRange(1, 1)])
        await at_bob.transport.ack(epoch, [SeqRange(1, 2)])
        # Frames are taken in order: when this one is answered, the acks were judged.
        await within(at_bob.transport.send(scene.world.outgoing(bob, alice)))
        assert await scene.stored(bob) == 1

    async def test_an_expired_envelope_is_delivered_as_word_of_it_and_acked_like_any_other(self, scene: Scene) -> None:
        alice, bob = await scene.world.device("alice"), await scene.world.device("bob")
        at_alice = scene.peer(alice)
        await at_alice.online()
        outgoing = scene.world.outgoing(alice, bob, ttl=10)
        await within(at_alice.transport.send(outgoing))
        scene.world.clock.advance(10)
        at_bob = scene.peer(bob)
        connected = await at_bob.online()
        delivery = await at_bob.next()
        assert delivery == Delivery(connected.epoch, 1, None, alice, outgoing.envelope_id, "ttl")
        await at_bob.ack(delivery)
        await scene.until_stored(bob, 0)

    async def test_urgent_envelopes_go_before_what_waited_longer(self, scene: Scene) -> None:
        alice, bob = await scene.world.device("alice"), await scene.world.device("bob")
        at_alice = scene.peer(alice)
        await at_alice.online()
        lanes = [Lane.BULK, Lane.RECEIPT, Lane.CHAT, Lane.CONTROL]
        for lane in lanes:
            await within(at_alice.transport.send(scene.world.outgoing(alice, bob, lane=lane)))
        at_bob = scene.peer(bob)
        assert [each.seq for each in await at_bob.take(4)] == [4, 3, 2, 1]

    async def test_a_small_window_slows_but_loses_nothing(self, scene: Scene) -> None:
        alice, bob = await scene.world.device("alice"), await scene.world.device("bob")
        at_alice, at_bob = scene.peer(alice), scene.peer(bob, options=replace(EAGER_LINK, credit_messages=2))
        await at_alice.online()
        await at_bob.online()
        sent = [scene.world.outgoing(alice, bob, b"%d" % n) for n in range(20)]
        await within(asyncio.gather(*(at_alice.transport.send(each) for each in sent)))
        assert [each.envelope for each in await at_bob.take(20)] == [each.envelope for each in sent]

    async def test_a_stale_device_list_is_named_with_the_current_one(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob)
        second = await scene.world.device("bob", 2)
        result = await within(at_alice.transport.send(outgoing))
        assert isinstance(result, Refused)
        assert (result.envelope_id, result.code) == (outgoing.envelope_id, "stale_device_list")
        assert (result.stale_user_id, result.stale_seq) == (bob.user_id, 2)
        assert result.device_ids == (bob.device_id, second.device_id)
        assert await scene.stored(bob) == 0

    async def test_a_senders_own_stale_list_is_refused_as_well(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        outgoing = replace(scene.world.outgoing(alice, bob), sender_list=ListClaim(1, bytes(32)))
        result = await within(at_alice.transport.send(outgoing))
        assert isinstance(result, Refused)
        assert (result.code, result.stale_user_id) == ("stale_device_list", alice.user_id)

    async def test_a_device_that_cannot_receive_is_named_as_such(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        scene.world.lists.unavailable.add(bob)
        assert await self._refusal(scene, at_alice, alice, bob) == "device_unavailable"

    async def test_a_contact_that_takes_nothing_is_refused(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        scene.world.contacts.refused.add(("alice", "bob"))
        assert await self._refusal(scene, at_alice, alice, bob) == "contact_refused"

    async def test_another_senders_name_is_refused(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        carol = await scene.world.device("carol")
        assert await self._refusal(scene, at_alice, carol, bob) == "wrong_sender"
        assert alice != carol

    async def test_a_large_body_does_not_go_in_the_urgent_lane(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        outgoing = scene.world.outgoing(alice, bob, bytes(8 * 1024 + 1), lane=Lane.CONTROL)
        result = await within(at_alice.transport.send(outgoing))
        assert isinstance(result, Refused)
        assert result.code == "too_large"

    @pytest.mark.parametrize("mailbox", [replace(DEFAULT_MAILBOX, max_envelopes=4)])
    async def test_a_full_inbox_refuses_and_keeps_what_it_has(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        for _ in range(2):  # one user gets half of it
            assert isinstance(await within(at_alice.transport.send(scene.world.outgoing(alice, bob))), Accepted)
        assert await self._refusal(scene, at_alice, alice, bob) == "inbox_full"
        assert await scene.stored(bob) == 2
        await at_bob.ack(await at_bob.next())
        await scene.until_stored(bob, 1)
        assert isinstance(await within(at_alice.transport.send(scene.world.outgoing(alice, bob))), Accepted)

    @pytest.mark.parametrize("settings", [replace(PATIENT, send_rate=Rate(per_second=2, burst=3))])
    async def test_a_sender_that_is_too_fast_is_told_when_to_try_again(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        for _ in range(3):
            await within(at_alice.transport.send(scene.world.outgoing(alice, bob)))
        result = await within(at_alice.transport.send(scene.world.outgoing(alice, bob)))
        assert isinstance(result, Refused)
        assert (result.code, result.retry_after) == ("rate_limited", 0.5)
        scene.world.clock.advance(0.5)
        assert isinstance(await within(at_alice.transport.send(scene.world.outgoing(alice, bob))), Accepted)

    async def test_another_program_with_the_same_device_ends_the_first_for_good(self, scene: Scene) -> None:
        bob = await scene.world.device("bob")
        first = scene.peer(bob)
        await first.online()
        second = scene.peer(bob)
        await second.online()
        refusal = await within(first.outcome)
        assert isinstance(refusal, TransportRefusedError)
        assert (refusal.reason, refusal.close_code) == ("replaced", CloseCode.REPLACED)
        assert not second.outcome.done()

    async def test_a_revoked_device_is_cut_for_good(self, scene: Scene) -> None:
        _, bob, at_alice, at_bob = await scene.pair()
        scene.world.tokens.refused[bob] = "device_revoked"
        scene.world.relay.cut(bob)
        refusal = await within(at_bob.outcome)
        assert isinstance(refusal, TransportRefusedError)
        assert (refusal.reason, refusal.close_code) == ("device_revoked", CloseCode.REVOKED)
        assert not at_alice.outcome.done()

    async def test_a_revoked_device_is_refused_at_hello(self, scene: Scene) -> None:
        bob = await scene.world.device("bob")
        scene.world.tokens.refused[bob] = "device_revoked"
        refusal = await within(scene.peer(bob).outcome)
        assert isinstance(refusal, TransportRefusedError)
        assert refusal.close_code == CloseCode.REVOKED

    async def test_an_ended_login_is_tried_again_with_a_fresh_token(self, scene: Scene) -> None:
        _, bob, _, at_bob = await scene.pair()
        scene.world.relay.cut(bob.user_id, ErrorCode.TOKEN_INVALID)
        await at_bob.online()

    async def test_an_expiring_token_is_renewed_on_the_same_connection(self, scene: Scene) -> None:
        bob = await scene.world.device("bob")
        at_bob = scene.peer(bob, lifetime_ms=20)
        await at_bob.online()
        await eventually(lambda: scene.tokens_issued >= 4)
        assert at_bob.connected.empty()

    async def test_presence_and_typing_are_carried_and_presence_is_said_again_after_a_break(self, scene: Scene) -> None:
        alice, bob, at_alice, at_bob = await scene.pair()
        scene.world.contacts.visible.add((alice.user_id, bob.user_id))
        await at_alice.transport.signal(Watch((bob.user_id,)))
        await at_bob.transport.signal(Announce(PresenceState.AWAY))
        await at_alice.sees(PresenceSeen(bob.user_id, PresenceState.AWAY))
        typing = TypingSeen(bob.user_id, ConversationId("team-7"), active=True)
        await at_bob.transport.signal(TypeTo(alice.user_id, active=True, conversation=typing.conversation))
        await at_alice.sees(typing)
        await scene.carrier.drop()
        await at_alice.online()
        await at_alice.sees(PresenceSeen(bob.user_id, PresenceState.AWAY))

    async def test_closing_ends_receive_and_sending(self, scene: Scene) -> None:
        alice, bob, at_alice, _ = await scene.pair()
        await at_alice.transport.aclose()
        assert await within(at_alice.outcome) is None
        await at_alice.transport.aclose()
        with pytest.raises(TransportUnavailableError):
            await at_alice.transport.send(scene.world.outgoing(alice, bob))
        await eventually(lambda: not scene.world.relay.is_live(alice))

    async def _refusal(self, scene: Scene, at: Peer, sender: DeviceAddress, recipient: DeviceAddress) -> str:
        result = await within(at.transport.send(scene.world.outgoing(sender, recipient)))
        assert isinstance(result, Refused)
        return result.code
