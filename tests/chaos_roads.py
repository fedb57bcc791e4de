"""Every transport by its name, on a road that can be made bad: the one table of tests that are for all of them.

Owns: how each transport's client is made, what a fault is on a road through a proxy and on one within this process.
Does not know about: who travels, when a fault comes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from tests.chaos_proxy import Admission, ChaosProxy, Weather, running
from tests.servers.prosody import COMPONENT, DOMAIN
from transport_adapters.base import Cursor, EnvelopeTransport
from transport_adapters.http_wire import HttpOptions
from transport_adapters.link import LinkOptions, Receiver
from transport_adapters.longpoll import LongPollTransport
from transport_adapters.memory import MemoryChannel, MemoryRelay, MemoryTransport, RelayConnection
from transport_adapters.mqtt import MqttOptions, MqttTransport
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport
from transport_adapters.sse import SseTransport
from transport_adapters.websocket import WebSocketOptions, WebSocketTransport
from transport_adapters.xmpp import XmppOptions, XmppTransport

TokenSource = Callable[[], Awaitable[str]]
CursorSource = Callable[[], Awaitable[Cursor]]
Client = Callable[[str, str, TokenSource, CursorSource, LinkOptions], EnvelopeTransport]
"""Makes a transport from the URL of the road, and that of the server to which the road leads in the end."""


def _socketio(
    url: str, _server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions
) -> EnvelopeTransport:
    return SocketIoTransport(url, token=token, cursor=cursor, options=SocketIoOptions(link=options))


def _websocket(
    url: str, _server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions
) -> EnvelopeTransport:
    return WebSocketTransport(url, token=token, cursor=cursor, options=WebSocketOptions(link=options))


def _sse(url: str, _server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
    return SseTransport(url, token=token, cursor=cursor, options=HttpOptions(link=options))


def _longpoll(
    url: str, _server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions
) -> EnvelopeTransport:
    return LongPollTransport(url, token=token, cursor=cursor, options=HttpOptions(link=options))


def _mqtt(url: str, server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
    chosen = MqttOptions(broker=url.replace("http", "mqtt", 1), link=options)
    return MqttTransport(server, token=token, cursor=cursor, options=chosen)


async def _password() -> str:
    return XMPP_PASSWORD


def _xmpp(url: str, _server: str, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
    chosen = XmppOptions(COMPONENT, "127.0.0.1", int(url.rpartition(":")[2]), link=options)
    return XmppTransport(f"{XMPP_USER}@{DOMAIN}", _password, token=token, cursor=cursor, options=chosen)


MQTT: Final = "mqtt"
XMPP: Final = "xmpp"
BROKERED: Final = (MQTT, XMPP)
"""Those whose road leads to a server of others, to which the relay is connected, too."""
XMPP_USER, XMPP_PASSWORD = "phone", "a password"
NETWORKED: Final[dict[str, Client]] = {
    "socketio": _socketio,
    "websocket": _websocket,
    "sse": _sse,
    "longpoll": _longpoll,
    MQTT: _mqtt,
    XMPP: _xmpp,
}
"""Transports over TCP. Add a line, and every test of faults has it."""
MEMORY: Final = "memory"
TRANSPORTS: Final = (MEMORY, *NETWORKED)


class Road(Protocol):
    """One party's way to the server over one transport."""

    weather: Weather
    admission: Admission

    def transport(self, server: str, *, token: TokenSource, cursor: CursorSource) -> EnvelopeTransport:
        """Make this party's transport (a `TransportFactory`)."""
        ...

    def cut(self) -> None:
        """End all connections in good order."""
        ...

    def reset(self) -> None:
        """End all connections at once."""
        ...

    def half_open(self) -> None:
        """Swallow everything on the connections there are."""
        ...

    def heal(self) -> None:
        """Be a good road again."""
        ...


class NetworkRoad(ChaosProxy):
    """A road through a proxy; the key server is reached without it."""

    def __init__(self, port: int, seed: object, name: str, options: LinkOptions) -> None:
        super().__init__(port, seed)
        self._client, self._options = NETWORKED[name], options

    def transport(self, server: str, *, token: TokenSource, cursor: CursorSource) -> EnvelopeTransport:
        return self._client(self.url(), server, token, cursor, self._options)


@dataclass(eq=False)
class MemoryRoad:
    """A road within this process. It has no weather, and nothing on it is half-open: no heartbeat would find out."""

    relay: MemoryRelay
    options: LinkOptions
    weather: Weather = field(default_factory=Weather)
    admission: Admission = Admission.OPEN
    _ends: list[tuple[RelayConnection, Receiver]] = field(default_factory=list)

    def transport(self, _server: str, *, token: TokenSource, cursor: CursorSource) -> EnvelopeTransport:
        return MemoryTransport(self, token=token, cursor=cursor, options=self.options)

    def connect(self, channel: MemoryChannel) -> RelayConnection:
        """Be the relay that the transport sees."""
        if self.admission is Admission.REFUSED:
            raise OSError("refused")
        if self.admission is Admission.SWALLOWED:
            return Abyss()
        connection = self.relay.connect(channel)
        self._ends.append((connection, channel._receiver))
        return connection

    def cut(self) -> None:
        ends, self._ends = self._ends, []
        for connection, receiver in ends:
            connection.disconnected()
            receiver.lost()

    reset = half_open = cut

    def heal(self) -> None:
        self.weather, self.admission = Weather(), Admission.OPEN


class Abyss:
    """A relay that takes everything and says nothing."""

    def receive(self, event: object, fields: object) -> None:
        pass

    def disconnected(self) -> None:
        pass


@asynccontextmanager
async def road(
    name: str, port: int, relay: MemoryRelay | None, options: LinkOptions, seed: object = 0
) -> AsyncIterator[Road]:
    """Open a road to a port, of a server or a broker; the one within this process leads to `relay`."""
    if name == MEMORY:
        assert relay is not None
        yield MemoryRoad(relay, options)
    else:
        async with running(NetworkRoad(port, seed, name, options)) as opened:
            yield opened
