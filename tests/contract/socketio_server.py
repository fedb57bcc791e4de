"""A Socket.IO server on a loopback port, for tests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from transport_adapters.server.http_protocol import BoundedHttp
from transport_adapters.server.websocket_protocol import BoundedWebSocket


@asynccontextmanager
async def served(app: Any, port: int = 0, **options: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """Serve an ASGI application in this event loop; yield its URL and the server."""
    listener = socket.create_server(("127.0.0.1", port))
    # At the level DEBUG, uvicorn prints the beginning and the end of every WebSocket frame.
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="info",
        lifespan="off",
        http=BoundedHttp,
        ws=BoundedWebSocket,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        **options,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))  # without the signal handlers of `serve`
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event to wait for
        await asyncio.sleep(0.005)
    try:
        yield f"{'https' if config.is_ssl else 'http'}://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await task


def break_connections(server: uvicorn.Server) -> None:
    """Reset every connection, as a failing network would."""
    for connection in list(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()
