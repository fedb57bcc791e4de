"""Private conversations in the chat of examples/existing_chat: nothing is lost, doubled, overheard, or a stranger's."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx
import pytest

from e2ee.cli.demo.evidence import copy_database
from e2ee.cli.demo.search import search
from examples.existing_chat.client import ChatClient
from tests.contract.relay_world import within
from tests.existing_chat import (
    PASSWORD,
    PLAIN,
    PRIVATE,
    ROOT,
    Chat,
    alice_and_bob,
    device,
    eventually,
    notifications,
    private_pair,
    running,
    someone,
)
from transport_adapters import events
from transport_adapters.base import PresenceState
from transport_adapters.secure_client.directory import UserUnreachableError


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def test_somebody_away_gets_each_private_message_once_although_the_server_is_killed(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        a, b = await private_pair(chat, stack, alice, bob)
        await a.make_private(conversation)
        await alice.connect()
        await a.say(conversation, "first contact")
        await within(b.arrived.get())
        await b.aclose()

        said = [f"{PRIVATE} {number}" for number in range(20)]
        for text in said[:10]:
            await a.say(conversation, text)
        # The push service learns that something came: a constant, and neither who nor what.
        assert notifications(chat)[-1] == {"to": bob.user_id, "title": "Chat", "body": "New private message"}
        await alice.disconnect()
        chat.kill()
        for text in said[10:]:
            await a.secure.send("2", text, conversation=conversation)  # queued, without a server
        await chat.start("after")

        b = await device(chat, bob)
        stack.push_async_callback(b.aclose)
        got = [(await within(b.arrived.get())).text for _ in said]
        assert got == said
        await a.secure.flushed()
        await b.secure.caught_up()
        assert b.arrived.empty()
        assert [each.text for each in b.history.messages(conversation)] == ["first contact", *said]
        assert search(chat.files, said) == []


async def test_who_logs_out_is_cut_off_and_misses_nothing(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        a, b = await private_pair(chat, stack, alice, bob)
        await a.make_private(conversation)
        await a.say(conversation, "before the logout")
        await within(b.arrived.get())

        await bob.log_out()
        await a.say(conversation, "after the logout")
        await a.secure.flushed()
        async with httpx.AsyncClient(base_url=chat.url) as http:
            old = {"Authorization": f"Bearer {await bob.token()}"}
            body = {"device_id": str(b.secure.address.device_id)}
            assert (await http.post("/v1/logins", json=body, headers=old)).status_code == 401
        assert waiting(chat) == 1
        assert b.arrived.empty()

        await b.aclose()
        await bob.log_in(PASSWORD)
        b = await device(chat, bob)
        stack.push_async_callback(b.aclose)
        assert (await within(b.arrived.get())).text == "after the logout"
        await eventually(lambda: waiting(chat) == 0)


def waiting(chat: Chat) -> int:
    """Return how many envelopes wait for somebody."""
    with closing(sqlite3.connect(f"file:{chat.database}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM e2ee_envelopes WHERE body IS NOT NULL").fetchone()[0])


async def test_a_member_of_another_conversation_cannot_speak_in_this_one(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        mallory = await someone(chat, stack, "mallory")
        conversation = await alice.open_conversation("bob")
        a, b = await private_pair(chat, stack, alice, bob)
        m = await device(chat, mallory)
        stack.push_async_callback(m.aclose)
        await a.make_private(conversation)
        with pytest.raises(UserUnreachableError):  # no conversation is theirs
            await m.secure.send("2", "hi", conversation=conversation)
        await mallory.open_conversation("bob")
        await m.secure.send("2", "I am alice", conversation=conversation)
        await m.secure.flushed()
        await a.say(conversation, "I am alice, really")
        assert (await within(b.arrived.get())).text == "I am alice, really"
        assert [each.sender for each in b.history.messages(conversation)] == ["1"]


async def test_members_of_a_conversation_see_who_is_there_and_strangers_do_not(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        mallory = await someone(chat, stack, "mallory")
        await alice.open_conversation("bob")
        seen: dict[str, list[events.Event]] = {"alice": [], "mallory": []}
        a = await device(chat, alice, seen["alice"].append)
        m = await device(chat, mallory, seen["mallory"].append)
        b = await device(chat, bob)
        for each in (a, m, b):
            stack.push_async_callback(each.aclose)
            await within(each.secure.online())
        for watching in (a, m):
            await watching.secure.presence.watch(["2"])
        await b.secure.presence.announce("online")

        def standing(name: str) -> list[PresenceState]:
            return [each.state for each in seen[name] if isinstance(each, events.PresenceChanged)]

        await eventually(lambda: PresenceState.ONLINE in standing("alice"))
        await b.aclose()
        await eventually(lambda: standing("alice")[-1] is PresenceState.OFFLINE)
        assert set(standing("mallory")) == {PresenceState.OFFLINE}


async def test_a_server_that_denies_the_switch_gets_no_plaintext(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        await alice.connect()
        conversation = await alice.open_conversation("bob")
        a, b = await private_pair(chat, stack, alice, bob)
        await a.make_private(conversation)
        await b.conversations()
        with closing(sqlite3.connect(chat.database, timeout=15, isolation_level=None)) as database:
            database.execute("UPDATE conversations SET private_since = NULL")
        assert (await b.conversations())[0]["private"]
        for one, other in ((a, b), (b, a)):
            await one.say(conversation, PRIVATE)
            assert (await within(other.arrived.get())).text == PRIVATE
        assert await alice.history(conversation) == []


async def test_an_id_that_is_no_number_of_the_chat_reaches_nobody(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "after") as chat:
        alice, _ = await alice_and_bob(chat, stack)
        await alice.open_conversation("bob")
        a = await device(chat, alice)
        stack.push_async_callback(a.aclose)
        for strange in ("02", "2x", "9" * 128, "-1"):
            with pytest.raises(UserUnreachableError):
                await a.secure.send(strange, "hi")
        # Neither a traceback nor a warning about the server's settings.
        assert [line for line in chat.log.read_text().splitlines() if not line.startswith("INFO:")] == []


async def test_after_the_database_was_restored_from_a_backup_the_conversation_goes_on(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        a, b = await private_pair(chat, stack, alice, bob)
        await a.make_private(conversation)

        async def exchange(*texts: str) -> None:
            for text in texts:
                for one, other in ((a, b), (b, a)):
                    await one.say(conversation, text)
                    assert (await within(other.arrived.get())).text == text

        await exchange("one", "two")
        await b.aclose()
        await a.secure.send("2", "waits in the backup", conversation=conversation)
        await a.secure.flushed()
        backup = tmp_path / "backup.db"
        copy_database(chat.database, backup)
        b = await device(chat, bob)
        stack.push_async_callback(b.aclose)
        assert (await within(b.arrived.get())).text == "waits in the backup"
        await exchange("three", "four")
        chat.kill()
        for file in chat.files[:-1]:
            file.unlink(missing_ok=True)
        shutil.move(backup, chat.database)
        await chat.start("after")
        await exchange("five", "six")
        assert [each.text for each in b.history.messages(conversation) if each.sender == "1"] == [
            "one",
            "two",
            "waits in the backup",
            "three",
            "four",
            "five",
            "six",
        ]


async def test_what_is_removed_again_leaves_the_chat_as_it_was(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "after") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        await device_once(chat, alice)
        chat.kill()
        document = (ROOT / "docs" / "adopting.md").read_text()
        script = document.partition("```python removing\n")[2].partition("```")[0]
        assert "drop_all" in script
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
        with closing(sqlite3.connect(chat.database)) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
        assert [name for name in names if "e2ee" in name] == []
        await chat.start("before")
        await alice.connect()
        await alice.say(conversation, PLAIN)
        assert [each["text"] for each in await bob.history(conversation)] == [PLAIN]


async def device_once(chat: Chat, client: ChatClient) -> None:
    async with await device(chat, client) as opened:
        await asyncio.wait_for(opened.secure.online(), 30)
