"""The devices' lines: which connection each device has over one session with the broker.

Owns: connection ids, what begins and what ends a connection over MQTT, the way of frames to a device.
Does not know about: accounts at the broker, buckets, where the session comes from (mqtt_bridge.py).

A connection begins with a `hello` under an id that the topic has not had, and lasts until that device's next `hello`,
its will (an empty message with the same id), or the end of the session. A frame under an id that is not known here is
answered with `unknown_connection`: another bridge had that connection, or this one before it was started anew.

A broker lets a device have one session, and need not tell the older one that a newer took its place. Two programs that
run one device would so put each other out for ever. Hence an instance that was followed by another one is remembered,
and told `replaced` when it comes back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Final, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error, Hello, ServerFrame
from transport_adapters.mqtt_session import Message, MqttSession
from transport_adapters.server.buckets import Buckets
from transport_adapters.server.channel import Carriage
from transport_adapters.server.connection import Connection
from transport_adapters.server.heartbeat import Liveness
from transport_adapters.server.mqtt_accounts import Topics
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import Rate
from transport_adapters.text import MAX_TEXT, decode_frame, encode_frame

CARRIAGE: Final = Carriage(held=0, as_text=True, liveness=Liveness.PINGED)
"""A frame is written when the broker has it."""
HELLO_RATE: Final = Rate(per_second=1, burst=60)
"""New connections of one device. Elsewhere each costs the device a connection of its network."""
MAX_REMEMBERED: Final = 10_000
"""Devices whose last instances are remembered."""
MAX_FORMER: Final = 4
MAX_WAITING: Final = 1_000
"""Messages that the broker has not acknowledged, beyond which frames without a connection are not answered."""

Shutout = Callable[[str], Coroutine[None, None, None]]
"""Ends the account of a name at the broker. Never raises."""


@final
class Line:
    """One device's connection, as the relay writes to it (`Channel`)."""

    def __init__(self, lines: "Lines", name: str, connection_id: bytes) -> None:
        self._lines = lines
        self._name = name
        self.id = connection_id
        self.gone = asyncio.Event()
        self._is_flood = False
        self.connection: Connection = lines.relay.connect(self, CARRIAGE, self._is_own)

    async def send(self, frame: ServerFrame) -> None:
        if isinstance(frame, Error):
            self._is_flood = frame.fatal and frame.code is ErrorCode.FLOODING
        topic, payload = self._lines.topics.down(self._name), encode_frame(frame).encode()
        if not await self._lines.session.publish(topic, payload, self.id):
            self.connection.disconnected()
            self._lines.forget(self._name, self)
            raise OSError("nobody subscribes to the device's topic")

    async def close(self, code: CloseCode) -> None:
        self._lines.forget(self._name, self)
        if code is CloseCode.REVOKED or self._is_flood:
            await self._lines.shut_out(self._name)

    def _is_own(self, address: DeviceAddress) -> bool:
        """Say whether a token speaks for the device whose topics these are."""
        return self._lines.topics.of(address).name == self._name


@final
class Lines:
    """All lines over one session."""

    def __init__(self, relay: Relay, session: MqttSession, topics: Topics, shut_out: Shutout) -> None:
        self.relay = relay
        self.session = session
        self.topics = topics
        self.shut_out = shut_out
        self._lines: dict[str, Line] = {}
        self._instances: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        """By name, the newest last."""
        self._hellos = Buckets(HELLO_RATE)

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def take(self, name: str, message: Message) -> None:
        """Take what a device says. Never raises."""
        line = self._lines.get(name)
        is_known = line is not None and line.id == message.correlation
        if not message.payload:
            if line is not None and is_known:
                line.connection.disconnected()
                self.forget(name, line)
            return
        event, fields = _frame(message.payload)
        if event == Hello.EVENT and not is_known:
            if self._hellos.take(name, self.relay.now()):
                self.relay.spawn(self.shut_out(name))
                return
            if self._is_former(name, fields):
                self._refuse(name, message, ErrorCode.REPLACED, CloseCode.REPLACED)
                return
            if line is not None:
                line.connection.disconnected()
                self.forget(name, line)
            line = self._lines[name] = Line(self, name, message.correlation)
        elif line is None or not is_known:
            self._refuse(name, message, ErrorCode.UNKNOWN_CONNECTION, CloseCode.TIMEOUT)
            return
        if len(message.payload) > MAX_TEXT:
            detail = f"an envelope has at most {MAX_ENVELOPE} bytes"
            line.connection.end(ErrorCode.TOO_LARGE, CloseCode.TOO_LARGE, detail)
        else:
            line.connection.receive(event, fields)

    def forget(self, name: str, line: Line) -> None:
        """Drop a line that has ended."""
        line.gone.set()
        if self._lines.get(name) is line:
            del self._lines[name]

    async def drain(self, buckets: frozenset[int]) -> None:
        """Tell the devices of some buckets to come back, and wait until they are told."""
        ending = [line for name, line in self._lines.items() if int(name[0], 16) in buckets]
        for line in ending:
            line.connection.end(ErrorCode.DRAINING, CloseCode.DRAINING, "another bridge takes over; reconnect")
        for line in ending:
            await line.gone.wait()

    def drop(self) -> None:
        """The session has ended, and all connections with it."""
        for name, line in list(self._lines.items()):
            line.connection.disconnected()
            self.forget(name, line)

    def _is_former(self, name: str, hello: object) -> bool:
        """Note which instance says hello; say whether another one came after it."""
        instance = hello.get("instance") if isinstance(hello, dict) else None
        if not isinstance(instance, str) or len(instance) > 32:
            return False
        known = self._instances.pop(name, ())
        is_former = instance in known[:-1]
        if not is_former and instance not in known:
            known = (*known, instance)[-MAX_FORMER:]
        self._instances[name] = known
        if len(self._instances) > MAX_REMEMBERED:
            self._instances.popitem(last=False)
        return is_former

    def _refuse(self, name: str, message: Message, code: ErrorCode, close_code: CloseCode) -> None:
        if self.session.unacknowledged < MAX_WAITING:
            error = Error(code, "say hello on a new connection", close_code=close_code)
            try:
                self.session.publish(self.topics.down(name), encode_frame(error).encode(), message.correlation)
            except OSError:
                pass  # the session has ended


def _frame(payload: bytes) -> tuple[object, object]:
    """Take a frame apart; one that is none is refused by the connection, which counts."""
    try:
        return decode_frame(payload.decode())
    except (MalformedMessageError, UnicodeDecodeError):
        return None, None
