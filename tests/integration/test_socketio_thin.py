import asyncio
import socket
from pathlib import Path

import socketio
import uvicorn

from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, relay_world, within
from transport_adapters.base import Accepted
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport


async def test_thin(tmp_path: Path) -> None:
    async with relay_world(tmp_path) as world:
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio), world.relay)
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        task = asyncio.create_task(server.serve([sock]))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        alice, bob = await world.device("alice"), await world.device("bob")
        peers = []
        for who in (alice, bob):
            async def token(who=who) -> str:
                return world.tokens.issue(who)
            cell = CursorCell()
            peers.append(Peer(SocketIoTransport(url, token=token, cursor=cell, options=SocketIoOptions(link=EAGER_LINK)), cell))
        a, b = peers
        print(await a.online()); print(await b.online())
        out = world.outgoing(alice, bob)
        assert await within(a.transport.send(out)) == Accepted(out.envelope_id, False)
        assert await within(a.transport.send(out)) == Accepted(out.envelope_id, True)
        d = await b.next()
        assert d.envelope == out.envelope
        await b.ack(d)
        await a.close(); await b.close()
        await world.relay.close()
        server.should_exit = True
        await task
