"""MQTT, client side.

Owns: the device's account at the broker, which the server gives out; one session with the broker per connection.
Does not know about: the broker's kind; what frames mean.

The device token goes to the server in a header, and in the first frame to the relay behind the broker. The account
only opens the topics of this device: who it is, the device proves by the token. Topics are the server's to name.

Each connection has an id of 16 random bytes, which every message of either side carries as Correlation Data: what is
still under way of an earlier one is not taken for this one's.
"""

import asyncio
import secrets
import ssl
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import ClientFrame, Hello
from transport_adapters.http_wire import PREFIX, HttpOptions, Requests
from transport_adapters.link import (
    CursorSource,
    Link,
    LinkOptions,
    LinkTransport,
    Receiver,
    TokenSource,
    require_secure,
)
from transport_adapters.mqtt_session import Account, Broker, Message, MqttSession, NotAuthorizedError, broker_at
from transport_adapters.text import decode_frame, encode_frame

MAX_CREDIT: Final = 500
"""Messages. Brokers keep a bounded number for each client, Mosquitto 1,000, and drop what is beyond it in silence."""
MAX_CREDIT_BYTES: Final = 8 * 1024 * 1024
DOUBTED_AFTER: Final = 60.0
"""Seconds after which the server is asked again for a broker that cannot be reached."""
_PATH: Final = "/mqtt"
_AGAIN: Final = "/mqtt?again=1"


@final
@dataclass(frozen=True, slots=True)
class MqttOptions:
    """How to reach the server and the broker. `tls` replaces the system's certificate store for both.

    `broker` is the broker's URL, if it is not the one that the server names.

    Raises:
        ValueError: more credit than a broker holds.
    """

    prefix: str = PREFIX
    tls: ssl.SSLContext | None = None
    broker: str | None = None
    link: LinkOptions = field(default_factory=LinkOptions)

    def __post_init__(self) -> None:
        if self.link.credit_messages > MAX_CREDIT or self.link.credit_bytes > MAX_CREDIT_BYTES:
            raise ValueError(f"over MQTT credit is at most {MAX_CREDIT} messages, {MAX_CREDIT_BYTES} bytes")


class Access(NamedTuple):
    """What a device needs to know of the broker: the server's answer, checked."""

    broker: Broker
    account: Account
    up: str
    down: str
    news: str
    """Where the relay says to all devices that they have to say `hello` again."""


@final
class MqttTransport(LinkTransport):
    """Implements `EnvelopeTransport` over an MQTT broker. `url` is the server's, which names the broker.

    Raises:
        InsecureUrlError: a plaintext URL to a host that is not loopback.
        ValueError: not a URL.
    """

    def __init__(
        self, url: str, *, token: TokenSource, cursor: CursorSource, options: MqttOptions | None = None
    ) -> None:
        require_secure(url)
        self._url = url
        self._options = options or MqttOptions()
        self._access: Access | None = None
        self._asked_at = 0.0
        super().__init__(Link(self._dial, token, cursor, self._options.link))

    async def _dial(self, receiver: Receiver) -> "_MqttWire":
        return _MqttWire(self, receiver, self._options.link)

    def doubt(self) -> None:
        """Note that the broker could not be reached where it was said to be."""
        if asyncio.get_running_loop().time() - self._asked_at > DOUBTED_AFTER:
            self._access = None

    async def access(self, token: str, receiver: Receiver, *, refused: bool = False) -> Access:
        """Say where the broker is; ask the server if that is not known, or did not serve (`refused`).

        Raises:
            OSError: the server did not say; why is among the frames handed to the receiver.
        """
        if self._access is None or refused:
            options = HttpOptions(self._options.prefix, self._options.tls, self._options.link)
            requests = Requests(self._url, options, receiver)
            requests.token = token
            try:
                async with requests.stream("POST", _AGAIN if refused else _PATH) as response:
                    reply = await requests.take(response)
            finally:
                await requests.close()
            self._asked_at = asyncio.get_running_loop().time()
            self._access = _access(reply.get("access"), self._options)
        return self._access


@final
class _MqttWire:
    """One connection. The broker is asked for when `hello`, the first frame, brings the token."""

    def __init__(self, transport: MqttTransport, receiver: Receiver, options: LinkOptions) -> None:
        self._transport = transport
        self._receiver = receiver
        self._options = options
        self._id = secrets.token_bytes(16)
        self._access: Access | None = None
        self._session: MqttSession | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._closed = False

    async def write(self, frame: ClientFrame) -> None:
        if isinstance(frame, Hello):
            await self._open(frame.token)
        if self._session is None or self._access is None:
            raise OSError("there is no connection")
        delivered = self._session.publish(self._access.up, encode_frame(frame).encode(), self._id)
        delivered.add_done_callback(self._published)

    async def close(self) -> None:
        self._closed = True
        if self._silence is not None:
            self._silence.cancel()
        if self._session is not None:
            self._session.close()

    async def _open(self, token: str) -> None:
        try:
            async with asyncio.timeout(self._options.connect_timeout):  # a TimeoutError is an OSError
                try:
                    await self._connect(await self._transport.access(token, self._receiver))
                except NotAuthorizedError:  # the account is gone, or another one
                    await self._connect(await self._transport.access(token, self._receiver, refused=True))
        except OSError:
            self._transport.doubt()
            raise
        if self._closed:
            await self.close()
            raise OSError("the connection was closed meanwhile")
        self._hear()

    async def _connect(self, access: Access) -> None:
        if self._session is not None:
            self._session.close()
        self._access = access
        # The will says that this connection has ended, however it ends.
        self._session = await MqttSession.open(
            access.broker,
            access.account,
            take=self._take,
            lost=self._receiver.lost,
            will=Message(access.up, b"", self._id),
            timeout=self._options.connect_timeout,
        )
        await self._session.subscribe(access.down, access.news)

    def _take(self, message: Message) -> None:
        self._hear()
        is_news = self._access is not None and message.topic == self._access.news
        if not is_news and message.correlation != self._id:
            return
        try:
            self._receiver.frame(*decode_frame(message.payload.decode()))
        except (MalformedMessageError, UnicodeDecodeError):
            self._receiver.lost()

    def _published(self, delivered: "asyncio.Future[bool]") -> None:
        """Give the connection up if the broker refused a frame, or nobody is there to take it."""
        if delivered.cancelled() or delivered.exception() is not None or not delivered.result():
            self._receiver.lost()

    def _hear(self) -> None:
        """The relay pings: a connection on which nothing comes is dead."""
        if self._silence is not None:
            self._silence.cancel()
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(self._options.silence_timeout, lambda: self._receiver.lost(silent=True))


def _access(fields: object, options: MqttOptions) -> Access:
    names = ("broker", "client_id", "username", "password", "up", "down", "news")
    texts = [fields.get(name) if isinstance(fields, dict) else None for name in names]
    url, client_id, username, password, up, down, news = (each if isinstance(each, str) else "" for each in texts)
    if any(not each or any(sign in each for sign in "#+\0") for each in (up, down, news)):
        raise OSError("the server names no topics")
    try:
        broker = broker_at(options.broker or url, options.tls)
    except ValueError:
        raise OSError("the server names no broker") from None
    return Access(broker, Account(client_id, username, password), up, down, news)
