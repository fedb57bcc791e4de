"""The chat of examples/existing_chat before and after: real servers in processes, real clients.

Before, it has the faults that such chats have, and they are shown. After, the same client does the same things in
ordinary conversations, and private ones have none of those faults.
"""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import socketio

from e2ee.cli.demo.evidence import copy_database
from e2ee.cli.demo.search import search
from examples.existing_chat.after import __main__ as after
from examples.existing_chat.after.private_client import PrivateClient
from examples.existing_chat.before import __main__ as before
from examples.existing_chat.client import ChatClient, RefusedError
from tests.cli_processes import Desk, free_port
from tests.contract.relay_world import within
from tests.existing_chat import (
    PASSWORD,
    ROOT,
    Chat,
    device,
    eventually,
    heard,
    person,
    running,
)
from transport_adapters import events
from transport_adapters.base import PresenceState
from transport_adapters.secure_client.directory import UserUnreachableError

PLAIN = "everybody with the database reads this sentence"
PRIVATE = "only the two of us read this other sentence"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def alice_and_bob(chat: Chat, stack: AsyncExitStack, *, new: bool = True) -> tuple[ChatClient, ChatClient]:
    alice, bob = [await person(chat, name, new=new) for name in ("alice", "bob")]
    for client in (alice, bob):
        stack.push_async_callback(client.aclose)
    return alice, bob


def notifications(chat: Chat) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chat.push.read_text().splitlines()] if chat.push.exists() else []


# --- the same client, before and after ------------------------------------------------------------------------


async def conversation_as_ever(chat: Chat, stack: AsyncExitStack) -> list[Any]:
    """What people do with the chat; returns all they see, without ids that are drawn and times."""
    seen: list[Any] = []
    alice, bob = await alice_and_bob(chat, stack)
    mallory = await person(chat, "mallory")
    stack.push_async_callback(mallory.aclose)
    conversation = await alice.open_conversation("bob")
    for client in (alice, bob, mallory):
        await client.connect()

    await alice.say(conversation, "hello")
    seen.append(await heard(bob))
    await bob.emit("typing", conversation=conversation)
    seen.append(await heard(alice))
    number = await bob.say(conversation, "hello yourself")
    seen.append(await heard(alice))
    seen.append(await bob.conversations())
    await alice.emit("read", conversation=conversation, message=number)
    seen.append(await heard(bob))
    await bob.disconnect()
    await alice.say(conversation, "x" * 100)
    seen += [await alice.history(conversation), await bob.conversations(), notifications(chat)]

    for event, fields in (
        ("message", {"text": "let me in"}),
        ("typing", {}),
        ("read", {"message": 1}),
    ):
        with pytest.raises(RefusedError, match="no_such_conversation"):
            await mallory.emit(event, conversation=conversation, **fields)
    with pytest.raises(RefusedError, match="no_such_conversation"):
        await mallory.history(conversation)
    with pytest.raises(RefusedError, match="bad_request"):
        await mallory.emit("message", conversation=conversation, text=7)
    with pytest.raises(RefusedError, match="wrong_name_or_password"):
        await mallory.log_in("not the password")
    with pytest.raises(RefusedError, match="name_taken"):
        await mallory.register(PASSWORD)
    seen.append(await mallory.conversations())
    async with httpx.AsyncClient(base_url=chat.url) as http:
        for path in ("/conversations", f"/conversations/{conversation}/messages", "/me"):
            assert (await http.get(path)).status_code == 401
            forged = {"Authorization": "Bearer forged"}
            assert (await http.get(path, headers=forged)).status_code == 401
    stranger = ChatClient(chat.url, "nobody")
    stack.push_async_callback(stranger.aclose)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await stranger.connect()
    settled: list[Any] = json.loads(json.dumps(seen).replace(conversation, "C"), object_hook=_settled)
    return settled


def _settled(fields: dict[str, Any]) -> dict[str, Any]:
    times = {name: 0 for name in ("sent_at", "last_at") if name in fields}
    return {name: value for name, value in (fields | times).items() if name != "private"}


async def test_the_chats_own_client_sees_the_same_before_and_after(tmp_path: Path, stack: AsyncExitStack) -> None:
    seen = []
    for kind in ("before", "after"):
        (tmp_path / kind).mkdir()
        async with running(tmp_path / kind, kind) as chat, AsyncExitStack() as clients:
            seen.append(await conversation_as_ever(chat, clients))
    before, after = seen
    assert before == after
    shown = before[3][0]
    assert (shown["preview"], shown["unread"]) == ("hello yourself", 1)
    assert before[-2] == [{"to": 2, "title": "alice", "body": "x" * 79 + "…"}]


@pytest.mark.parametrize("kind", [before, after])
@pytest.mark.parametrize("told", [{}, {"CHAT_JWT_SECRET": "short"}])
def test_without_secrets_it_does_not_start(
    kind: ModuleType, told: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_environment(monkeypatch, told)
    with pytest.raises(SystemExit, match="2"):
        kind.main()
    assert "CHAT_JWT_SECRET: 32 random bytes or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({}, "E2EE_TOKEN_SECRET: Field required"),
        ({"E2EE_TOKEN_SECRET": "x" * 32}, "token_secret and host_jwt_secret must differ"),
        ({"E2EE_TOKEN_SECRET": "short"}, "E2EE_TOKEN_SECRET: a secret is at least 32 bytes long"),
    ],
)
def test_after_it_does_not_start_without_another_secret_for_devices(
    second: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_environment(monkeypatch, {"CHAT_JWT_SECRET": "x" * 32, "E2EE_ORIGIN": "https://chat.example"} | second)
    with pytest.raises(SystemExit, match="2"):
        after.main()
    told = capsys.readouterr().err
    assert complaint in told
    assert "xxx" not in told


def with_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """Call what is tested as a command without arguments, in an environment of these values."""
    monkeypatch.setattr(sys, "argv", ["chat"])
    for name in [name for name in os.environ if name.startswith(("CHAT_", "E2EE_"))]:
        monkeypatch.delenv(name)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", ["before", "after"])
def test_two_people_talk_at_terminals(kind: str, tmp_path: Path) -> None:
    port = free_port()
    env = {"PYTHONPATH": str(ROOT)}
    package = "examples.existing_chat"
    server = (sys.executable, "-m", f"{package}.{kind}", "--dev", "--port", str(port))
    client = (sys.executable, "-m", f"{package}.client", f"http://127.0.0.1:{port}")
    desk = Desk(tmp_path)
    with (
        desk.terminal(command=server, env=env) as running,
        desk.terminal("alice", "--register", command=client, env=env) as alice,
        desk.terminal("bob", "--register", "--with", "alice", command=client, env=env) as bob,
    ):
        running.wait_for("Uvicorn running")
        for terminal in (alice, bob):
            terminal.wait_for("Password:")
            terminal.type(f"{PASSWORD}\n")
            terminal.wait_for("type a line to say it")
        bob.type("hello\n")
        alice.wait_for("bob: hello\r\n")
        alice.type("hello yourself\n")
        bob.wait_for("alice: hello yourself\r\n")
        for terminal in (alice, bob):
            terminal.end_input()
            assert terminal.end() == 0
            assert "Traceback" not in terminal.seen
            assert PASSWORD not in terminal.seen


# --- before: the faults ---------------------------------------------------------------------------------------


async def test_before_a_message_to_somebody_away_is_never_delivered(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "before") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        await alice.connect()
        await alice.say(conversation, "while you are away")
        await bob.connect()
        await alice.say(conversation, "now that you are back")
        _, message = await heard(bob)
        assert message["text"] == "now that you are back"
        assert bob.events.empty()


async def test_before_a_message_whose_answer_was_lost_is_there_twice(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "before") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        await alice.connect()
        with the_first_answer_lost(alice):
            await alice.say(conversation, "once")
        assert [each["text"] for each in await bob.history(conversation)] == ["once", "once"]


class the_first_answer_lost:
    """The network drops one answer of the server on its way to a client."""

    def __init__(self, client: ChatClient) -> None:
        self._client, self._call, self._lost = client, client._call, False

    def __enter__(self) -> None:
        self._client._call = self._lossy  # type: ignore[method-assign]

    def __exit__(self, *_error: object) -> None:
        assert self._lost
        self._client._call = self._call  # type: ignore[method-assign]

    async def _lossy(self, event: str, fields: dict[str, Any]) -> Any:
        answer = await self._call(event, fields)
        if not self._lost:
            self._lost = True
            raise socketio.exceptions.TimeoutError
        return answer


async def test_before_somebody_stays_online_when_the_server_was_killed(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "before") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        await alice.open_conversation("bob")
        await bob.connect()
        chat.kill()
        await bob.disconnect()
        await chat.start("before")
        assert {"id": bob.user_id, "name": "bob", "online": True} in (await alice.conversations())[0]["members"]


async def test_before_a_socket_outlives_the_logout(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "before") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        for client in (alice, bob):
            await client.connect()
        await bob.log_out()
        with pytest.raises(RefusedError, match="not_logged_in"):
            await bob.conversations()
        await alice.say(conversation, "after the logout")
        assert (await heard(bob))[1]["text"] == "after the logout"


# --- after: private conversations -----------------------------------------------------------------------------


async def private_pair(
    chat: Chat, stack: AsyncExitStack, alice: ChatClient, bob: ChatClient
) -> tuple[PrivateClient, PrivateClient]:
    """Give both a device, and the stack the duty to close it."""
    pair = await device(chat, alice), await device(chat, bob)
    for each in pair:
        stack.push_async_callback(each.aclose)
    return pair


async def test_a_conversation_becomes_private_and_stays_so(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with running(tmp_path, "before") as chat:
        alice, bob = await alice_and_bob(chat, stack)
        conversation = await alice.open_conversation("bob")
        await alice.connect()
        await alice.say(conversation, PLAIN)
        found = search(chat.files, [PLAIN])
        assert {each.place for each in found} >= {"chat.db", "chat.db:messages", "chat.push"}
        await alice.disconnect()

        # The next release of the server, on the same database.
        await chat.restart("after")
        alice, bob = await alice_and_bob(chat, stack, new=False)
        for client in (alice, bob):
            await client.connect()
        assert [each["text"] for each in await bob.history(conversation)] == [PLAIN]
        with pytest.raises(RefusedError, match="no_device"):
            await alice.make_private(conversation)
        a, b = await private_pair(chat, stack, alice, bob)
        group = await alice.open_conversation("bob", (await someone(chat, stack, "carol")).name)
        with pytest.raises(RefusedError, match="not_between_two"):
            await alice.make_private(group)
        await a.make_private(conversation)
        await a.make_private(conversation)  # again changes nothing

        # Plaintext is refused, to the old client as well; nothing of it is stored.
        for client in (alice, bob):
            with pytest.raises(RefusedError, match="private_conversation"):
                await client.say(conversation, "by accident")
        assert [each["text"] for each in await bob.history(conversation)] == [PLAIN]

        await a.say(conversation, PRIVATE)
        arrived = await within(b.arrived.get())
        assert (arrived.sender, arrived.conversation, arrived.text) == ("1", conversation, PRIVATE)
        await b.say(conversation, f"understood: {PRIVATE}")
        await within(a.arrived.get())

        # What the list shows: the server's, an old client's, and that of a client with the keys.
        listed = next(each for each in await bob.conversations() if each["id"] == conversation)
        assert (listed["preview"], listed["unread"], listed["private"]) == ("Private conversation", None, True)
        own = next(each for each in await b.conversations() if each["id"] == conversation)
        assert (own["preview"], own["unread"], own["private"]) == (f"understood: {PRIVATE}", 1, True)
        await b.read(arrived)
        own = next(each for each in await b.conversations() if each["id"] == conversation)
        assert own["unread"] == 0
        assert await a.safety_number(conversation) == await b.safety_number(conversation)

        # Ordinary conversations go on beside it.
        await alice.say(group, "in the old way")
        assert (await heard(bob))[1]["text"] == "in the old way"
        await bob.emit("typing", conversation=conversation)
        assert (await heard(alice))[0] == "typing"

        # Both are away when the disk is looked at; then at the servers' files and at the clients'.
        await a.aclose()
        await b.aclose()
        chat.kill()
        stores = [file for name in ("alice", "bob") for file in (tmp_path / name).iterdir()]
        assert search([*chat.files, *stores], [PRIVATE, "by accident"]) == []
        assert {each.place for each in search(chat.files, [PLAIN])} >= {"chat.db:messages", "chat.push"}


async def someone(chat: Chat, stack: AsyncExitStack, name: str) -> ChatClient:
    client = await person(chat, name)
    stack.push_async_callback(client.aclose)
    return client


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
            await watching.secure.watch(["2"])
        await b.secure.set_presence("online")

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
