"""XMPP, server side: the relay as an external component of an XMPP server (XEP-0114).

Owns: the component's stream and its reconnecting, which full JID is which connection.
Does not know about: accounts, rosters; what frames mean.

The XMPP server stamps every stanza with its sender, and a component trusts it in that; who may use which device is
proven by the token in `hello`, as on every transport. An XMPP server takes one component of a name at a time: of
several nodes one has it, and the others try again until it is free.
"""

import asyncio
import contextlib
import logging
from typing import Any, Final, NamedTuple, final
from xml.etree.ElementTree import Element

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Hello, ServerFrame
from transport_adapters.server.channel import Carriage
from transport_adapters.server.connection import Connection
from transport_adapters.server.heartbeat import Liveness
from transport_adapters.server.relay import Relay
from transport_adapters.text import MAX_TEXT, decode_frame
from transport_adapters.xmpp_stanzas import NAMESPACE, end_stanza, frame_stanza, unavailable_stanza

try:
    from slixmpp import ComponentXMPP
    from slixmpp.xmlstream.stanzabase import StanzaBase
except ImportError as missing:
    raise ImportError("the XMPP component needs slixmpp: install 'e2ee-layer[xmpp]'") from missing

_logger = logging.getLogger(__name__)

CARRIAGE: Final = Carriage(held=64 * 1024, as_text=True, liveness=Liveness.PINGED)
"""A write returns when asyncio holds no more than its high-water mark for the component's stream."""
CONNECT_SECONDS: Final = 10.0
MAX_PER_ACCOUNT: Final = 64
"""Connections of one XMPP account; it costs its user nothing to open more."""
_MESSAGE, _PRESENCE, _IQ = (f"{{jabber:component:accept}}{name}" for name in ("message", "presence", "iq"))
_TALKATIVE: Final = "slixmpp.xmlstream.xmlstream"


class XmppSettings(NamedTuple):
    """The component: its JID and secret, where the XMPP server takes components, and whose users it serves.

    The stream is not encrypted: the address is this machine's.
    """

    component: str
    secret: str
    domains: frozenset[str]
    """Stanzas of users of other domains are refused, as other servers may forward them."""
    host: str = "127.0.0.1"
    port: int = 5347
    first_retry: float = 1.0
    longest_retry: float = 15.0

    def __repr__(self) -> str:
        return f"XmppSettings({self.component!r}, redacted)"


@final
class XmppComponent:
    """Serves a relay's frames over XMPP. `start`, and `close` before the relay closes its database."""

    def __init__(self, relay: Relay, settings: XmppSettings) -> None:
        self._relay, self._settings = relay, settings
        self._running: asyncio.Task[None] | None = None
        self._stream: _Stream | None = None
        self.online = asyncio.Event()
        """Set while the XMPP server has accepted the component."""

    def start(self) -> None:
        """Begin to connect, and to connect again. Idempotent."""
        if logging.getLogger(_TALKATIVE).isEnabledFor(logging.DEBUG):
            _logger.warning("slixmpp's log level is DEBUG: it prints device tokens")
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Leave the XMPP server. Idempotent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None

    def abort(self) -> None:
        """Break the stream as a crash would; it is made anew."""
        if self._stream is not None:
            self._stream.abort()

    async def _run(self) -> None:
        settings, failures = self._settings, 0
        while True:
            stream = self._stream = _Stream(self._relay, settings)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await stream.open()
                failures = 0
                self.online.set()
                await stream.lost.wait()
                _logger.warning("The XMPP server ended the component's stream")
            except (OSError, TimeoutError) as error:
                failures += 1
                if failures == 1:
                    _logger.warning("No XMPP server takes the component: %s", str(error) or type(error).__name__)
            finally:
                self.online.clear()
                await stream.end()
            await asyncio.sleep(min(settings.longest_retry, settings.first_retry * 2.0 ** min(failures, 8)))


@final
class _Stream(ComponentXMPP):
    """One stream to the XMPP server, and the connections on it by full JID."""

    def __init__(self, relay: Relay, settings: XmppSettings) -> None:
        super().__init__(settings.component, settings.secret, settings.host, settings.port)  # type: ignore[no-untyped-call]  # slixmpp's types are incomplete
        self.enable_direct_tls = False
        self.whitespace_keepalive = True
        self.whitespace_keepalive_interval = 30  # a half-open stream shows itself
        self.auto_authorize, self.auto_subscribe = None, False
        self._relay, self._settings = relay, settings
        self._lines: dict[str, _Line] = {}
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.add_event_handler("session_start", self._start)
        for failure in ("connection_failed", "disconnected", "stream_error"):
            self.add_event_handler(failure, self._fail)

    async def open(self) -> None:
        """Connect and prove the secret.

        Raises:
            OSError: it failed.
        """
        self.connect()
        await self._opened

    async def end(self) -> None:
        """Leave; connections that are still there have ended. Never raises."""
        self.lost.set()  # what still comes opens none
        for line in list(self._lines.values()):
            line.connection.disconnected()
        self._lines.clear()
        with contextlib.suppress(Exception):
            if self.transport is not None:
                await self.disconnect(wait=1.0, ignore_send_queue=True)
        self.cancel_connection_attempt()
        self.abort()
        if self._run_out_filters is not None:
            self._run_out_filters.cancel()

    def pause_writing(self) -> None:
        """Called by asyncio: the XMPP server takes less than we write."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio: it has taken enough."""
        self.writable.set()

    async def write(self, text: str) -> None:
        """Write a stanza; return once the stream holds little that is not written yet.

        Raises:
            OSError: the stream is gone.
        """
        if self.transport is None:
            raise OSError("the component's stream is gone")
        self.transport.write(text.encode())
        await self.writable.wait()

    def has(self, jid: str, channel: "_Channel") -> bool:
        """Whether a channel is that of the connection of this JID now: a client may have begun another one since."""
        line = self._lines.get(jid)
        return line is not None and line.channel is channel

    def forget(self, jid: str) -> None:
        """The relay has ended the connection of this JID."""
        self._lines.pop(jid, None)

    def _start(self, _event: object) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail(self, reason: object) -> None:
        self.lost.set()
        self.writable.set()  # whoever waits learns it from the next write
        if not self._opened.done():
            self._opened.set_exception(
                OSError("it cannot be reached, refuses the secret, or has this component already")
            )

    def recv_stanza(self, stanza: StanzaBase) -> None:
        """Called by slixmpp for every stanza. It sees those of users no further.

        It would keep everybody who ever sent presence, and raise on names and nesting that XMPP servers let pass; what
        is raised here ends the stream, which is everybody's.
        """
        if stanza.xml.tag not in (_MESSAGE, _PRESENCE, _IQ):
            super().recv_stanza(stanza)
        elif not self.lost.is_set():
            try:
                self._take(stanza.xml, stanza.xml.get("from", ""))
            except Exception as error:  # noqa: BLE001 - one user's stanza; nothing of it is printed
                _logger.error("A stanza could not be taken: %s", type(error).__name__)

    def _take(self, stanza: Element, jid: str) -> None:
        kind = stanza.get("type")
        if stanza.tag == _MESSAGE:
            text = stanza.findtext(f"{{{NAMESPACE}}}frame")
            if text is not None and kind != "error":
                self._take_frame(jid, text)
            elif text is not None or stanza.find(f"{{{NAMESPACE}}}end") is not None:
                self._gone(jid)
        elif stanza.tag == _PRESENCE:
            if kind == "unavailable":
                self._gone(jid)
        elif kind in ("get", "set") and self.transport is not None:
            by = self._settings.component
            self.transport.write(unavailable_stanza(jid, stanza.get("id", ""), by=by).encode())

    def _take_frame(self, jid: str, text: str) -> None:
        line = self._lines.get(jid)
        event, fields = _decoded(text)
        if line is None:
            if event != Hello.EVENT or not self._may_connect(jid):
                self._refuse(jid)
                return
            channel = _Channel(self, jid)
            line = self._lines[jid] = _Line(channel, self._relay.connect(channel, CARRIAGE))
        connection = line.connection
        if len(text) > MAX_TEXT:
            connection.end(ErrorCode.TOO_LARGE, CloseCode.TOO_LARGE, f"an envelope has at most {MAX_ENVELOPE} bytes")
        else:
            connection.receive(event, fields)

    def _may_connect(self, jid: str) -> bool:
        account, _, resource = jid.partition("/")
        if not resource or account.rpartition("@")[2] not in self._settings.domains:
            return False
        return sum(each.startswith(f"{account}/") for each in self._lines) < MAX_PER_ACCOUNT

    def _refuse(self, jid: str) -> None:
        if self.transport is not None:
            self.transport.write(end_stanza(jid, by=self._settings.component).encode())

    def _gone(self, jid: str) -> None:
        """The client has said so, or its server: the user's stream has ended, and the client had sent us presence."""
        line = self._lines.pop(jid, None)
        if line is not None:
            line.connection.disconnected()


@final
class _Channel:
    """One client, as the relay writes to it."""

    def __init__(self, stream: _Stream, jid: str) -> None:
        self._stream, self._jid = stream, jid

    async def send(self, frame: ServerFrame) -> None:
        if not self._stream.has(self._jid, self):
            raise OSError("the client's stream is gone")
        await self._stream.write(frame_stanza(self._jid, frame, by=self._stream.boundjid.full))

    async def close(self, _code: CloseCode) -> None:
        if not self._stream.has(self._jid, self):
            return  # the client knows; and what we say to this JID now, its next connection would hear
        self._stream.forget(self._jid)
        with contextlib.suppress(OSError):
            await self._stream.write(end_stanza(self._jid, by=self._stream.boundjid.full))


def _decoded(text: str) -> tuple[Any, Any]:
    try:
        return decode_frame(text)
    except MalformedMessageError:
        return None, None  # which the connection refuses, and counts


class _Line(NamedTuple):
    """A client's connection, and how it is written to."""

    channel: _Channel
    connection: Connection
