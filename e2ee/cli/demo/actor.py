"""One client process of the demo: a SecureClient that obeys JSON lines and reports in JSON lines.

    {"do": "send", "user": "bob", "text": "hello"}  ->  {"event": "queued", "message_id": ...}
    {"do": "stop"}                                  ->  {"event": "stopped"}, after everything queued was sent
    received messages and client events             ->  {"event": "message", ...}, {"event": "Online"}, ...

Owns: this little protocol, and the wiretap on the transport.
Does not know about: the story that is played.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import final

from e2ee.cli.settings import Settings, TokenProvider, store_path
from transport_adapters import events
from transport_adapters.base import Cursor, Delivery, EnvelopeTransport, Incoming, Outgoing, SendResult, SeqRange
from transport_adapters.secure_client.client import Message, SecureClient, socketio_transport

_OVERTAKERS = 2
"""How many later envelopes overtake the one that is held back."""


@final
class Wiretap:
    """A transport that copies every envelope to a file, and lets one delivery arrive late."""

    def __init__(self, inner: EnvelopeTransport, capture: Path, hold_delivery: int) -> None:
        self._inner, self._capture, self._hold = inner, capture, hold_delivery

    async def send(self, outgoing: Outgoing) -> SendResult:
        self._write(b"out", outgoing.envelope)
        return await self._inner.send(outgoing)

    async def receive(self) -> AsyncIterator[Incoming]:
        held: Delivery | None = None
        arrived = 0
        async for incoming in self._inner.receive():
            if isinstance(incoming, Delivery) and incoming.envelope is not None:
                self._write(b"in", incoming.envelope)
                arrived += 1
                if arrived == self._hold:
                    held = incoming
                    continue
            yield incoming
            if held is not None and arrived == self._hold + _OVERTAKERS:
                _report({"event": "late", "seq": held.seq})
                yield held
                held = None

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        await self._inner.ack(epoch, ranges)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _write(self, direction: bytes, envelope: bytes) -> None:
        with self._capture.open("ab") as file:
            file.write(direction + b" " + envelope + b"\n")


async def play(home: Path, passphrase: str, hold_delivery: int) -> None:
    """Run one device until told to stop."""
    settings = Settings.load(home)

    def wiretapped(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
        return Wiretap(socketio_transport(server, token=token, cursor=cursor), home / "frames.bin", hold_delivery)

    client = await SecureClient.open(
        store=store_path(home),
        passphrase=passphrase,
        server=settings.server,
        token_provider=settings.token_provider(),
        user=settings.user,
        transport=wiretapped,
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
            status = client.messenger.status()
            _report({"event": "status", "skipped_keys": status.skipped_keys, "unreadable": status.unreadable})
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


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1]), Path(sys.argv[2]).read_text().strip(), int(sys.argv[3])))
