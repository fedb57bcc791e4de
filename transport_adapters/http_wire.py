"""HTTP, client side: the requests of one connection, for the transports that are made of requests.

Owns: httpx, headers, bodies, sending frames in order and many in one request.
Does not know about: how frames come back (sse.py, longpoll.py), what they mean.

The device token goes in the Authorization header only, and no redirect is followed: it is for the server that the
application named. A request that fails ends the connection: whether the server took its frames is not known, and after
the next `hello` it does not matter.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, final

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import ClientFrame, Refresh
from transport_adapters.link import LinkOptions, Receiver
from transport_adapters.text import encode_frame, from_pair, load_json

try:
    import httpx
except ImportError as missing:
    raise ImportError("HTTP transports need httpx: install 'e2ee-layer[client]'") from missing

PREFIX: Final = "/e2ee"
ID_HEADER: Final = "E2EE-Connection"
MAX_REPLY: Final = 512 * 1024
MAX_FRAMES: Final = 64
"""In one request; the server's own limit."""
MAX_POSTED: Final = 192 * 1024
"""Characters of frames in one request, unless it is one frame; the server takes 256 KiB."""

LEAVE_TIMEOUT: Final = 2.0
"""Seconds for the last request, of a client that is being closed."""


@final
@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where the server mounts the endpoints, and how to reach it. `tls` replaces the system's certificate store."""

    prefix: str = PREFIX
    tls: ssl.SSLContext | None = None
    link: LinkOptions = field(default_factory=LinkOptions)


@final
class Requests:
    """The requests of one connection. What a reply brings goes to the receiver."""

    def __init__(self, url: str, options: HttpOptions, receiver: Receiver) -> None:
        self._base = url.rstrip("/") + options.prefix
        self._receiver = receiver
        link = options.link
        timeout = httpx.Timeout(link.connect_timeout, read=link.silence_timeout)
        self._client = httpx.AsyncClient(verify=options.tls or _system_store(), timeout=timeout, trust_env=False)
        self.token = ""
        self.connection = ""
        """The id that the server gave."""

    @asynccontextmanager
    async def stream(self, method: str, path: str, body: str | None = None) -> AsyncIterator[httpx.Response]:
        """Make a request, and leave the reply's body to be read.

        Raises:
            OSError: it failed.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.connection:
            headers[ID_HEADER] = self.connection
        try:
            async with self._client.stream(method, self._base + path, headers=headers, content=body) as response:
                yield response
        except httpx.HTTPError as error:
            raise OSError(f"the request failed: {type(error).__name__}") from None

    async def post(self, path: str, frames: Sequence[str], wait: float | None = None) -> None:
        """Send frames, and hand over those of the reply.

        Raises:
            OSError: the request failed, or the server refused it; why is among the frames handed over.
        """
        waiting = "" if wait is None else f',"wait":{json.dumps(wait)}'
        async with self.stream("POST", path, f'{{"frames":[{",".join(frames)}]{waiting}}}') as response:
            await self.take(response)

    async def leave(self) -> None:
        """Tell the server that this is the end. Never raises: it would find out, later."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                if self.connection:
                    async with self.stream("DELETE", "/frames") as response:
                        await self.take(response)
        except OSError:
            pass

    async def take(self, response: httpx.Response) -> dict[str, object]:
        """Read a reply and hand its frames over; return all its members.

        Raises:
            OSError: it is none, or says that the request was refused.
        """
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_REPLY:
                raise OSError("the reply is too large")
        try:
            value = load_json(bytes(body))
            if not isinstance(value, dict) or not isinstance(frames := value.get("frames"), list):
                raise MalformedMessageError("a reply is an object with frames")
            if isinstance(given := value.get("connection"), str) and given.isalnum():
                self.connection = given
            for pair in frames:
                self._receiver.frame(*from_pair(pair))
        except MalformedMessageError:
            raise OSError(f"the server does not speak frames (status {response.status_code})") from None
        if response.status_code >= 400:
            raise OSError(f"the server refused the request: {response.status_code}")
        return value

    async def close(self) -> None:
        """Break off what is under way."""
        await self._client.aclose()


@final
class Uplink:
    """A client's frames on their way to the server: in order, one request at a time, with all that waits in it."""

    def __init__(self, requests: Requests, receiver: Receiver) -> None:
        self._requests = requests
        self._receiver = receiver
        self._frames: deque[str] = deque()
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, frame: ClientFrame) -> None:
        """Queue a frame. How many may wait is the exchange's matter, which bounds what is unanswered."""
        if isinstance(frame, Refresh):
            self._requests.token = frame.token  # from the next request on
        self._frames.append(encode_frame(frame))
        self._news.set()

    def stop(self) -> None:
        """Send nothing more."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._frames:
                    await self._requests.post("/frames", self._next())
        except OSError:
            self._receiver.lost()

    def _next(self) -> list[str]:
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and len(taken) < MAX_FRAMES and size + len(self._frames[0]) <= MAX_POSTED:
            size += len(self._frames[0])
            taken.append(self._frames.popleft())
        return taken


_store: list[ssl.SSLContext] = []


def _system_store() -> ssl.SSLContext:
    """Load the system's certificates once: for every connection, that would take longer than all else."""
    if not _store:
        _store.append(ssl.create_default_context())
    return _store[0]
