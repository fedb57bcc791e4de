"""A transport of one's own: frames as lines of JSON over TCP, both ends.

Shows: what is left to write for a new transport. `Link` is the client's side of every transport (reconnecting, hello,
credit, which answer belongs to which send), `Relay` the server's. A transport makes connections and carries frames.

On the server, beside the rest (`services` is what `keyserver.app.build_services` returns):

    async with serve_lines(services.relay, "127.0.0.1", 8441):
        ...

In a client:

    def lines(server, *, token, cursor):
        return LineTransport("127.0.0.1", 8441, token=token, cursor=cursor)

    client = await SecureClient.open(..., transport=lines)

To run it: `pytest tests/integration/test_examples.py -k line`, which holds it to tests/contract/transport_contract.py.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from e2ee.errors import ProtocolError
from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.codec import from_base64url, to_base64url
from transport_adapters.base import Incoming, Outgoing, SendResult, SeqRange, Signal
from transport_adapters.codes import CloseCode
from transport_adapters.frames import ClientFrame, ServerFrame
from transport_adapters.link import CursorSource, Link, LinkOptions, Receiver, TokenSource, require_secure
from transport_adapters.server.relay import Relay

MAX_LINE = 2 * MAX_ENVELOPE
CLOSE_SECONDS = 1.0


class LineTransport:
    """Implements `EnvelopeTransport`. Without `tls` it connects to this machine only."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: TokenSource,
        cursor: CursorSource,
        options: LinkOptions | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        require_secure(f"{'https' if tls else 'http'}://{host}:{port}")
        self._where = (host, port, tls)
        self._link = Link(self._dial, token, cursor, options or LinkOptions())

    async def send(self, outgoing: Outgoing) -> SendResult:
        return await self._link.send(outgoing)

    def receive(self) -> AsyncIterator[Incoming]:
        return self._link.receive()

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        await self._link.ack(epoch, ranges)

    async def signal(self, signal: Signal) -> None:
        await self._link.signal(signal)

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _dial(self, receiver: Receiver) -> "_Wire":
        host, port, tls = self._where
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=MAX_LINE)
        return _Wire(receiver, reader, writer)


class _Wire:
    """The client's end of one connection."""

    def __init__(self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._reading = asyncio.create_task(read_frames(reader, receiver.frame))
        self._reading.add_done_callback(lambda _: receiver.lost())

    async def write(self, frame: ClientFrame) -> None:
        await write_frame(self._writer, frame)

    async def close(self) -> None:
        self._reading.cancel()
        await close(self._writer)


class _Channel:
    """The server's end of one connection, as the relay writes to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, frame: ServerFrame) -> None:
        await write_frame(self._writer, frame)

    async def close(self, _code: CloseCode) -> None:
        await close(self._writer)  # the code went in the last frame


@asynccontextmanager
async def serve_lines(relay: Relay, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen until the block ends; yield the port."""

    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = relay.connect(_Channel(writer))
        try:
            await read_frames(reader, connection.receive)
        finally:
            connection.disconnected()
            await close(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(converse(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(accept, host, port, ssl=tls, limit=MAX_LINE)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


async def read_frames(reader: asyncio.StreamReader, take: Callable[[object, object], None]) -> None:
    """Take frames until the connection ends. What is no frame is handed on as one: judging it is not our business."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a line that is too long
        while line := await reader.readline():
            take(*frame_in(line))


async def write_frame(writer: asyncio.StreamWriter, frame: ClientFrame | ServerFrame) -> None:
    """Write one line; wait while the other end is slow, so that memory stays bounded. Raises OSError if it is gone."""
    fields = frame.to_fields()
    if isinstance(envelope := fields.get("envelope"), bytes):
        fields["envelope"] = to_base64url(envelope)
    writer.write(json.dumps([frame.EVENT, fields]).encode() + b"\n")
    await writer.drain()


def frame_in(line: bytes) -> tuple[object, object]:
    """Return the event and the fields of a line, None for what is none."""
    try:
        event, fields = json.loads(line)
        if isinstance(fields, dict) and isinstance(envelope := fields.get("envelope"), str):
            fields["envelope"] = from_base64url(envelope)
    except (ValueError, TypeError, RecursionError, ProtocolError):
        return None, None
    return event, fields


async def close(writer: asyncio.StreamWriter) -> None:
    """End a connection: what was written goes out if the other end reads it soon. Never raises."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
