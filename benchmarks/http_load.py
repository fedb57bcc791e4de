"""Load over HTTP/1.1, and what it costs both sides.

Owns: connections that are kept open, one request after the other on each; processor time of processes.
Does not know about: what is asked. The same load is given to every server that is compared.

Requests are bytes that were made before, and an answer is read no further than to find its end: a client library would
take as much of the machine as the server that is measured.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class Answer(NamedTuple):
    """One answer: its status, its body, and the milliseconds that it took."""

    status: int
    body: bytes
    milliseconds: float


class Figures(NamedTuple):
    """Requests per second, the time of one in milliseconds, and processor time in milliseconds for each request."""

    rate: float
    p50: float
    p99: float
    server: float
    """Of the servers' processes."""
    database: float
    """Of the database server's processes; 0 if it is in the server's."""


class Load(NamedTuple):
    """The answers, connection by connection in the order of the requests, and the figures."""

    answers: Sequence[Sequence[Answer]]
    figures: Figures


class Processes(NamedTuple):
    """Whose processor time is counted: processes with all that they started."""

    servers: Collection[int]
    database: Collection[int] = ()


def request(method: str, path: str, body: bytes, token: str) -> bytes:
    """Write a request as bytes."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(urls: Sequence[str], requests: Sequence[Sequence[bytes]], processes: Processes) -> Load:
    """Open a connection for each sequence of requests, to the URLs in turn, and send each sequence one by one."""
    loop = asyncio.get_running_loop()
    places = [urlsplit(url) for url in urls]
    connections = []
    for number, those in enumerate(requests):
        place = places[number % len(places)]
        _, connection = await loop.create_connection(lambda those=those: _Connection(those), place.hostname, place.port)
        connections.append(connection)
    used = _used(processes.servers), _used(processes.database)
    begun = time.perf_counter()
    for connection in connections:
        connection.begin()
    answers = await asyncio.gather(*(connection.done for connection in connections))
    seconds = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    taken = [answer.milliseconds for those in answers for answer in those]
    percentiles = statistics.quantiles(taken, n=100)
    server, database = (
        (_used(those) - before) * 1e3 / len(taken)
        for those, before in zip((processes.servers, processes.database), used, strict=True)
    )
    return Load(answers, Figures(len(taken) / seconds, percentiles[49], percentiles[98], server, database))


@final
class _Connection(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes]) -> None:
        self.done: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._answers: list[Answer] = []
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def begin(self) -> None:
        self._begun = time.perf_counter()
        self._transport.write(self._requests[len(self._answers)])

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = self._whole()
        if answer is None:
            return
        self._answers.append(answer)
        self._received.clear()
        if len(self._answers) < len(self._requests):
            self.begin()
        else:
            self.done.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()

    def _whole(self) -> Answer | None:
        """Return the answer if all of it is here."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, body = bytes(self._received[:end]).lower(), self._received[end + 4 :]
        _, found, length = head.partition(b"\r\ncontent-length:")
        if found:
            if len(body) < int(length.partition(b"\r\n")[0]):
                return None
        elif not body.endswith(_LAST_CHUNK):
            return None
        milliseconds = (time.perf_counter() - self._begun) * 1e3
        return Answer(int(head[9:12]), bytes(body) if found else _joined(bytes(body)), milliseconds)


def _joined(chunks: bytes) -> bytes:
    joined = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        joined, chunks = joined + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return joined


def _used(pids: Collection[int]) -> float:
    """Return the processor seconds that processes and their children have used; those that ended count as well."""
    return sum(_seconds(each) for pid in pids for each in (pid, *_children(pid)))


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS  # its own time, and that of children that ended
