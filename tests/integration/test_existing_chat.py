"""The chat of examples/existing_chat before and after: real servers in processes, real clients.

Before, it has the faults that such chats have, and they are shown. After, the same client does the same things in
ordinary conversations. test_existing_chat_private.py has what private ones do.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import socketio

from e2ee.cli.demo.search import search
from examples.existing_chat.after import __main__ as after
from examples.existing_chat.before import __main__ as before
from examples.existing_chat.client import ChatClient, RefusedError
from tests.cli_processes import Desk, free_port
from tests.contract.relay_world import eventually, within
from tests.existing_chat import (
    PASSWORD,
    PLAIN,
    PRIVATE,
    ROOT,
    Chat,
    alice_and_bob,
    heard,
    notifications,
    person,
    private_pair,
    running,
    someone,
)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


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

    async def bob_is_gone() -> bool:
        members = (await alice.conversations())[0]["members"]
        return not any(each["online"] for each in members if each["name"] == "bob")

    await eventually(bob_is_gone)
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


SECRET = "one secret of the chat, 32 bytes or more"


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
        ({}, "E2EE_TOKEN_SECRET: is not set"),
        ({"E2EE_TOKEN_SECRET": SECRET}, "E2EE_TOKEN_SECRET and E2EE_HOST_JWT_SECRET must differ"),
        ({"E2EE_TOKEN_SECRET": "short"}, "E2EE_TOKEN_SECRET: a secret is at least 32 bytes long"),
    ],
)
def test_after_it_does_not_start_without_another_secret_for_devices(
    second: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_environment(monkeypatch, {"CHAT_JWT_SECRET": SECRET, "E2EE_ORIGIN": "https://chat.example"} | second)
    with pytest.raises(SystemExit, match="2"):
        after.main()
    told = capsys.readouterr().err
    assert complaint in told
    assert SECRET not in told


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
        self._client._call = self._lossy  # type: ignore[method-assign]  # of this one object

    def __exit__(self, *_error: object) -> None:
        assert self._lost
        self._client._call = self._call  # type: ignore[method-assign]  # what it was

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
