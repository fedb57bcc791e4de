"""The writing half of one connection: what an endpoint offers, and the bounded queue before it.

Owns: how much waits for a transport, and for how long.
Does not know about: what the frames say.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, final

from e2ee.limits import MAX_ENVELOPE
from transport_adapters.codes import CloseCode
from transport_adapters.frames import Deliver, Error, PresenceReport, ServerFrame
from transport_adapters.server.heartbeat import Liveness

_logger = logging.getLogger(__name__)

FRAME_OVERHEAD: Final = 256
"""Bytes a frame counts for besides its envelope."""
_STATE_OVERHEAD: Final = 16


class Carriage(NamedTuple):
    """What the relay has to know about a transport, to bound and to watch its connections."""

    held: int = 32 * 1024
    """Bytes that the transport may hold: handed over, counted as sent, and not written yet."""
    as_text: bool = False
    """Envelopes go as base64url, and take a third more."""
    liveness: Liveness = Liveness.OWN


DEFAULT_CARRIAGE: Final = Carriage()


class Channel(Protocol):
    """One client's connection, as an endpoint sees it."""

    async def send(self, frame: ServerFrame) -> None:
        """Hand over a frame; return once the transport holds little that is not written yet.

        Raises:
            OSError: the connection is gone.
        """
        ...

    async def close(self, code: CloseCode) -> None:
        """End the connection; its last frame was sent before. Never raises."""
        ...


class Bounds(NamedTuple):
    """Of one outbox: bytes that may wait, seconds for one write, and whether envelopes count as base64url."""

    limit: int
    timeout: float
    as_text: bool


@final
class Outbox:
    """Frames on their way to one client, bounded in bytes. `stuck` is called once, when the client does not read."""

    def __init__(self, channel: Channel, bounds: Bounds, stuck: Callable[[], None]) -> None:
        self._channel = channel
        self._limit, timeout, self._as_text = bounds
        self._timeout = timeout
        self._stuck = stuck
        self._frames: deque[ServerFrame] = deque()
        self._queued = 0
        self._waiting = asyncio.Event()
        self._ending = False
        self._task = asyncio.create_task(self._write())
        self._drained = asyncio.Event()

    @property
    def queued(self) -> int:
        """Bytes that wait here or in the transport's hands, by the relay's count."""
        return self._queued

    async def room(self) -> int:
        """Wait until any envelope fits, and return how many bytes of envelopes do.

        A quarter of the queue stays free for answers, so that deliveries alone never make a client count as stuck.
        """
        most = self._limit * 3 // 4
        while self._queued and most - self._queued < _on_wire(MAX_ENVELOPE, as_text=self._as_text):
            self._drained.clear()
            await self._drained.wait()
        left = most - self._queued
        return max(MAX_ENVELOPE, left * 3 // 4 if self._as_text else left)

    def put(self, frame: ServerFrame) -> None:
        """Queue a frame. Beyond the limit the client counts as stuck, and the frame is dropped."""
        size = self._size(frame)
        if self._ending or self._task.done():
            return
        if self._queued and self._queued + size > self._limit:
            self._stuck()
            return
        self._queued += size
        self._frames.append(frame)
        self._waiting.set()

    async def finish(self, error: Error, code: CloseCode, timeout: float) -> None:
        """Send the answers that wait, then why it ends; drop deliveries; close."""
        answers = [frame for frame in self._frames if not isinstance(frame, Deliver)]
        self._frames = deque([*answers, error])
        self._ending = True
        self._waiting.set()
        await asyncio.wait([self._task], timeout=timeout)
        self.stop()
        await self._channel.close(code)

    def stop(self) -> None:
        """Write nothing more."""
        self._task.cancel()
        self._frames.clear()

    async def _write(self) -> None:
        try:
            while not self._ending or self._frames:
                await self._waiting.wait()
                while self._frames:
                    size = self._size(self._frames[0])
                    async with asyncio.timeout(self._timeout):
                        await self._channel.send(self._frames.popleft())
                    self._queued -= size
                    self._drained.set()
                if not self._ending:
                    self._waiting.clear()
        except (TimeoutError, OSError):
            self._stuck()
        except Exception as error:  # noqa: BLE001 - of the transport's library; only this connection ends
            _logger.error("A frame could not be sent: %s", type(error).__name__)
            self._stuck()

    def _size(self, frame: ServerFrame) -> int:
        return frame_size(frame, as_text=self._as_text)


def frame_size(frame: ServerFrame, *, as_text: bool = False) -> int:
    """Bytes that a frame counts for."""
    match frame:
        case Deliver(envelope=bytes(body)):
            return FRAME_OVERHEAD + _on_wire(len(body), as_text=as_text)
        case PresenceReport(states):
            return FRAME_OVERHEAD + sum(len(user_id) + _STATE_OVERHEAD for user_id in states)
        case _:
            return FRAME_OVERHEAD


def _on_wire(size: int, *, as_text: bool) -> int:
    return (4 * size + 2) // 3 if as_text else size
