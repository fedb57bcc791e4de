"""One MQTT 5 connection on the event loop, for a client and for the relay's bridge.

Owns: the `paho-mqtt` package, its socket, its callbacks; what a session asks of every broker: clean start, session
expiry 0, QoS 1, nothing retained.
Does not know about: frames, topics, what messages are for.

A session that expires with its connection leaves nothing in the broker: what was not taken is in the mailbox, or in the
sender's outbox. paho acknowledges a message when `take` has returned, which is all that QoS 1 is for here: the broker
keeps what this end has not taken yet, and drops nothing on its way. It reconnects nothing, and its logger is not set.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import urlsplit

from transport_adapters.link import require_loopback

try:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError as missing:
    raise ImportError("MQTT needs paho-mqtt: install 'e2ee-layer[mqtt]'") from missing

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

KEEPALIVE: Final = 15
"""Seconds without a packet after which either end asks; a broker gives a client up after one and a half times that."""
MAX_PACKET: Final = 160 * 1024
"""Bytes of one packet. The largest frame has about 131,500."""
_WITH_WILL: Final = 0x04
_NO_SUBSCRIBER: Final = 0x10
_REFUSED: Final = (0x84, 0x85, 0x86, 0x87, 0x8A)
"""CONNACK: version, client id, password, not authorized, banned."""


class NotAuthorizedError(OSError):
    """The broker does not take this account."""


class Broker(NamedTuple):
    """Where a broker listens; `tls` is None on this machine only."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Account(NamedTuple):
    """With what a session introduces itself."""

    client_id: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"<Account {self.username}>"


class Message(NamedTuple):
    """One message. `correlation` is its Correlation Data, empty if there is none."""

    topic: str
    payload: bytes
    correlation: bytes = b""


def broker_at(url: str, tls: ssl.SSLContext | None = None) -> Broker:
    """Read a broker's URL, `mqtts://host[:port]`; `tls` replaces the system's certificate store.

    Raises:
        InsecureUrlError: `mqtt://` to a host that is not loopback.
        ValueError: no URL of a broker.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.username is not None or parts.path.strip("/"):
        raise ValueError("a broker's URL is mqtts://host[:port]")
    if parts.scheme == "mqtts":
        return Broker(host, parts.port or 8883, tls or ssl.create_default_context())
    require_loopback(host, parts.scheme)
    return Broker(host, parts.port or 1883, None)


@final
class MqttSession:
    """A connection that was accepted. Used in one event loop; made by `open`."""

    def __init__(self, client: Client, take: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._client = client
        self._take = take
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._is_open = False
        self.ended = asyncio.Event()
        """Set when the connection is over, for whatever reason."""
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = client.on_unsubscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect

    @classmethod
    async def open(
        cls,
        broker: Broker,
        account: Account,
        *,
        take: Callable[[Message], None],
        lost: Callable[[], None] = lambda: None,
        will: Message | None = None,
        timeout: float = 10.0,
    ) -> "MqttSession":
        """Connect. `take` gets every message; `lost` is called once, when what was opened has ended.

        Raises:
            NotAuthorizedError: the broker does not take the account.
            OSError: it could not be reached, or did not answer in time.
        """
        client = _Client(CallbackAPIVersion.VERSION2, account.client_id, protocol=MQTTv5, reconnect_on_failure=False)
        client.username_pw_set(account.username, account.password)
        client.connect_timeout = timeout
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        if will is not None:
            client.will_set(will.topic, will.payload, 1, False, _correlated(PacketTypes.WILLMESSAGE, will.correlation))
        session = cls(client, take, lost)
        try:
            async with asyncio.timeout(timeout):
                await session._connect(broker)
                await session._accepted
        except BaseException:
            session._end()
            raise
        session._is_open = True
        return session

    @property
    def unacknowledged(self) -> int:
        """How much was published or asked, and not acknowledged by the broker yet."""
        return len(self._waiting)

    def publish(self, topic: str, payload: bytes, correlation: bytes = b"") -> "asyncio.Future[bool]":
        """Send a message. What is returned says, once the broker has it, whether anybody subscribes to the topic.

        Messages go out in the order of the calls. The future fails with OSError if the connection ends before.

        Raises:
            OSError: the connection is over.
        """
        properties = _correlated(PacketTypes.PUBLISH, correlation)
        info = self._client.publish(topic, payload, 1, False, properties)
        return self._expect(info.rc, info.mid)

    async def subscribe(self, *topics: str) -> None:
        """Subscribe, at QoS 1, and wait until it is done.

        Raises:
            OSError: refused, or the connection is over.
        """
        rc, mid = self._client.subscribe([(topic, SubscribeOptions(1)) for topic in topics])
        if not await self._expect(rc, mid or 0):
            raise NotAuthorizedError("the broker refuses a subscription")

    async def unsubscribe(self, *topics: str) -> None:
        """Unsubscribe, and wait until it is done.

        Raises:
            OSError: the connection is over.
        """
        rc, mid = self._client.unsubscribe(list(topics))
        await self._expect(rc, mid or 0)

    def close(self) -> None:
        """End the connection; the broker publishes the will. Never raises."""
        if not self.ended.is_set():
            with contextlib.suppress(Exception):
                self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL))
                self._client.loop_write()
        self._end()

    async def _connect(self, broker: Broker) -> None:
        """Open the socket in a thread, as paho has it; from then on the event loop drives it."""
        client = self._client
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        properties.MaximumPacketSize = MAX_PACKET

        def connect() -> None:
            client.connect(broker.host, broker.port, KEEPALIVE, clean_start=True, properties=properties)

        connecting = self._loop.run_in_executor(None, connect)
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._give_up)
            raise
        raw = client.socket()
        if not isinstance(raw, socket.socket):
            raise OSError("the broker closed the connection")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_socket_register_write = self._register_write
        client.on_socket_unregister_write = self._unregister_write
        client.on_socket_close = self._forget_socket
        self._loop.add_reader(raw.fileno(), self._readable)
        if client.want_write():
            self._loop.add_writer(raw.fileno(), self._writable)
        self._readable()  # TLS may have read ahead
        self._tick()

    def _give_up(self, connecting: "asyncio.Future[None]") -> None:
        """Close what a thread has opened for nobody."""
        if connecting.exception() is None:
            self._client.disconnect()

    def _readable(self) -> None:
        self._drive(self._read)

    def _writable(self) -> None:
        self._drive(self._client.loop_write)

    def _tick(self) -> None:
        if not self.ended.is_set():
            self._ticking = self._loop.call_later(1.0, self._tick)
            self._drive(self._client.loop_misc)

    def _read(self) -> None:
        client = self._client
        while True:
            client.loop_read()
            # Before it is read into memory. paho has no bound of its own.
            if client._in_packet["remaining_length"] > MAX_PACKET:
                raise OSError("the broker sends more than was allowed")
            raw = client.socket()
            if not isinstance(raw, ssl.SSLSocket) or not raw.pending():
                return

    def _drive(self, step: Callable[[], object]) -> None:
        """Have paho do something. Whatever goes wrong with the bytes of a broker ends the connection."""
        try:
            step()
        except Exception:  # noqa: BLE001 - paho raises all sorts of errors about bytes that are no MQTT
            self._end()

    def _expect(self, rc: MQTTErrorCode, mid: int) -> "asyncio.Future[bool]":
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or self.ended.is_set():
            raise OSError("the connection to the broker is over")
        answer = self._waiting[mid] = self._loop.create_future()
        return answer

    def _answer(self, mid: int, codes: list[ReasonCode]) -> None:
        answer = self._waiting.pop(mid, None)
        if answer is not None and not answer.done():
            if any(code.is_failure for code in codes):
                answer.set_exception(NotAuthorizedError("the broker refuses it"))
                answer.exception()  # retrieved, in case nobody waits
            else:
                answer.set_result(all(code.value != _NO_SUBSCRIBER for code in codes))

    def _end(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        if self._ticking is not None:
            self._ticking.cancel()
        if (raw := self._client.socket()) is not None:
            self._forget_socket(None, None, raw)
            with contextlib.suppress(OSError):
                raw.close()
        waiting: list[asyncio.Future[Any]] = [self._accepted, *self._waiting.values()]
        self._waiting.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(OSError("the connection to the broker is over"))
                answer.exception()  # retrieved, in case nobody waits
        if self._is_open:
            self._lost()

    # What paho calls, in the event loop.

    def _on_connect(self, _client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _p: object) -> None:
        if code.is_failure and not self._accepted.done():
            error = NotAuthorizedError if code.value in _REFUSED else OSError
            self._accepted.set_exception(error(f"the broker refuses the connection ({code.value})"))
            self._accepted.exception()
        elif not self._accepted.done():
            self._accepted.set_result(None)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"")
        self._take(Message(message.topic, bytes(message.payload), bytes(correlation)))

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _p: object) -> None:
        self._answer(mid, [code])

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: "list[ReasonCode]", _properties: object
    ) -> None:
        self._answer(mid, codes)

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: DisconnectFlags, _code: ReasonCode, _properties: object
    ) -> None:
        # The reason does not matter, and not every broker gives one: Mosquitto 2.0 says nothing when another connection
        # with the same client id took over.
        self._end()

    def _register_write(self, _client: object, _data: object, raw: "SocketLike") -> None:
        self._loop.add_writer(raw.fileno(), self._writable)

    def _unregister_write(self, _client: object, _data: object, raw: "SocketLike") -> None:
        self._loop.remove_writer(raw.fileno())

    def _forget_socket(self, _client: object, _data: object, raw: "SocketLike") -> None:
        if raw.fileno() >= 0:
            self._loop.remove_reader(raw.fileno())
            self._loop.remove_writer(raw.fileno())


@final
class _Client(Client):
    """Closes the socket of a handshake that failed, which paho leaves open."""

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        if self._ssl_context is None:
            raise ValueError("TLS without a context")
        secure = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            secure.settimeout(self.connect_timeout)
            secure.do_handshake()
        except BaseException:
            secure.close()
            raise
        return secure


def _correlated(packet: int, correlation: bytes) -> Properties | None:
    if not correlation:
        return None
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation
    return properties
