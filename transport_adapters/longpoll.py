"""Long-polling, client side.

Owns: one poll after the other.
Does not know about: requests (http_wire.py), what frames mean. Without asyncio: longpoll_sync.py.
"""

import asyncio
from typing import Final, final

from transport_adapters.frames import ClientFrame, Hello
from transport_adapters.http_wire import HttpOptions, Requests, Uplink
from transport_adapters.link import CursorSource, Link, LinkTransport, Receiver, TokenSource, require_secure
from transport_adapters.text import encode_frame

HOLD: Final = 15.0
"""Seconds that the server shall hold a poll when there is nothing; it holds none longer."""


@final
class LongPollTransport(LinkTransport):
    """Implements `EnvelopeTransport` over requests that are held until there is something.

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

    async def _dial(self, receiver: Receiver) -> "_LongPollWire":
        return _LongPollWire(self._url, self._options, receiver)


@final
class _LongPollWire:
    """One connection. The first poll brings `hello`, and its reply the connection's id."""

    def __init__(self, url: str, options: HttpOptions, receiver: Receiver) -> None:
        self._requests = Requests(url, options, receiver)
        # Less than what is given up as silence, so that an idle poll is answered in time.
        self._hold = min(HOLD, options.link.silence_timeout / 2)
        self._uplink = Uplink(self._requests, receiver)
        self._receiver = receiver
        self._polling: asyncio.Task[None] | None = None

    async def write(self, frame: ClientFrame) -> None:
        if isinstance(frame, Hello):
            self._requests.token = frame.token
            self._polling = asyncio.create_task(self._poll(frame))
        else:
            self._uplink.put(frame)

    async def close(self) -> None:
        self._uplink.stop()
        if self._polling is not None:
            is_alive = not self._polling.done()
            self._polling.cancel()
            await asyncio.wait([self._polling])
            if is_alive:
                # The server would wait for the next poll.
                await self._requests.leave()
        await self._requests.close()

    async def _poll(self, hello: Hello) -> None:
        """Poll until something fails. A reply comes within the hold: a poll that takes much longer is given up."""
        try:
            await self._requests.post("/poll", [encode_frame(hello)], self._hold)
            while self._requests.connection:
                await self._requests.post("/poll", [], self._hold)
        except OSError:
            pass
        finally:
            self._receiver.lost()
