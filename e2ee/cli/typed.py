"""What comes in on standard input: one message, or line by line.

Owns: reading it without holding up the event loop or the end of the program.
Does not know about: what it is for.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Final

from e2ee.cli.settings import UsageError

_CHUNK: Final = 64 * 1024
_READ_AHEAD: Final = 4
"""Chunks that wait in memory; whoever writes a long file into a pipe has to wait."""
_MAX_LINE: Final = 1024 * 1024
"""Longest line that is kept in memory, in bytes; a message is shorter."""


def standard_input() -> int:
    """Return its file descriptor.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.fileno()


def everything(limit: int) -> bytes:
    """Return all of standard input, or a little more than `limit` bytes of it.

    Raises:
        UsageError: it is closed, or cannot be read.
    """
    descriptor = standard_input()
    parts, size = [], 0
    try:
        while size <= limit and (part := os.read(descriptor, _CHUNK)):
            parts.append(part)
            size += len(part)
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}") from None
    return b"".join(parts)


async def lines() -> AsyncIterator[bytes]:
    """Yield the lines of standard input, without their ends.

    Raises:
        UsageError: it is closed, or a line is endless.
    """
    descriptor = standard_input()
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_READ_AHEAD)

    def read() -> None:
        # os.read, because a buffered reader that is held here when the program ends makes the interpreter abort.
        part = b"-"
        while part:
            room.acquire()
            try:
                part = os.read(descriptor, _CHUNK)
            except OSError:
                part = b""
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, part)
            except RuntimeError:
                return  # the loop is closed: nobody listens any more

    # Not one of the loop's threads: those are waited for at the end, and nobody presses Enter for that.
    threading.Thread(target=read, name="standard input", daemon=True).start()
    rest = b""
    while part := await arrived.get():
        room.release()
        *complete, rest = (rest + part).split(b"\n")
        for line in complete:
            yield line.rstrip(b"\r")
        if len(rest) > _MAX_LINE:
            raise UsageError(f"a line of more than {_MAX_LINE} bytes is no message")
    if rest:
        yield rest
