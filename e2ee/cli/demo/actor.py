"""One client process of the demo: a SecureClient that obeys JSON lines and reports in JSON lines.

    {"do": "send", "user": "bob", "text": "hello"}  ->  {"event": "queued", "message_id": ...}
    {"do": "stop"}                                  ->  {"event": "stopped"}, after everything queued was sent
    received messages and client events             ->  {"event": "message", ...}, {"event": "Online"}, ...

Owns: this little protocol, and a transport that lets one delivery come late.
Does not know about: the story that is played.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, final

from e2ee.cli.credentials import TokenProvider, passphrase, token_provider
from e2ee.cli.settings import Settings, store_path
from e2ee.wire.envelope import Envelope
from transport_adapters import events
from transport_adapters.base import (
    Cursor,
    Delivery,
    EnvelopeTransport,
    Incoming,
    Outgoing,
    SendResult,
    SeqRange,
    Signal,
)
from transport_adapters.secure_client.client import Message, SecureClient
from transport_adapters.secure_client.opening import TRANSPORTS

_OVERTAKERS: Final = 2
"""How many later envelopes of the same sender overtake the one that is held back."""


@final
class Detaining:
    """A transport that hands on the first envelope of one sender after two later ones."""

    def __init__(self, inner: EnvelopeTransport, hold_from: str) -> None:
        self._inner, self._hold_from = inner, hold_from

    async def send(self, outgoing: Outgoing) -> SendResult:
        return await self._inner.send(outgoing)

    async def receive(self) -> AsyncIterator[Incoming]:
        held: Delivery | None = None
        arrived = 0
        async for incoming in self._inner.receive():
            if isinstance(incoming, Delivery) and _sender(incoming) == self._hold_from:
                arrived += 1
                if arrived == 1:
                    held = incoming
                    continue
            yield incoming
            if held is not None and arrived == 1 + _OVERTAKERS:
                yield held
                held = None

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        await self._inner.ack(epoch, ranges)

    async def signal(self, signal: Signal) -> None:
        await self._inner.signal(signal)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def play(home: Path, transport: str, hold_from: str) -> None:
    """Run one device over a transport, until told to stop."""
    settings = Settings.load(home)

    def detaining(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
        return Detaining(TRANSPORTS[transport](server, token=token, cursor=cursor), hold_from)

    client = await SecureClient.open(
        store=store_path(home),
        passphrase=passphrase(None, settings),
        server=settings.server,
        token_provider=token_provider(settings),
        user=settings.user,
        transport=detaining,
        on_event=_report_event,
    )
    async with client:
        showing = asyncio.create_task(_show(client))
        await _obey(client)
        showing.cancel()
    _report({"event": "stopped"})


async def _obey(client: SecureClient) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        if command["do"] == "send":
            message_id = await client.send(command["user"], command["text"])
            _report({"event": "queued", "message_id": str(message_id)})
        elif command["do"] == "stop":
            await client.flushed()
            return


async def _show(client: SecureClient) -> None:
    async for message in client:
        _report_message(message)
        await message.done()


def _report_message(message: Message) -> None:
    fields = {"message_id": str(message.message_id), "sender": message.sender, "text": message.data}
    _report({"event": "message", **fields})


def _report_event(event: events.Event) -> None:
    _report({"event": type(event).__name__, "code": getattr(event, "code", None)})


def _report(fields: dict[str, object]) -> None:
    print(json.dumps(fields), flush=True)


def _sender(delivery: Delivery) -> str | None:
    return Envelope.decode(delivery.envelope).sender.user_id if delivery.envelope is not None else None


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1]), *sys.argv[2:]))
