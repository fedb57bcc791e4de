"""The bridge: carries a relay's frames over an MQTT broker.

Owns: the bridge's one session with the broker, kept for ever; which buckets of devices it serves; what becomes of a
device's account.
Does not know about: what frames mean, a device's connection (mqtt_lines.py).

Several bridges share the load. Each device is in one of 16 buckets, and a bucket is served by the bridge that has its
lease (mqtt_leases.py). A bridge that takes a bucket says so on the bucket's topic, with a `draining` error for
everybody: whoever was connected says `hello` again. So nobody waits for a bridge that was killed any longer than its
lease lasts.

The broker is a way and no store: what a bridge or a broker had in its hands when it died was not answered, or not
acknowledged, and comes again.
"""

import asyncio
import logging
import random
import secrets
import ssl
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error
from transport_adapters.mqtt_session import Account, Message, MqttSession, broker_at
from transport_adapters.server import mqtt_leases
from transport_adapters.server.buckets import Buckets
from transport_adapters.server.mqtt_accounts import BUCKETS, RESPONSES, DeviceTopics, MosquittoAccounts, Topics
from transport_adapters.server.mqtt_leases import Bridge
from transport_adapters.server.mqtt_lines import Lines
from transport_adapters.server.ports import TokenRefusedError
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import Rate
from transport_adapters.text import encode_frame

_logger = logging.getLogger(__name__)

ACCESS_RATE: Final = Rate(per_second=0.2, burst=30)
"""How often a device may ask for its account."""
_LASTED_MS: Final = 10_000
"""A session that lasted so long was no failure."""
_MOVED: Final = Error(ErrorCode.DRAINING, "another bridge has taken over; reconnect", close_code=CloseCode.DRAINING)


class BrokerUnavailableError(Exception):
    """There is no session with the broker now, or the broker does not do what it is asked."""


class TooManyAsksError(Exception):
    """A device asks too often for its account. `retry_after`: seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@final
@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is, for the bridge and for devices. Times in seconds."""

    url: str
    """The broker's."""
    username: str
    password: str
    public_url: str
    """The broker's URL as devices reach it."""
    secret: bytes
    """Devices' passwords follow from it; the same for all bridges of a server."""
    tls: ssl.SSLContext | None = None
    """In place of the system's certificate store."""
    is_only: bool = False
    """No other process serves: leases that are left are of one that was killed."""
    prefix: str = "e2ee"
    """Of all topics."""
    lease: float = 6.0
    renew_interval: float = 1.5
    first_backoff: float = 0.1
    max_backoff: float = 5.0
    access_rate: Rate = ACCESS_RATE

    def __repr__(self) -> str:
        return f"<MqttSettings {self.public_url}>"


class Access(NamedTuple):
    """What a device has to know of the broker."""

    url: str
    account: Account
    topics: DeviceTopics


@final
class MqttBridge:
    """One bridge, of one relay. `start` before use, `close` before the relay's.

    Raises:
        InsecureUrlError: a broker beyond this machine without TLS.
        ValueError: not a broker's URL.
    """

    def __init__(self, relay: Relay, settings: MqttSettings) -> None:
        self._relay = relay
        self._settings = settings
        self._broker = broker_at(settings.url, settings.tls)
        self._topics = Topics(settings.prefix)
        self._bridge = Bridge(secrets.token_bytes(16), int(settings.lease * 1000))
        self._asks = Buckets(settings.access_rate)
        self._accounts: MosquittoAccounts | None = None
        self._lines: Lines | None = None
        self._buckets: frozenset[int] = frozenset()
        self._leases = relay.tables.leases
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._wake = asyncio.Event()
        relay.cut_listeners.append(self._cut)

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets that this bridge serves now."""
        return self._buckets

    async def start(self) -> None:
        """Begin to connect to the broker. Idempotent."""
        if self._task is None:
            if self._settings.is_only:
                await self._relay.database.write(lambda on: mqtt_leases.clear(on, self._leases))
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell all devices to come back, give the buckets back, disconnect. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._relay.settings.drain_timeout)
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def access(self, token: str, *, anew: bool) -> Access:
        """Give a device its account at the broker. `anew`: the one it had does not serve.

        Raises:
            TokenRefusedError: the token does not count.
            TooManyAsksError: it asks too often.
            BrokerUnavailableError: there is no account to be had now.
        """
        principal = await self._relay.tokens.verify(token)
        wait = self._asks.take(principal.address, self._relay.now())
        if wait:
            raise TooManyAsksError(wait)
        accounts = self._accounts
        if accounts is None:
            raise BrokerUnavailableError
        device = self._topics.of(principal.address)
        try:
            await accounts.grant(device, anew=anew)
        except OSError as error:
            _logger.warning("No account at the broker: %s", error)
            raise BrokerUnavailableError from None
        try:
            await self._relay.tokens.verify(token)  # or a device revoked meanwhile would have an account again
        except TokenRefusedError:
            await self._shut_out(device.name)
            raise
        return Access(self._settings.public_url, accounts.account(device.name), device)

    async def _run(self) -> None:
        failures = 0
        while not self._closing:
            begun = self._relay.now()
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001 - of the broker or the database; it is tried again
                _logger.warning("No bridge to the broker: %s", str(error) or type(error).__name__)
            lasted = self._relay.now() - begun > _LASTED_MS
            failures = 0 if lasted else failures + 1
            limit = min(self._settings.max_backoff, self._settings.first_backoff * 2.0 ** min(failures, 16))
            self._wake.clear()  # that the session has ended is why we wait
            if not self._closing:
                await self._pause(random.uniform(0, limit))  # noqa: S311 - no secret

    async def _connect(self) -> None:
        """Serve over one session, until it ends (which is an error) or we do."""
        settings = self._settings
        name = f"{settings.prefix}-bridge-{self._bridge.owner.hex()}"
        account = Account(name, settings.username, settings.password)
        session = await MqttSession.open(self._broker, account, take=self._take, lost=self._wake.set)
        self._accounts = MosquittoAccounts(session, self._topics, settings.secret)
        lines = self._lines = Lines(self._relay, session, self._topics, self._shut_out)
        try:
            await session.subscribe(RESPONSES)
            await self._accounts.prepare(settings.username)
            while not self._closing:
                await self._keep_buckets(session, lines)
                await self._pause(settings.renew_interval)
                if session.ended.is_set():
                    raise OSError("the session has ended")
            await self._hand_over(session, lines, self._buckets)
            await self._relay.database.write(lambda on: mqtt_leases.release(on, self._leases, self._bridge))
        finally:
            self._accounts = self._lines = None
            self._buckets = frozenset()
            lines.drop()
            session.close()

    async def _keep_buckets(self, session: MqttSession, lines: Lines) -> None:
        """Renew the leases. That it fails, or takes long, ends the session: another bridge may serve soon."""
        async with asyncio.timeout(self._settings.lease / 2):
            held, surplus = await self._relay.database.write(
                lambda on: mqtt_leases.renew(on, self._leases, self._bridge, BUCKETS, self._relay.now())
            )
        await self._hand_over(session, lines, (self._buckets - held) | (self._buckets & surplus))
        if surplus:
            await self._relay.database.write(lambda on: mqtt_leases.release(on, self._leases, self._bridge, surplus))
        if gained := held - surplus - self._buckets:
            self._buckets |= gained
            await session.subscribe(*map(self._topics.ups, gained))
            for bucket in gained:
                session.publish(self._topics.news(bucket), encode_frame(_MOVED).encode())

    async def _hand_over(self, session: MqttSession, lines: Lines, buckets: frozenset[int]) -> None:
        """Serve some buckets no more. Their devices are told; the one who takes the buckets tells them again."""
        if buckets:
            await session.unsubscribe(*map(self._topics.ups, buckets))
            await lines.drain(buckets)
            self._buckets -= buckets

    def _take(self, message: Message) -> None:
        if message.topic == RESPONSES:
            if self._accounts is not None:
                self._accounts.take(message)
            return
        _, bucket, name = message.topic.rsplit("/", 2)
        if self._lines is not None and bucket.isdecimal() and int(bucket) in self._buckets:
            self._lines.take(name, message)

    def _cut(self, target: DeviceAddress | UserId, code: ErrorCode) -> None:
        """End the account of a revoked device. One that is connected here is told why first (`Line.close`)."""
        if code is ErrorCode.DEVICE_REVOKED and isinstance(target, DeviceAddress):
            name = self._topics.of(target).name
            if self._lines is None or name not in self._lines:
                self._relay.spawn(self._shut_out(name))

    async def _shut_out(self, name: str) -> None:
        try:
            if self._accounts is not None:
                await self._accounts.revoke(name)
        except OSError as error:
            # The account opens two topics on which nothing is said to a device that is not let in.
            _logger.warning("An account at the broker could not be ended: %s", str(error) or type(error).__name__)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the session ends or we do."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
