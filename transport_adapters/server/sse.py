"""Server-sent events, server side: a stream of frames; the client's own come by POST (http_connections.py).

Owns: the way of frames over an event stream.
Does not know about: what frames mean; where it is mounted (mount.py).

An event's id tells how far the mailbox is, and is for people: what a client has is what it acknowledged.
"""

import asyncio
import json
from typing import Final, final

from transport_adapters.codes import CloseCode
from transport_adapters.frames import Deliver, Error, ServerFrame
from transport_adapters.server.channel import Carriage
from transport_adapters.server.heartbeat import Liveness
from transport_adapters.server.http_connections import HttpConnections
from transport_adapters.server.http_requests import (
    END_TIMEOUT,
    HEADERS,
    HELD,
    Receive,
    RequestRefusedError,
    Scope,
    Send,
    bearer_token,
    refuse,
    write,
)
from transport_adapters.text import to_pair

CARRIAGE: Final = Carriage(held=HELD, as_text=True, liveness=Liveness.PINGED)
OPEN_EVENT: Final = "open"


@final
class StreamEndpoint:
    """`GET`: opens a connection, and streams what the relay sends on it."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream."""
        try:
            token = bearer_token(scope)
            owner = await self._connections.authorize(token)
        except RequestRefusedError as refusal:
            await refuse(send, refusal)
            return
        headers = [*HEADERS, (b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        channel = StreamChannel(send)
        opened = self._connections.open(owner, token, channel, CARRIAGE)
        waiting = [asyncio.create_task(_disconnected(receive)), asyncio.create_task(channel.closed.wait())]
        try:
            await write(send, _event(OPEN_EVENT, {"connection": opened.id}))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.connection.disconnected()
            for task in waiting:
                task.cancel()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            pass  # it does not read, or is gone


@final
class StreamChannel:
    """One client's stream, as the relay writes to it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.closed = asyncio.Event()
        self.code: CloseCode | None = None
        self.last: Error | None = None

    async def send(self, frame: ServerFrame) -> None:
        if isinstance(frame, Error) and frame.fatal:
            self.last = frame
        event_id = f"{frame.epoch}:{frame.seq}" if isinstance(frame, Deliver) else ""
        event, fields = to_pair(frame)
        text = _event(str(event), fields, event_id)
        del frame, fields  # from here on the text is what is held
        await write(self._send, text)

    async def close(self, code: CloseCode) -> None:
        self.code = code
        self.closed.set()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(name: str, fields: object, event_id: str = "") -> bytes:
    named = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{named}data: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()
