"""Small frames go out at once, however the server's listener was made."""

import socket
from typing import Any

import websockets

from keyserver.serve import ServeOptions, _listen
from tests.contract.socketio_server import served


async def test_a_websocket_writes_small_frames_without_waiting_for_acknowledgements() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    # This listener names no protocol, as one that a process supervisor hands over.
    async with served(app) as (url, server), websockets.connect(url.replace("http", "ws")):
        (connection,) = server.server_state.connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_command_makes_a_listener_on_which_asyncio_switches_delays_off() -> None:
    with _listen(ServeOptions("127.0.0.1", 0, None, dev=True, behind_tls_proxy=False)) as listener:
        assert listener.proto == socket.IPPROTO_TCP
