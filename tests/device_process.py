"""One device in a process of its own: SecureClient on its own store, told what to do over standard input.

Run as a program it reads commands, one JSON object a line, and answers each with one line, in order. It takes every
message that comes, as an application does, and remembers what it was shown. What it is told goes to standard error,
an event a line, which outlives a kill.

Owns: the commands, what was shown.
Does not know about: what a test asserts.
"""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import replace
from typing import Any, Final

from e2ee.history_book import FOREVER
from e2ee.wire.identifiers import DeviceId
from e2ee.wire.link import link_code
from transport_adapters.base import EnvelopeTransport
from transport_adapters.link import CursorSource, LinkOptions
from transport_adapters.secure_client.client import SecureClient, TransportFactory
from transport_adapters.secure_client.linking import LinkPace
from transport_adapters.secure_client.parts import Pace, TokenProvider
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

KEY: Final = bytes(range(32))
_EAGER: Final = LinkOptions(first_backoff=0.01, max_backoff=0.1, jitter=lambda: 1.0)
_QUICK: Final = Pace(first_retry=0.01, longest_retry=0.2)
_HURRIED: Final = replace(_EAGER, silence_timeout=2.0)
"""Over a broker, whose clients are not told that what is behind it was killed, and find out by silence."""
_LONG_SECONDS: Final = 40
_SWIFT: Final = LinkPace(poll=0.05)


class Application:
    """The little that an application is around its client."""

    def __init__(self) -> None:
        self.client: SecureClient | None = None
        self.shown: list[str] = []
        self.showed = asyncio.Event()
        self.told: Counter[str] = Counter()
        """Events by their names and codes."""
        self.taking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        lines = asyncio.StreamReader(limit=1 << 20)
        reading = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: reading, sys.stdin)
        while line := await lines.readline():
            command = json.loads(line)
            self.say(await getattr(self, command.pop("do"))(**command))

    @staticmethod
    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)

    async def open(
        self, user: str, store: str, server: str, token: str, link: bool = False, broker: tuple[str, int] | None = None
    ) -> dict[str, Any]:
        """Open the first device of a user, or link a further one, which tells its code on a line before the answer.

        `broker` is the name of a transport, and the port at which its broker serves clients.
        """

        async def provide() -> str:
            return token

        async def confirm(_signs: object) -> bool:
            return True

        common: dict[str, Any] = {
            "store": store,
            "key": KEY,
            "user": user,
            "server": server,
            "token_provider": provide,
            "transport": _over_socketio if broker is None else _over_broker(*broker),
            "pace": _QUICK,
            "on_event": lambda event: self._note(f"{type(event).__name__} {getattr(event, 'code', '')}"),
        }
        if link:
            self.client = await SecureClient.join(
                **common, show_code=lambda each: self.say({"code": link_code(each)}), confirm=confirm, link_pace=_SWIFT
            )
        else:
            self.client = await SecureClient.open(**common)
        await self.client.history.set_retention(FOREVER)
        self.taking = asyncio.create_task(self._take())
        await self.client.online()
        return {"device": str(self.client.address.device_id)}

    async def approve(self, code: str) -> dict[str, Any]:
        async def confirm(_signs: object) -> bool:
            return True

        assert self.client is not None
        await self.client.devices.approve(code, confirm, pace=_SWIFT)
        return {}

    async def retire(self, device: str) -> dict[str, Any]:
        assert self.client is not None
        await self.client.devices.retire(DeviceId.from_hex(device))
        return {}

    async def send(self, messages: list[tuple[str, str]]) -> dict[str, Any]:
        assert self.client is not None
        for recipient, text in messages:
            await self.client.send(recipient, text)
        return {}

    async def until(self, texts: list[str]) -> dict[str, Any]:
        """Wait until the history holds all of some texts; tell which are still missing after a long time, and why."""
        assert self.client is not None
        missing = set(texts)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONG_SECONDS):
                async for _ in self.client.history.changes():
                    for each in await self.client.history.conversations():
                        for entry in await self.client.history.messages(each.peer, limit=1000):
                            missing.discard(str(entry.data))
                    if not missing:
                        break
        return {"missing": sorted(missing), "told": dict(self.told) if missing else {}}

    async def received(self, count: int) -> dict[str, Any]:
        """Wait until the history holds so many messages of others; tell how many it holds."""
        assert self.client is not None
        held: dict[str, int] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONG_SECONDS):
                async for each in self.client.history.changes():
                    held[each.peer] = each.unread
                    if sum(held.values()) >= count:
                        break
        return {"count": sum(held.values())}

    async def taken(self, count: int) -> dict[str, Any]:
        """Wait until so many further messages were shown; tell how many were."""
        before = len(self.shown)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONG_SECONDS):
                while len(self.shown) < before + count:
                    self.showed.clear()
                    await self.showed.wait()
        return {"count": len(self.shown) - before}

    async def close(self) -> dict[str, Any]:
        """Close once everything was shown, or nothing more is because the device was retired; tell what was."""
        assert self.client is not None
        assert self.taking is not None
        async with asyncio.timeout(_LONG_SECONDS):
            while await asyncio.to_thread(self.client.messenger.inbound, 1):
                if self.taking.done():
                    break
                await asyncio.sleep(0.01)
        await self.client.aclose()
        return {"shown": self.shown}

    def _note(self, event: str) -> None:
        self.told.update([event])
        print(event, file=sys.stderr, flush=True)

    async def _take(self) -> None:
        assert self.client is not None
        async for message in self.client:
            self.shown.append(str(message.data))
            self.showed.set()


def _over_socketio(server: str, *, token: TokenProvider, cursor: CursorSource) -> EnvelopeTransport:
    return SocketIoTransport(server, token=token, cursor=cursor, options=SocketIoOptions(link=_EAGER))


def _over_broker(name: str, port: int) -> TransportFactory:
    from tests.chaos_roads import NETWORKED  # the libraries of all transports, which most processes do not need

    def make(server: str, *, token: TokenProvider, cursor: CursorSource) -> EnvelopeTransport:
        return NETWORKED[name](f"http://127.0.0.1:{port}", server, token, cursor, _HURRIED)

    return make


if __name__ == "__main__":
    asyncio.run(Application().run())
