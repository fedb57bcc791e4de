"""XMPP, client side: frames in message stanzas to the relay's component (docs/protocol.md section 13).

Owns: one XMPP stream per connection, the stanzas, whom they may come from.
Does not know about: what frames mean.

The stream's resource is random, so the full JID names this connection, and the XMPP server vouches for it to the relay.
Nothing but the relay's component is spoken to: no roster, no presence to others. Stanzas are headlines, which servers
neither store nor copy. slixmpp prints stanzas at the level DEBUG; the frames, which hold the device token, go past its
printing. It negotiates the stream; what comes afterwards it does not see, as it answers what nobody asked of us, and
raises on nesting that servers let pass.
"""

import asyncio
import ipaddress
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, final
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import ClientFrame
from transport_adapters.link import CursorSource, Link, LinkOptions, LinkTransport, Receiver, TokenSource
from transport_adapters.text import decode_frame
from transport_adapters.xmpp_stanzas import NAMESPACE, end_stanza, frame_stanza, unavailable_stanza

try:
    from slixmpp import JID, ClientXMPP
    from slixmpp.exceptions import XMPPError
    from slixmpp.xmlstream.stanzabase import StanzaBase
except ImportError as missing:
    raise ImportError("transport_adapters.xmpp needs slixmpp: install 'e2ee-layer[xmpp]'") from missing

_MESSAGE, _PRESENCE, _IQ = (f"{{jabber:client}}{name}" for name in ("message", "presence", "iq"))
_CLOSE_SECONDS: Final = 1.0
"""How long the server has to answer the end of the stream."""

PasswordSource = Callable[[], Awaitable[str]]
"""Returns the XMPP account's password; asked for every connection."""


@final
@dataclass(frozen=True, slots=True)
class XmppOptions:
    """How to reach the XMPP server. Without `host`, DNS says where the JID's domain is.

    `tls` replaces the system's certificate store. Plaintext is spoken to a loopback address only, and only without it.
    `direct_tls` begins with TLS, instead of asking for it on a plain connection (XEP-0368, RFC 6120 section 5).
    """

    component: str
    """The JID of the relay's component."""
    host: str | None = None
    port: int = 5222
    tls: ssl.SSLContext | None = None
    direct_tls: bool = False
    link: LinkOptions = field(default_factory=LinkOptions)

    @property
    def is_plaintext(self) -> bool:
        """Whether the stream goes without TLS: to this machine."""
        return self.tls is None and self.host is not None and _is_loopback(self.host)


@final
class XmppTransport(LinkTransport):
    """Implements `EnvelopeTransport` over XMPP. `jid` is a bare JID: an account, which several devices may share."""

    def __init__(
        self, jid: str, password: PasswordSource, *, token: TokenSource, cursor: CursorSource, options: XmppOptions
    ) -> None:
        self._jid, self._password = jid, password
        self._options = options
        super().__init__(Link(self._dial, token, cursor, options.link))

    async def _dial(self, receiver: Receiver) -> "_XmppWire":
        stream = _Stream(f"{self._jid}/{secrets.token_hex(16)}", await self._password(), self._options, receiver)
        try:
            await stream.open()
        except BaseException:
            stream.give_up()
            raise
        return _XmppWire(stream)


def xmpp_transport(jid: str, password: PasswordSource, options: XmppOptions) -> Callable[..., XmppTransport]:
    """Return what makes a transport over XMPP, for `SecureClient.open(transport=...)`; the server's URL is not used."""

    def make(_server: str, *, token: TokenSource, cursor: CursorSource) -> XmppTransport:
        return XmppTransport(jid, password, token=token, cursor=cursor, options=options)

    return make


def from_environment(variables: Mapping[str, str]) -> Callable[..., XmppTransport]:
    """Return `xmpp_transport` of what the environment says, for programs that are set up by it.

    E2EE_XMPP_ACCOUNT (bare JID), E2EE_XMPP_PASSWORD, E2EE_XMPP_RELAY (the component's JID), and unless DNS says it,
    E2EE_XMPP_ADDRESS (`host:port`).

    Raises:
        ValueError: one is missing or wrong; the text names it.
    """
    for name in ("E2EE_XMPP_ACCOUNT", "E2EE_XMPP_PASSWORD", "E2EE_XMPP_RELAY"):
        if not variables.get(name):
            raise ValueError(f"{name} is not set")
    host, _, port = variables.get("E2EE_XMPP_ADDRESS", "").rpartition(":")
    if "E2EE_XMPP_ADDRESS" in variables and (not host or not port.isdecimal()):
        raise ValueError("E2EE_XMPP_ADDRESS is not host:port")
    options = XmppOptions(variables["E2EE_XMPP_RELAY"], host or None, int(port or 5222))

    async def password() -> str:
        return variables["E2EE_XMPP_PASSWORD"]

    return xmpp_transport(variables["E2EE_XMPP_ACCOUNT"], password, options)


@final
class _XmppWire:
    """One connection."""

    def __init__(self, stream: "_Stream") -> None:
        self._stream = stream

    async def write(self, frame: ClientFrame) -> None:
        self._stream.write(frame)

    async def close(self) -> None:
        await self._stream.end()


@final
class _Stream(ClientXMPP):
    """One XMPP stream to the account's server."""

    def __init__(self, jid: str, password: str, options: XmppOptions, receiver: Receiver) -> None:
        plain = {"unencrypted_scram": options.is_plaintext}
        super().__init__(jid, password, plugin_config={"feature_mechanisms": plain}, ssl_context=options.tls)
        self.enable_direct_tls = options.direct_tls
        self.enable_starttls = not options.direct_tls and not options.is_plaintext
        self.enable_plaintext = options.is_plaintext
        self.whitespace_keepalive = False  # the relay pings
        self.auto_authorize, self.auto_subscribe = None, False
        self._options = options
        self._component = JID(options.component).bare
        self._receiver = receiver
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self.add_event_handler("session_start", self._start)
        for failure in ("connection_failed", "failed_all_auth", "disconnected"):
            self.add_event_handler(failure, self._fail)

    async def open(self) -> None:
        """Connect, authenticate, bind the resource.

        Raises:
            OSError: any of it failed.
        """
        options = self._options
        self.connect(options.host, options.port if options.host else None)
        await self._opened

    def write(self, frame: ClientFrame) -> None:
        """Send a frame to the relay.

        Raises:
            OSError: the stream is gone.
        """
        if self.transport is None:
            raise OSError("the XMPP stream is gone")
        self.transport.write(frame_stanza(self._component, frame).encode())

    async def end(self) -> None:
        """Say that the connection is over, and close the stream. Never raises."""
        self._stop_watching()
        if self.transport is not None:
            self.transport.write(end_stanza(self._component).encode())
            await self.disconnect(wait=_CLOSE_SECONDS, ignore_send_queue=True)
        self.give_up()

    def give_up(self) -> None:
        """Release everything at once."""
        self._stop_watching()
        self.cancel_connection_attempt()
        self.abort()
        if self._run_out_filters is not None:
            self._run_out_filters.cancel()

    def _start(self, _event: object) -> None:
        transport = self.transport
        if transport is None:
            return
        if not self._options.is_plaintext and transport.get_extra_info("ssl_object") is None:
            self._fail("the server offers no TLS")
            return
        # Told of us in this way, the component is told of our end, too (RFC 6121 section 4.6.4).
        transport.write(f"<presence to={quoteattr(self._component)}/>".encode())
        self._heard_at = self.loop.time()
        self._look()
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail(self, reason: object) -> None:
        if not self._opened.done():
            self._opened.set_exception(OSError(f"no XMPP stream: {type(reason).__name__}"))
        self._receiver.lost()

    def recv_stanza(self, stanza: StanzaBase) -> None:
        """Called by slixmpp for every stanza. It sees what belongs to the negotiation, and no more."""
        xml = stanza.xml
        name, kind = xml.tag, xml.get("type")
        is_answer = name == _IQ and kind in ("result", "error")
        if name not in (_MESSAGE, _PRESENCE, _IQ) or (is_answer and not self._opened.done()):
            super().recv_stanza(stanza)
        elif name == _MESSAGE:
            self._take(xml)
        elif name == _IQ and kind in ("get", "set") and self.transport is not None:
            self.transport.write(unavailable_stanza(xml.get("from", ""), xml.get("id", "")).encode())

    def _take(self, message: Element) -> None:
        if message.get("from", "").partition("/")[0] != self._component:
            return  # another user's; nobody but the component speaks for the relay
        text = message.findtext(f"{{{NAMESPACE}}}frame")
        if text is None and message.find(f"{{{NAMESPACE}}}end") is None:
            return
        self._heard_at = self.loop.time()
        try:
            if message.get("type") == "error" or text is None:
                raise MalformedMessageError("not delivered, or the end")
            self._receiver.frame(*decode_frame(text))
        except MalformedMessageError:
            self._receiver.lost()

    def _look(self) -> None:
        """Give the connection up if nothing has come for too long; else look again when that could be so."""
        left = self._heard_at + self._options.link.silence_timeout - self.loop.time()
        if left <= 0:
            self._receiver.lost(silent=True)
        else:
            self._watch = self.loop.call_later(left, self._look)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    def exception(self, exception: Exception) -> None:
        """Called by slixmpp for an error in a handler; nothing of the stanza is printed."""
        if not isinstance(exception, XMPPError):
            self._receiver.lost()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
