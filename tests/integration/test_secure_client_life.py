"""The life of a SecureClient: opening, iterating, closing, in every state and in any order."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2ee.errors import StoreLockedError, WrongPassphraseError
from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
from keyserver.client import KeyServerError, KeyServerUnavailableError
from tests.client_world import QUICK, ClientWorld, Gate, client_world, eager_socketio, within
from tests.store_files import CHEAP, KEY
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient
from transport_adapters.secure_client.directory import UserUnreachableError

NOBODY = "http://127.0.0.1:9"
"""Nothing listens on the discard port."""

CLIENT_CODE = (
    "/secure_client/",
    "adapters/link.py",
    "adapters/socketio.py",
    "/async_client.py",
    "/aiohttp/",
    "/httpx/",
)
"""Where tasks of a client run; the server's run in this process, too."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


class Traces:
    """Tasks and threads that a block leaves behind."""

    def __enter__(self) -> "Traces":
        self._tasks, self._threads = set(asyncio.all_tasks()), set(threading.enumerate())
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def assert_none(self) -> None:
        for _ in range(3):  # a cancelled waiter ends in the next turn of the loop
            await asyncio.sleep(0)
        left_over = map(repr, asyncio.all_tasks() - self._tasks)
        mine = [each for each in left_over if any(place in each for place in CLIENT_CODE)]
        assert mine == []
        left = set(threading.enumerate()) - self._threads
        assert [thread.name for thread in left if thread.name.startswith("e2ee-store")] == []


def path_options(path: Path, world: ClientWorld, **changes: Any) -> dict[str, Any]:
    options = {"store": path, "key": KEY, "server": world.url, "token_provider": world.token("alice"), "user": "alice"}
    return options | {"transport": world.memory} | changes


@pytest.mark.parametrize("factory", ["memory", "socketio"])
async def test_closing_in_the_middle_of_sends_leaves_no_trace_and_loses_nothing(
    world: ClientWorld, tmp_path: Path, factory: str
) -> None:
    transport = eager_socketio if factory == "socketio" else world.memory
    bob = await world.open("bob")
    path = tmp_path / "alice.db"
    sent: list[str] = []
    for life in range(3):
        with Traces() as traces:
            client = await SecureClient.open(**path_options(path, world, transport=transport))
            for number in range(40):
                await client.send("bob", f"{life} {number}")
                sent.append(f"{life} {number}")
            await within(client.aclose(), 10)
            await traces.assert_none()
    client = await SecureClient.open(**path_options(path, world, transport=transport))
    await within(client.flushed())
    await client.aclose()
    assert sorted(map(str, await bob.read(len(sent)))) == sorted(sent)
    assert bob.count(Table.MESSAGE_IDS) == len(sent)


async def test_closing_while_offline_leaves_no_trace(world: ClientWorld, tmp_path: Path) -> None:
    path, gate = tmp_path / "alice.db", Gate(world)
    await (await SecureClient.open(**path_options(path, world))).aclose()
    await gate.shut()
    with Traces() as traces:
        client = await SecureClient.open(**path_options(path, world, transport=gate))
        waiting = [asyncio.ensure_future(each()) for each in (client.online, client.caught_up, client.__anext__)]
        await asyncio.sleep(0)
        await within(client.aclose(), 10)
        ended = await within(asyncio.gather(*waiting, return_exceptions=True))
        await traces.assert_none()
    assert [type(each) for each in ended] == [type(None), type(None), StopAsyncIteration]


async def test_a_client_that_never_started_leaves_no_trace_and_may_be_opened_again(
    world: ClientWorld, tmp_path: Path
) -> None:
    path = tmp_path / "alice.db"
    with Traces() as traces:
        with pytest.raises(KeyServerUnavailableError):
            await SecureClient.open(**path_options(path, world, server=NOBODY, transport=eager_socketio))
        await traces.assert_none()
    client = await SecureClient.open(**path_options(path, world))
    await within(client.online())
    await client.aclose()


async def test_closing_twice_and_at_the_same_time_is_closing_once(world: ClientWorld) -> None:
    alice = await world.open("alice")
    await within(asyncio.gather(*(alice.client.aclose() for _ in range(3))))
    await within(alice.client.aclose())


async def test_a_closing_that_is_cancelled_still_lets_the_store_go(world: ClientWorld, tmp_path: Path) -> None:
    path = tmp_path / "alice.db"
    client = await SecureClient.open(**path_options(path, world))
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await within(client.aclose())
    SqliteStore.open(path, key=KEY).close()


async def test_after_the_end_calls_are_refused_by_name_and_iteration_is_over(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await alice.client.send("bob", "unconfirmed")
    message = await within(anext(bob.client))
    await bob.client.aclose()
    for call in (bob.client.send("alice", "late"), message.done()):
        with pytest.raises(RuntimeError, match="the client is closed"):
            await call
    assert [each async for each in bob.client] == []


async def test_a_loop_that_is_busy_with_a_message_ends_when_the_client_is_closed_meanwhile(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await alice.client.send("bob", "one")
    await alice.client.send("bob", "two")
    shown = []
    async for message in bob.client:
        shown.append(message.data)
        await bob.client.aclose()
    assert shown == ["one"]


async def test_what_was_shown_but_not_confirmed_is_shown_again_under_the_same_id(
    world: ClientWorld, tmp_path: Path
) -> None:
    alice, path = await world.open("alice"), tmp_path / "bob.db"
    options = path_options(path, world, user="bob", token_provider=world.token("bob"))
    async with await SecureClient.open(**options) as bob:
        message_id = await alice.client.send("bob", "hello")
        assert (await within(anext(bob))).message_id == message_id
    async with await SecureClient.open(**options) as bob:
        again = await within(anext(bob))
        assert (again.message_id, again.data) == (message_id, "hello")
        await again.done()
        assert bob.messenger.status().inbound == 0


async def test_a_cancelled_wait_for_the_next_message_loses_nothing(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    texts = [str(number) for number in range(30)]
    for text in texts:
        await alice.client.send("bob", text)
    shown: list[str] = []
    turns = 0
    async with asyncio.timeout(30):
        while len(shown) < len(texts):
            # Cancelled after one turn of the loop, after two, ...: at every place where it can wait.
            asking = asyncio.create_task(anext(bob.client))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            asking.cancel()
            turns += 1
            try:
                shown.append(str((await asking).data))
            except asyncio.CancelledError:
                pass
            if turns % 12 == 0 and len(shown) < len(texts):
                shown.append(str((await within(anext(bob.client))).data))
    assert shown == texts


async def test_a_second_iteration_at_the_same_time_is_refused(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    first = asyncio.create_task(anext(bob.client))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one iteration at a time"):
        await anext(bob.client)
    await alice.client.send("bob", "for the first")
    assert (await within(first)).data == "for the first"


async def test_a_second_client_on_the_same_store_is_told_so(world: ClientWorld, tmp_path: Path) -> None:
    path = tmp_path / "alice.db"
    async with await SecureClient.open(**path_options(path, world)):
        with pytest.raises(StoreLockedError):
            await SecureClient.open(**path_options(path, world))


async def test_a_wrong_passphrase_is_told_and_changes_nothing(world: ClientWorld, tmp_path: Path) -> None:
    path = tmp_path / "alice.db"
    SqliteStore.create(path, passphrase="right", cost=CHEAP).close()
    before = path.read_bytes()
    with pytest.raises(WrongPassphraseError):
        await SecureClient.open(**path_options(path, world, key=None, passphrase="wrong"))
    assert path.read_bytes() == before
    async with await SecureClient.open(**path_options(path, world, key=None, passphrase="right")) as client:
        await within(client.online())


async def test_a_store_of_another_user_or_of_nobody_is_refused(world: ClientWorld, tmp_path: Path) -> None:
    path = tmp_path / "alice.db"
    with pytest.raises(ValueError, match="holds no account"):
        await SecureClient.open(**path_options(path, world, user=None))
    assert not path.exists()
    await (await SecureClient.open(**path_options(path, world))).aclose()
    with pytest.raises(ValueError, match="belongs to alice"):
        await SecureClient.open(**path_options(path, world, user="bob"))


async def test_a_registration_interrupted_again_and_again_does_not_pile_up_prekeys(world: ClientWorld) -> None:
    alice = await world.open("alice")
    counts = await alice.client._parts.key_server.prekey_counts()
    for _ in range(4):
        # As after a crash before the last step: the server knows everything, the store does not know that it does.
        await alice.client._directory.register()
    assert await alice.client._parts.key_server.prekey_counts() == counts


async def test_an_on_event_that_raises_stops_nothing_and_is_reported_to_the_loop(
    world: ClientWorld, tmp_path: Path
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def broken(event: events.Event) -> None:
        raise ZeroDivisionError(type(event).__name__)

    bob = await world.open("bob")
    async with await SecureClient.open(**path_options(tmp_path / "alice.db", world, on_event=broken)) as alice:
        for text in ("one", "two"):
            await alice.send("bob", text)
            assert await bob.read() == [text]
            await bob.client.send("alice", text)
            assert (await within(anext(alice))).data == text
    raised = {str(each["exception"]) for each in reported}
    assert {"Online", "CaughtUp", "Sent"} <= raised


async def test_the_first_registration_fails_by_name_when_the_token_provider_does(
    world: ClientWorld, tmp_path: Path
) -> None:
    async def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(Exception, match="ZeroDivisionError") as caught:
        await SecureClient.open(**path_options(tmp_path / "alice.db", world, token_provider=broken))
    assert not isinstance(caught.value, KeyServerError)
    assert caught.value.code == "token_provider_failed"  # type: ignore[attr-defined]  # not a class of the interface
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_prekeys_that_the_server_has_lost_are_noticed_and_published_again(tmp_path: Path) -> None:
    async with client_world(tmp_path) as world:
        bob = await world.open("bob", pace=replace(QUICK, prekey_check=0.05))
        with contextlib.closing(sqlite3.connect(tmp_path / "server.db")) as database:
            database.execute("DELETE FROM e2ee_prekeys")
            database.commit()
        alice = await world.open("alice")
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(UserUnreachableError):
                    await alice.client.send("bob", "hello")
                    break
                await asyncio.sleep(0.02)
        assert await bob.read() == ["hello"]
