"""Long-polling without asyncio: a thread with a plain HTTP client against the relay."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually, relay_world, within
from tests.contract.socketio_server import served
from transport_adapters.base import (
    Accepted,
    Cursor,
    InsecureUrlError,
    Refused,
    SeqRange,
    TransportRefusedError,
    TransportUnavailableError,
)
from transport_adapters.longpoll_sync import CREDIT, LongPoll
from transport_adapters.server.mount import endpoints
from transport_adapters.server.tables import ACKED

T = TypeVar("T")


class Thread:
    """Runs one client's calls outside of the event loop, one at a time, as its program would."""

    def __init__(self, world: RelayWorld, url: str, owner: DeviceAddress) -> None:
        self.relay = LongPoll(url, token=world.tokens.issue(owner))

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        return await within(asyncio.to_thread(function, *arguments), 30)

    async def online(self) -> None:
        await self.call(self.relay.hello, Cursor(0, 0))

    async def take(self, count: int) -> list[bytes | None]:
        taken: list[bytes | None] = []
        while len(taken) < count:
            for delivery in await self.call(self.relay.deliveries):
                taken.append(delivery.envelope)
                await self.call(self.relay.ack, delivery.epoch, [SeqRange(delivery.seq, delivery.seq)])
        return taken


async def all_acked(world: RelayWorld) -> bool:
    envelopes = world.relay.tables.envelopes
    waiting = select(func.count()).select_from(envelopes).where(envelopes.c.state < ACKED)
    return await world.database.read(lambda on: on.execute(waiting).scalar_one()) == 0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[RelayWorld, str]]:
    settings = replace(PATIENT, send_rate=replace(PATIENT.send_rate, burst=10_000))
    async with (
        relay_world(tmp_path, settings) as world,
        served(Starlette(routes=endpoints(world.relay))) as (url, _server),
    ):
        yield world, url
        await world.relay.close()


async def test_what_was_sent_arrives_is_acknowledged_and_does_not_come_again(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    alice, bob = await world.device("alice"), await world.device("bob")
    at_alice, at_bob = Thread(world, url, alice), Thread(world, url, bob)
    await at_alice.online()
    await at_bob.online()
    # More than the credit, so that it must be given back.
    sent = [world.outgoing(alice, bob, b"%d" % number) for number in range(CREDIT + 20)]
    for outgoing in sent:
        assert await at_alice.call(at_alice.relay.send, outgoing) == Accepted(outgoing.envelope_id, duplicate=False)
    assert await at_alice.call(at_alice.relay.send, sent[0]) == Accepted(sent[0].envelope_id, duplicate=True)
    assert await at_bob.take(len(sent)) == [each.envelope for each in sent]
    await eventually(lambda: all_acked(world))
    at_bob.relay.close()
    again = Thread(world, url, bob)
    assert (await again.call(again.relay.hello, Cursor(0, 0))).settled_through == len(sent)
    assert await again.call(again.relay.deliveries, 0) == []
    for each in (again, at_alice):
        each.relay.close()
        each.relay.close()


async def test_a_refusal_of_one_envelope_is_its_answer(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    alice, bob = await world.device("alice"), await world.device("bob")
    at_alice = Thread(world, url, alice)
    await at_alice.online()
    world.contacts.refused.add(("alice", "bob"))
    answer = await at_alice.call(at_alice.relay.send, world.outgoing(alice, bob))
    assert isinstance(answer, Refused)
    assert answer.code == "contact_refused"
    at_alice.relay.close()


async def test_a_revoked_device_is_told_so_for_good(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    bob = await world.device("bob")
    at_bob = Thread(world, url, bob)
    await at_bob.online()
    world.relay.cut(bob)
    with pytest.raises(TransportRefusedError, match="device_revoked"):
        await at_bob.take(1)
    at_bob.relay.close()


async def test_a_fresh_token_keeps_the_connection(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    alice, bob = await world.device("alice"), await world.device("bob")
    at_bob = Thread(world, url, bob)
    at_bob.relay = LongPoll(url, token=world.tokens.issue(bob, lifetime_ms=50))
    await at_bob.online()
    while not at_bob.relay.token_expired:
        await at_bob.call(at_bob.relay.deliveries, 0.1)
    await at_bob.call(at_bob.relay.refresh, world.tokens.issue(bob))
    assert not at_bob.relay.token_expired
    sender = FrameClient(world, alice)
    await sender.online()
    sent = sender.post(bob)
    assert await at_bob.take(1) == [sent.envelope]
    at_bob.relay.close()


async def test_a_clean_close_ends_the_connection_at_the_relay_at_once(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    bob = await world.device("bob")
    at_bob = Thread(world, url, bob)
    await at_bob.online()
    await at_bob.call(at_bob.relay.close)
    await eventually(lambda: not world.relay.is_live(bob))


async def test_a_server_that_is_not_there_or_is_no_relay_is_unavailable(site: tuple[RelayWorld, str]) -> None:
    world, url = site
    bob = await world.device("bob")
    for wrong in ("http://127.0.0.1:1", url + "/elsewhere"):
        thread = Thread(world, wrong, bob)
        with pytest.raises(TransportUnavailableError):
            await thread.online()
        thread.relay.close()


def test_plaintext_beyond_this_machine_is_refused() -> None:
    with pytest.raises(InsecureUrlError):
        LongPoll("http://chat.example", token="token")
