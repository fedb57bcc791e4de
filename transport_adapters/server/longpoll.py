"""Long-polling, server side: a request brings frames and takes frames back; it is held until there are some.

Owns: the way of frames into replies, which of two polls is answered.
Does not know about: what frames mean; where it is mounted (mount.py).

The connection lives across polls, so two of one device do not end each other. A reply that is lost takes its frames
with it: the client then says `hello` again, and everything it did not acknowledge comes again.
"""

import asyncio
from typing import Final, NamedTuple, final

from transport_adapters.codes import CloseCode
from transport_adapters.frames import Error, ServerFrame
from transport_adapters.server.channel import Carriage
from transport_adapters.server.heartbeat import Liveness
from transport_adapters.server.http_connections import ID_HEADER, HttpConnection, HttpConnections
from transport_adapters.server.http_requests import (
    HELD,
    Receive,
    RequestRefusedError,
    Scope,
    Send,
    bearer_token,
    header,
    read_posted,
    refuse,
    reply,
    status_of,
)
from transport_adapters.text import encode_frame

CARRIAGE: Final = Carriage(held=HELD, as_text=True, liveness=Liveness.POLLED)
GATHERED: Final = 32 * 1024
"""Characters of frames that go into one reply. A larger frame goes alone."""
GATHERED_FRAMES: Final = 64
_HEELS: Final = 0.002
"""Seconds for the next frame to follow on the heels of one before it."""


@final
class PollEndpoint:
    """`POST`: opens a connection, or goes on with one."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one poll."""
        try:
            found, wait = await self._begun(scope, receive)
        except RequestRefusedError as refusal:
            await refuse(send, refusal)
            return
        channel = found.channel
        if not isinstance(channel, PollChannel):
            # An event stream's: frames go back there.
            await reply(send, 202, [], connection=found.id)
            return
        batch = await _collected(channel, found, receive, wait)
        if batch is None:
            return  # broken off; nobody would read the reply
        reason = found.reason if not batch.texts else None
        if reason is not None:
            await reply(send, status_of(reason), [encode_frame(reason)], connection=found.id)
            return
        status = 200 if batch.end is None else status_of(batch.end)
        await reply(send, status, batch.texts, connection=found.id)
        channel.written()

    async def _begun(self, scope: Scope, receive: Receive) -> tuple[HttpConnection, float]:
        token = bearer_token(scope)
        connection_id = header(scope, ID_HEADER)
        if connection_id:
            found = await self._connections.find(connection_id, token)
            posted = await read_posted(scope, receive)
        else:
            owner = await self._connections.authorize(token)
            posted = await read_posted(scope, receive)
            found = self._connections.open(owner, token, PollChannel(), CARRIAGE)
        found.take(posted.frames)
        return found, posted.wait


class Batch(NamedTuple):
    """Frames for one reply, as text; `end` is the last of them if it ends the connection."""

    texts: list[str]
    end: Error | None


class _Offer(NamedTuple):
    text: str
    taken: "asyncio.Future[None]"
    end: Error | None


@final
class PollChannel:
    """One client's replies, as the relay writes to them. A frame is sent when a reply has taken it."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.code: CloseCode | None = None
        self.last: Error | None = None
        self._offer: _Offer | None = None
        self._alone: asyncio.Future[None] | None = None
        self._news = asyncio.Event()
        self._newer = asyncio.Event()
        """Set for the poll that is held, when a newer one comes."""

    async def send(self, frame: ServerFrame) -> None:
        end = frame if isinstance(frame, Error) and frame.fatal else None
        self.last = end or self.last
        text = encode_frame(frame)
        del frame  # from here on the text is what is held
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offer = _Offer(text, taken, end)
        self._news.set()
        try:
            await taken
        finally:
            if self._offer is not None and self._offer.taken is taken:
                self._offer = None

    async def close(self, code: CloseCode) -> None:
        self.code = code
        self.closed.set()
        self._news.set()

    async def collect(self, wait: float) -> Batch:
        """Wait for a frame, and take it and those on its heels. Empty if none came, or a newer poll did."""
        self._newer.set()
        self._news.set()
        newer = self._newer = asyncio.Event()
        texts: list[str] = []
        size = 0
        end = None
        while not newer.is_set() and len(texts) < GATHERED_FRAMES:
            offer = await self._next(newer, _HEELS if texts else wait)
            if offer is None or (texts and size + len(offer.text) > GATHERED):
                break
            self._offer = None
            texts.append(offer.text)
            size += len(offer.text)
            if size > GATHERED:
                self._alone = offer.taken  # counts as queued until it is written
                break
            _release(offer.taken)
            end = offer.end
            if end is not None:
                break
        return Batch(texts, end)

    def written(self) -> None:
        """The reply that was collected last has been written."""
        alone, self._alone = self._alone, None
        if alone is not None:
            _release(alone)

    async def _next(self, newer: asyncio.Event, wait: float) -> _Offer | None:
        try:
            async with asyncio.timeout(wait):
                while self._offer is None and not self.closed.is_set() and not newer.is_set():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return None if newer.is_set() else self._offer


def _release(taken: "asyncio.Future[None]") -> None:
    if not taken.done():  # its sender may have given up
        taken.set_result(None)


async def _collected(channel: PollChannel, found: HttpConnection, receive: Receive, wait: float) -> Batch | None:
    """Collect a reply's frames; None, and the end of the connection, if the request is broken off meanwhile."""
    collecting = asyncio.create_task(channel.collect(wait))
    leaving = asyncio.create_task(_broken_off(receive))
    try:
        await asyncio.wait([collecting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            found.connection.disconnected()
            return None
        return collecting.result()
    finally:
        collecting.cancel()
        leaving.cancel()


async def _broken_off(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
