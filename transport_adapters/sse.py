"""Server-sent events, client side.

Owns: reading an event stream, with bounds.
Does not know about: requests (http_wire.py), what frames mean.
"""

import asyncio
from typing import Final, NamedTuple, final

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import ClientFrame, Hello
from transport_adapters.http_wire import HttpOptions, Requests, Uplink
from transport_adapters.link import CursorSource, Link, LinkTransport, Receiver, TokenSource, require_secure
from transport_adapters.text import MAX_TEXT, from_pair, load_json

OPEN_EVENT: Final = "open"


@final
class SseTransport(LinkTransport):
    """Implements `EnvelopeTransport` over server-sent events and POSTs.

    Raises:
        InsecureUrlError: a plaintext URL to a host that is not loopback.
        ValueError: not a URL.
    """

    def __init__(
        self, url: str, *, token: TokenSource, cursor: CursorSource, options: HttpOptions | None = None
    ) -> None:
        require_secure(url)
        self._url = url
        self._options = options or HttpOptions()
        super().__init__(Link(self._dial, token, cursor, self._options.link))

    async def _dial(self, receiver: Receiver) -> "_SseWire":
        return _SseWire(self._url, self._options, receiver)


@final
class _SseWire:
    """One connection. The stream is opened with the token of `hello`, the first frame."""

    def __init__(self, url: str, options: HttpOptions, receiver: Receiver) -> None:
        self._requests = Requests(url, options, receiver)
        self._uplink = Uplink(self._requests, receiver)
        self._receiver = receiver
        self._patience = options.link.connect_timeout
        self._opened = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def write(self, frame: ClientFrame) -> None:
        if isinstance(frame, Hello):
            self._requests.token = frame.token
            self._reading = asyncio.create_task(self._read())
            async with asyncio.timeout(self._patience):  # a TimeoutError is an OSError
                await self._opened.wait()
        self._uplink.put(frame)

    async def close(self) -> None:
        self._uplink.stop()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._requests.close()

    async def _read(self) -> None:
        """Hand over what comes. The relay pings, so a stream on which nothing comes is dead: the request times out."""
        events = Events()
        try:
            async with self._requests.stream("GET", "/sse") as response:
                if response.status_code != 200 or "text/event-stream" not in response.headers.get("content-type", ""):
                    await self._requests.take(response)
                    return
                async for piece in response.aiter_raw():
                    for event in events.feed(piece):
                        self._take(event)
        except (OSError, MalformedMessageError):
            pass
        finally:
            self._receiver.lost()
            self._opened.set()

    def _take(self, event: "Event") -> None:
        fields = load_json(event.data)
        if event.name != OPEN_EVENT:
            self._receiver.frame(*from_pair([event.name, fields]))
        elif isinstance(fields, dict) and isinstance(given := fields.get("connection"), str) and given.isalnum():
            self._requests.connection = given
            self._opened.set()


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    data: str


@final
class Events:
    """Takes an event stream apart (HTML standard, section 9.2.6), holding no more than one event."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Event]:
        """Take bytes off the stream, and return the events that they complete.

        Raises:
            MalformedMessageError: an event is larger than any frame, or not UTF-8.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        found = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                found.append(event)
        if len(self._rest) + self._size > MAX_TEXT:
            raise MalformedMessageError("an event is too large")
        return found

    def _line(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        try:
            name, _, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise MalformedMessageError("an event stream is UTF-8") from None
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
            self._size += len(line)
        return None
