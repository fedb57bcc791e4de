"""A client that kills itself: SecureClient over the real store and the real transport, with every step counted.

Run as a program it reads jobs, one JSON object a line, forks a process for each, and answers with its exit status.
Everything is imported before the fork, so a life costs what the client does and not what Python takes to start.

Owns: the steps and the kill, the little application around the client, its report.
Does not know about: what is asserted (test_crash_client.py). The report is a file of JSON lines; each is one write,
so what is in it was done before the process died.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from e2ee.ports import ReadTransaction, Store, Transaction
from e2ee.stores.sqlite import SqliteStore
from transport_adapters.base import Cursor, EnvelopeTransport, Incoming, Outgoing, Refused, SendResult, SeqRange, Signal
from transport_adapters.link import LinkOptions
from transport_adapters.secure_client.client import Message, SecureClient
from transport_adapters.secure_client.parts import Pace, TokenProvider
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

KEY: Final = bytes(range(32))
STUCK: Final = 3
"""Exit code of a client that did not come to its end."""
_LIFETIME_SECONDS: Final = 120
_EAGER: Final = LinkOptions(first_backoff=0.01, max_backoff=0.1, jitter=lambda: 1.0)
_QUICK: Final = Pace(first_retry=0.01, longest_retry=0.1)


@dataclass(frozen=True)
class Job:
    """One life of one client."""

    server: str
    user: str
    token: str
    store: str
    report: str
    send: list[tuple[str, str]]
    """Recipients and texts."""
    until: list[str]
    """Texts to be shown before this life ends."""
    kill: tuple[str, int] | None = None
    """The step at which the client kills itself: its name, and the how-manieth of that name."""
    refuse: bool = False
    """Whether everything that is sent is refused for good."""


class Report:
    """Lines in a file that outlive the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, **fields: object) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


class Steps:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, kill: tuple[str, int] | None) -> None:
        self._kill = kill
        self._seen: Counter[str] = Counter()
        self.taken: list[tuple[str, int]] = []

    def __call__(self, name: str) -> None:
        self._seen[name] += 1
        step = (name, self._seen[name])
        self.taken.append(step)
        if step == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)


class SteppingStore:
    """A store whose commits are steps, named for the method of Messenger that commits."""

    def __init__(self, inner: Store, step: Steps) -> None:
        self._inner, self._step = inner, step

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return self._inner.read()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        # Above this generator and the library that drives it is the `with` statement.
        committing = sys._getframe(2).f_code.co_name
        with self._inner.write() as transaction:
            yield transaction
            self._step(f"before commit of {committing}")
        self._step(f"after commit of {committing}")

    def close(self) -> None:
        self._inner.close()


class SteppingTransport:
    """A transport whose sends, deliveries and acks are steps."""

    def __init__(self, inner: EnvelopeTransport, step: Steps, *, refuse: bool = False) -> None:
        self._inner, self._step, self._refuse = inner, step, refuse

    async def send(self, outgoing: Outgoing) -> SendResult:
        self._step("before send")
        refusal = Refused(outgoing.envelope_id, "contact_refused", "") if self._refuse else None
        result = refusal or await self._inner.send(outgoing)
        self._step("after send")
        return result

    async def receive(self) -> AsyncIterator[Incoming]:
        async for incoming in self._inner.receive():
            self._step("before delivery")
            yield incoming
            self._step("after delivery")

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        self._step("before ack")
        await self._inner.ack(epoch, ranges)
        self._step("after ack")

    async def signal(self, signal: Signal) -> None:
        await self._inner.signal(signal)

    async def aclose(self) -> None:
        await self._inner.aclose()


def step_around_requests(step: Steps) -> None:
    """Make every HTTP request a step."""
    send = httpx.AsyncClient.send

    async def stepping(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        step("before request")
        response = await send(self, request, **options)
        step("after request")
        return response

    httpx.AsyncClient.send = stepping  # type: ignore[method-assign]  # this process serves one test and ends


async def live(job: Job) -> None:
    """One life: open, send what the job says, receive until everything awaited was shown, flush, close."""
    step, report = Steps(job.kill), Report(job.report)
    step_around_requests(step)

    async def token() -> str:
        return job.token

    def transport(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
        options = SocketIoOptions(link=_EAGER)
        inner = SocketIoTransport(server, token=token, cursor=cursor, options=options)
        return SteppingTransport(inner, step, refuse=job.refuse)

    exists = SqliteStore.exists(job.store)
    opened = SqliteStore.open(job.store, key=KEY) if exists else SqliteStore.create(job.store, key=KEY)
    async with await SecureClient.open(
        store=SteppingStore(opened, step),
        server=job.server,
        token_provider=token,
        transport=transport,
        user=job.user,
        on_event=lambda event: report(event=type(event).__name__),
        pace=_QUICK,
    ) as client:
        for user, text in job.send:
            step("before queueing")
            message_id = await client.send(user, text)
            report(queued=text, message_id=str(message_id))
            step("after queueing")
        awaited = set(job.until)
        while awaited:
            message = await anext(client)
            await show(message, step, report)
            awaited.discard(str(message.data))
        await client.caught_up()
        await client.flushed()
        status = client.messenger.status()
    report(ended=True, outbox=status.outbox, unreadable=status.unreadable, steps=step.taken)


async def show(message: Message, step: Steps, report: Report) -> None:
    step("before showing")
    report(shown=message.data, message_id=str(message.message_id), sender=message.sender)
    step("after showing")
    await message.done()
    report(confirmed=str(message.message_id))
    step("after done")


def fork(fields: dict[str, Any]) -> int:
    """Run a job in a process of its own; return its exit code, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        kill = fields.pop("kill")
        job = Job(**fields, kill=None if kill is None else (kill[0], kill[1]))
        try:
            asyncio.run(asyncio.wait_for(live(job), _LIFETIME_SECONDS))
            code = 0
        except TimeoutError:
            code = STUCK
            raise
    except BaseException:  # noqa: BLE001 - nothing may escape: the child would go on as a second zygote
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for late_import in ("httpcore", "h11", "anyio._backends._asyncio"):
        importlib.import_module(late_import)
    for line in sys.stdin:
        print(fork(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
