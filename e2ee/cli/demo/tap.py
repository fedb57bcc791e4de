"""Stands between the clients and the server, and writes down every byte that passes, both ways.

Owns: passing on, recording, taking the mask off WebSocket frames and the spelling off envelopes.
Does not know about: what the bytes mean. They are recorded outside of both ends' processes.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final, final

_CHUNK: Final = 64 * 1024
_UPGRADE: Final = b"upgrade: websocket"
_AS_TEXT: Final = re.compile(rb'envelope(?:"|&quot;):(?:"|&quot;)([A-Za-z0-9_-]+)')
"""An XMPP server may write quotation marks as XML spells them."""


@final
@dataclass(frozen=True, slots=True)
class Recording:
    """One connection."""

    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)


@final
class Tap:
    """A TCP relay on a free port of loopback."""

    def __init__(self) -> None:
        self.target: int | None = None
        """The server's port. Without one, connections are closed at once."""
        self.port = 0
        self.recordings: list[Recording] = []
        self.recording = True
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and cut what is connected."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _pass_on(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        recording = Recording()
        if self.recording:
            self.recordings.append(recording)
        try:
            server_in, server_out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client_out.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(client_in, server_out, recording.to_server))
                both.create_task(self._pump(server_in, client_out, recording.to_client))
        finally:
            server_out.close()
            client_out.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError):  # the other end has gone; a killed one does so without a word
            while data := await source.read(_CHUNK):
                if self.recording:
                    record += data
                sink.write(data)
                await sink.drain()
        sink.close()


def save(recordings: list[Recording], directory: Path) -> list[Path]:
    """Write what passed to files: the bytes as they were, and the frames of WebSocket connections without mask."""
    directory.mkdir()
    files = []
    for number, recording in enumerate(recordings, 1):
        for direction, data in (("to-server", recording.to_server), ("to-client", recording.to_client)):
            for kind, content in (("raw", bytes(data)), ("frames", payloads(bytes(data)))):
                path = directory / f"{number:03}-{direction}.{kind}"
                path.write_bytes(content)
                files.append(path)
    return files


def envelopes(stream: bytes) -> bytes:
    """Return the envelopes that a connection carried, one after the other.

    Socket.IO carries them as they are, in frames. Where frames are text they are base64url, in an object's field.
    """
    passed = payloads(stream)
    found = _AS_TEXT.findall(passed or stream)
    return passed + b"".join(base64.urlsafe_b64decode(each + b"=" * (-len(each) % 4)) for each in found)


def payloads(stream: bytes) -> bytes:
    """Return the payloads of a WebSocket connection's frames (RFC 6455 section 5.2), one after the other.

    A client masks what it sends, so that a search of the raw bytes would find nothing there, whatever they are.
    """
    head, _, frames = stream.partition(b"\r\n\r\n")
    return b"".join(_unmasked(frames)) if _UPGRADE in head.lower() else b""


def _unmasked(frames: bytes) -> Iterator[bytes]:
    at = 0
    while len(frames) >= at + 2:
        masked, length, at = frames[at + 1] & 0x80, frames[at + 1] & 0x7F, at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(frames[at : at + size]), at + size
        mask = frames[at : at + 4] if masked else b"\0"
        at += 4 if masked else 0
        payload = frames[at : at + length]
        yield bytes(byte ^ key for byte, key in zip(payload, cycle(mask), strict=False)) if masked else payload
        at += length
