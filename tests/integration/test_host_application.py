"""A chat that exists keeps working with the relay beside it: its routes, its Socket.IO events, its own login."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio
from fastapi import FastAPI

from e2ee.stores.memory import MemoryStore
from keyserver.app import build_services
from keyserver.host_token import HostIdentity
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, relay_world, within
from tests.contract.socketio_server import served
from tests.keyserver_world import settings
from transport_adapters import SecureClient
from transport_adapters.base import Accepted
from transport_adapters.frames import Hello, InstanceId
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

# --- the application, before ----------------------------------------------------------------------------------

PASSES = {"pass-of-alice": "alice", "pass-of-bob": "bob"}


class Chat:
    """A small chat as many teams have one: FastAPI, Socket.IO beside it, a token at connect, events of its own."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.api = FastAPI()
        self.sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        self.api.get("/messages")(self.history)
        self.sio.on("connect", self.connect)
        self.sio.on("say", self.say)
        self.sio.on("*", self.anything_else)
        self.app = socketio.ASGIApp(self.sio, self.api)

    async def history(self) -> list[tuple[str, str]]:
        return self.messages

    async def connect(self, sid: str, _environ: Any, auth: Any) -> None:
        user = PASSES.get((auth or {}).get("pass", ""))
        if user is None:
            raise socketio.exceptions.ConnectionRefusedError("log in first")
        await self.sio.save_session(sid, {"user": user})

    async def say(self, sid: str, text: str) -> str:
        user = (await self.sio.get_session(sid))["user"]
        self.messages.append((user, text))
        await self.sio.emit("said", [user, text])
        return "ok"

    async def anything_else(self, event: str, _sid: str, *_: Any) -> str:
        return f"the chat does not know {event}"


# --- the two lines that add private conversations ---------------------------------------------------------------


@asynccontextmanager
async def chat_with_relay(directory: Path) -> AsyncIterator[tuple[Chat, RelayWorld, str]]:
    chat = Chat()
    async with relay_world(directory) as world:
        attach(chat.sio, world.relay)
        async with served(guard(chat.app, world.relay)) as (url, _):
            yield chat, world, url
            await world.relay.close()
        await chat.sio.shutdown()


# --- after ----------------------------------------------------------------------------------------------------


class ChatClient:
    """The chat's own client."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.private: asyncio.Queue[Any] = asyncio.Queue()
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self.sio.on("said", self.said.put_nowait)
        self.sio.on("hello", self.private.put_nowait, namespace="/e2ee")

    async def open(self, url: str, key: str, *namespaces: str) -> None:
        await self.sio.connect(
            url, auth={"pass": key}, transports=["websocket"], namespaces=["/", *namespaces], wait_timeout=10
        )


async def test_chat_events_and_private_messages_at_the_same_time(tmp_path: Path) -> None:
    async with chat_with_relay(tmp_path) as (chat, world, url):
        alice, bob = await world.device("alice"), await world.device("bob")
        clients, peers = [], []
        for owner in (alice, bob):
            client = ChatClient()
            await client.open(url, f"pass-of-{owner.user_id}")
            clients.append(client)

            async def token(owner: Any = owner) -> str:
                return world.tokens.issue(owner)

            cell = CursorCell()
            transport = SocketIoTransport(url, token=token, cursor=cell, options=SocketIoOptions(link=EAGER_LINK))
            peers.append(Peer(transport, cell))
            await peers[-1].online()

        private = [world.outgoing(alice, bob, b"%d" % n) for n in range(20)]
        public = [f"public {n}" for n in range(20)]
        results = await within(
            asyncio.gather(
                *(peers[0].transport.send(each) for each in private),
                *(clients[0].sio.call("say", text) for text in public),
            )
        )
        assert results[:20] == [Accepted(each.envelope_id, duplicate=False) for each in private]
        assert results[20:] == ["ok"] * 20
        assert [each.envelope for each in await peers[1].take(20)] == [each.envelope for each in private]
        assert [await within(clients[1].said.get()) for _ in public] == [["alice", text] for text in public]

        async with httpx.AsyncClient() as http:
            assert len((await http.get(f"{url}/messages")).json()) == 20
        assert chat.messages == [("alice", text) for text in public]
        for peer in peers:
            await peer.close()
        for client in clients:
            await client.sio.disconnect()


async def test_one_connection_may_carry_both_namespaces(tmp_path: Path) -> None:
    async with chat_with_relay(tmp_path) as (_, world, url):
        bob = await world.device("bob")
        client = ChatClient()
        await client.open(url, "pass-of-bob", "/e2ee")
        hello = Hello(world.tokens.issue(bob), InstanceId(bytes(16)), 1, 0, 0, 64, 1 << 18)
        await client.sio.emit("hello", hello.to_fields(), namespace="/e2ee")
        assert (await within(client.private.get()))["head_seq"] == 0
        assert await client.sio.call("say", "hello") == "ok"
        assert await client.sio.call("whatever") == "the chat does not know whatever"
        world.relay.cut(bob)
        assert await client.sio.call("say", "still here") == "ok"
        await client.sio.disconnect()


async def test_clients_find_the_routes_below_a_prefix_and_the_events_where_they_are(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()

    async def who(token: str) -> HostIdentity:
        return HostIdentity(PASSES[token])

    services = build_services(settings(tmp_path / "chat.db", origin=origin), who)
    chat = Chat()
    chat.api.include_router(services.router, prefix="/private")
    attach(chat.sio, services.relay)

    async def person(user: str) -> SecureClient:
        async def token() -> str:
            return f"pass-of-{user}"

        return await SecureClient.open(store=MemoryStore(), user=user, server=f"{origin}/private", token_provider=token)

    port = int(origin.rpartition(":")[2])
    async with services.lifespan(None), served(guard(chat.app, services.relay), port):
        async with await person("alice") as alice, await person("bob") as bob:
            await alice.send("bob", "below a prefix")
            assert (await within(anext(bob))).data == "below a prefix"
        await chat.sio.shutdown()


async def test_the_chats_login_still_refuses_strangers(tmp_path: Path) -> None:
    async with chat_with_relay(tmp_path) as (_, _, url):
        client = ChatClient()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.open(url, "no such pass")
        await client.sio.eio.disconnect(abort=True)


async def test_the_chats_catch_all_handler_never_sees_frames(tmp_path: Path) -> None:
    async with chat_with_relay(tmp_path) as (chat, world, url):
        seen: list[Any] = []
        chat.sio.on("*", lambda *args: seen.append(args), namespace="*")
        bob = await world.device("bob")
        client = ChatClient()
        await client.open(url, "pass-of-bob", "/e2ee")
        hello = Hello(world.tokens.issue(bob), InstanceId(bytes(16)), 1, 0, 0, 64, 1 << 18)
        await client.sio.emit("hello", hello.to_fields(), namespace="/e2ee")
        await within(client.private.get())
        await client.sio.emit("no such frame", {"secret": 1}, namespace="/e2ee")
        assert await client.sio.call("say", "hello") == "ok"
        assert seen == []
        await client.sio.disconnect()
