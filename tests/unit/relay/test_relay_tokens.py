"""Device tokens on connections that stay: expiry, refresh, revocation."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, Clock, FrameClient, RelayWorld, Tokens, address
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error, Refresh
from transport_adapters.server.credential import Credential, Expiry
from transport_adapters.server.ports import Principal, TokenVerifier
from transport_adapters.server.settings import RelaySettings


@dataclass
class SimpleAuthority:
    tokens: TokenVerifier
    settings: RelaySettings
    cuts: int
    now: Callable[[], int]


@pytest.mark.parametrize("settings", [replace(PATIENT, token_grace=0.01)])
async def test_an_expired_token_is_announced_then_ends_the_connection(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    client.hello(token=world.tokens.issue(bob, lifetime_ms=10))
    assert await client.closed() is CloseCode.TOKEN_EXPIRED
    assert [(error.code, error.fatal) for error in client.errors()] == [
        ("token_expired", False),
        ("token_expired", True),
    ]


async def test_a_fresh_token_in_time_keeps_the_connection(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    client.hello(token=world.tokens.issue(bob, lifetime_ms=10))
    for _ in range(3):
        assert (await client.next(Error)).fatal is False
        client.say(Refresh(world.tokens.issue(bob, lifetime_ms=10)))
    client.say(Refresh(world.tokens.issue(bob)))
    await client.answered(bob)


async def test_a_fresh_token_stops_the_clocks_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    call_later = loop.call_later

    def recorded(*args: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", recorded)
    clock = Clock()
    credential = Credential(SimpleAuthority(Tokens(clock), PATIENT, 0, clock), Expiry(print, print))
    for _ in range(2):
        credential.hold("token", Principal(address("bob"), 1, clock() + 60_000))
    assert [timer.cancelled() for timer in timers] == [True, True, False, False]
    assert [round(timer.when() - loop.time()) for timer in timers] == [60, 85, 60, 85]
    credential.drop()
    assert all(timer.cancelled() for timer in timers)


async def test_another_devices_token_does_not_refresh(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, bob)
    await client.online()
    client.say(Refresh(world.tokens.issue(alice)))
    assert (await client.next(Error)).code is ErrorCode.TOKEN_INVALID
    client.say(Refresh("no such token"))
    assert (await client.next(Error)).code is ErrorCode.TOKEN_INVALID
    await client.answered(bob)


async def test_a_revocation_met_at_refresh_ends_the_connection(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    await client.online()
    world.tokens.refused[bob] = "device_revoked"
    client.say(Refresh(world.tokens.issue(bob)))
    assert await client.closed() is CloseCode.REVOKED


@pytest.mark.parametrize("settings", [replace(PATIENT, reread_interval=0.02)])
@pytest.mark.parametrize(
    ("code", "close_code"),
    [("token_invalid", CloseCode.TOKEN_EXPIRED), ("device_revoked", CloseCode.REVOKED)],
)
async def test_a_revocation_that_nobody_announced_is_noticed(
    world: RelayWorld, bob: DeviceAddress, code: str, close_code: CloseCode
) -> None:
    client = FrameClient(world, bob)
    await client.online()
    world.tokens.refused[bob] = code
    assert await client.closed() is close_code


async def test_a_device_revoked_while_it_says_hello_does_not_slip_in(
    world: RelayWorld, bob: DeviceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = world.tokens.verify

    async def revoked_meanwhile(token: str) -> Principal:
        principal = await verify(token)  # as the database was when it was asked
        if not world.tokens.refused:
            world.tokens.refused[bob] = "device_revoked"
            world.relay.cut(bob)
        return principal

    monkeypatch.setattr(world.tokens, "verify", revoked_meanwhile)
    client = FrameClient(world, bob)
    client.hello()
    assert await client.closed() is CloseCode.REVOKED


async def test_cutting_a_user_ends_all_of_its_devices_and_nobody_elses(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    second = await world.device("bob", 2)
    clients = [FrameClient(world, each) for each in (bob, second, alice)]
    for client in clients:
        await client.online()
    world.relay.cut(bob.user_id)
    assert await clients[0].closed() is CloseCode.REVOKED
    assert await clients[1].closed() is CloseCode.REVOKED
    await clients[2].answered(alice)
