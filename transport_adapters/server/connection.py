"""One client's connection, whatever carries it: from `hello` to the last frame.

Owns: the order of frames, the deadline of `hello`, bad frames, how a connection ends.
Does not know about: transports, other connections (relay.py), what becomes of sends and acks (intake.py).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, assert_never, final

from e2ee.errors import ProtocolError
from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import (
    MAX_DETAIL,
    Ack,
    ClientFrame,
    Credit,
    Error,
    Hello,
    Ping,
    Pong,
    Presence,
    Refresh,
    Send,
    ServerFrame,
    Typing,
    Watch,
    Welcome,
    parse_client_frame,
)
from transport_adapters.server.bus import Bus
from transport_adapters.server.channel import FRAME_OVERHEAD, Bounds, Carriage, Channel, Outbox
from transport_adapters.server.credential import Authority, Credential, Expiry
from transport_adapters.server.delivery import Delivery, Source
from transport_adapters.server.heartbeat import Beat, Heartbeat, Liveness
from transport_adapters.server.intake import BATCH, FAULTS, Client, Intake
from transport_adapters.server.lanes import Budget
from transport_adapters.server.mailbox import Mailbox
from transport_adapters.server.ports import Database, Meter, TokenRefusedError
from transport_adapters.server.presence import Attendance, PresenceService

_logger = logging.getLogger(__name__)


class Relaying(Authority, Protocol):
    """What a connection needs of its relay."""

    database: Database
    mailbox: Mailbox
    intake: Intake
    bus: Bus
    presence: PresenceService
    meter: Meter

    def admit(self, connection: "Connection", address: DeviceAddress, hello: Hello) -> bool:
        """Make this the device's one live connection; False if a newer one of the same instance is."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Say that the connection has ended."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something that outlives the connection."""
        ...


@final
class Connection:
    """Made by `Relay.connect`. An endpoint calls `receive` and `disconnected`; neither waits, neither raises."""

    def __init__(
        self, relay: Relaying, channel: Channel, carriage: Carriage, may_be: Callable[[DeviceAddress], bool]
    ) -> None:
        self._relay = relay
        self._may_be = may_be
        settings = relay.settings
        is_polled = carriage.liveness is Liveness.POLLED
        patience = settings.silence_timeout if is_polled else settings.send_timeout
        bounds = Bounds(settings.max_queued - carriage.held, patience, carriage.as_text)
        self._outbox = Outbox(channel, bounds, self._stuck)
        self._liveness = carriage.liveness
        beat = Beat(None if is_polled else settings.ping_interval, settings.silence_timeout)
        self._heartbeat = Heartbeat(beat, self._ping, self._silent)
        self._credential = Credential(relay, Expiry(self._expired, self._overdue))
        self._deadline = asyncio.get_running_loop().call_later(settings.hello_timeout, self._no_hello)
        self._frames: deque[ClientFrame] = deque()
        self._inbound_bytes = 0
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work())]
        self._unsubscribe: Callable[[], None] | None = None
        self._greeted = False
        self._faults = 0
        self._client: Client | None = None
        self._delivery: Delivery | None = None
        self._attendance: Attendance | None = None
        self.seen_at = relay.now()
        """Unix milliseconds of the client's last sign of life."""
        self.closed = asyncio.Event()
        """Set when the connection has ended, for whatever reason."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be written to this client."""
        return self._outbox.queued

    def receive(self, event: object, fields: object) -> None:
        """Take one frame off the transport."""
        if self.closed.is_set():
            return
        self.alive()
        try:
            frame = parse_client_frame(event, fields)
        except ProtocolError as error:
            if _is_oversize(fields):
                self.end(ErrorCode.TOO_LARGE, CloseCode.TOO_LARGE, f"an envelope has at most {MAX_ENVELOPE} bytes")
            else:
                self._fault(Error(ErrorCode.MALFORMED_FRAME, str(error.args[0])[:MAX_DETAIL]))
            return
        if isinstance(frame, Hello) is self._greeted:
            code = ErrorCode.MALFORMED_FRAME if self._greeted else ErrorCode.HELLO_REQUIRED
            self._fault(Error(code, "hello comes first, and once"))
        elif isinstance(frame, Credit) and self._delivery is not None:
            self._delivery.grant(frame.messages, frame.bytes)
        elif not isinstance(frame, Pong):
            self._queue(frame)

    def alive(self) -> None:
        """Note a sign of life: a frame, or the transport's own heartbeat, which the endpoint sees."""
        self.seen_at = self._relay.now()
        self._heartbeat.heard()

    def disconnected(self) -> None:
        """The transport is gone."""
        if not self.closed.is_set():
            self._stop()
            self._outbox.stop()

    def end(self, code: ErrorCode, close_code: CloseCode, detail: str) -> None:
        """End the connection from this side: an `error` frame, then the transport's own way to close."""
        if self.closed.is_set():
            return
        self._stop()
        self._relay.meter.refused(code.value)
        error = Error(code, detail, close_code=close_code)
        self._relay.spawn(self._outbox.finish(error, close_code, self._relay.settings.close_timeout))

    def _queue(self, frame: ClientFrame) -> None:
        self._greeted = True
        settings = self._relay.settings
        self._inbound_bytes += _size(frame)
        self._frames.append(frame)
        if len(self._frames) > settings.max_inbound_frames or self._inbound_bytes > settings.max_inbound_bytes:
            self.end(ErrorCode.FLOODING, CloseCode.TOO_FAST_OR_SLOW, "too much sent without waiting for answers")
        self._wake.set()

    async def _work(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._frames:
                    done = await self._process()
                    if self.closed.is_set():
                        return
                    for _ in range(done):
                        self._inbound_bytes -= _size(self._frames.popleft())
        except Exception as error:  # noqa: BLE001 - of the database or the key service; only this connection ends
            _logger.error("A connection failed: %s", type(error).__name__)
            self.end(ErrorCode.INTERNAL, CloseCode.DRAINING, "try again later")

    async def _process(self) -> int:
        """Process the frame in front, or all sends and acks in front. Return how many frames are done."""
        frame = self._frames[0]
        match frame:
            case Hello():
                await self._hello(frame)
            case Refresh(token):
                await self._refresh(token)
            case Credit(messages, size):
                if self._delivery is not None:
                    self._delivery.grant(messages, size)
            case Presence() | Watch() | Typing():
                if self._attendance is not None:
                    await self._attendance.take(frame)
            case Pong():
                pass
            case Send() | Ack():
                return await self._take()
            case _:
                assert_never(frame)
        return 1

    async def _take(self) -> int:
        batch: list[Send | Ack] = []
        for frame in self._frames:
            if len(batch) == BATCH or not isinstance(frame, Send | Ack):
                break
            batch.append(frame)
        if self._client is not None:
            # What was begun is finished, and the recipients are woken, even if this connection ends meanwhile.
            work = self._relay.spawn(self._relay.intake.take(self._client, batch))
            for answer in await asyncio.shield(work):
                self._answer(answer)
        return len(batch)

    def _answer(self, answer: ServerFrame) -> None:
        if isinstance(answer, Error) and answer.code in FAULTS:
            self._fault(answer)
        else:
            if isinstance(answer, Error):
                self._relay.meter.refused(answer.code.value)
            self._outbox.put(answer)

    async def _hello(self, hello: Hello) -> None:
        try:
            principal = await self._credential.judge(hello.token)
        except TokenRefusedError as refusal:
            self._refused(refusal.code)
            return
        if self.closed.is_set():
            return
        relay, address = self._relay, principal.address
        if not self._may_be(address):
            self._refused(ErrorCode.TOKEN_INVALID)
            return
        if not relay.admit(self, address, hello):
            self.end(ErrorCode.REPLACED, CloseCode.REPLACED, "a newer connection of this program is open")
            return
        self._deadline.cancel()
        self._credential.hold(hello.token, principal)
        # Before the first read: what is stored after it then causes a hint that somebody hears.
        self._unsubscribe = relay.bus.subscribe(address, self._hint)
        state = await relay.database.write(
            lambda connection: relay.mailbox.hello(connection, address, hello.epoch, hello.watermark, relay.now())
        )
        if self.closed.is_set():
            return
        if state is None:
            self.end(ErrorCode.DEVICE_UNAVAILABLE, CloseCode.TOKEN_EXPIRED, "the device has no inbox")
            return
        self._client = Client(address, state.inbox_id)
        self._attendance = relay.presence.attend(address, self._outbox, lambda: self.seen_at)
        self._outbox.put(Welcome(*state[1:], server_time=relay.now()))
        source = Source(relay.database, relay.mailbox.sql, relay.now, state.inbox_id, state.epoch, relay.meter)
        self._delivery = Delivery(source, self._outbox, Budget(hello.credit_messages, hello.credit_bytes))
        self._tasks += [asyncio.create_task(self._deliver(self._delivery)), asyncio.create_task(self._recheck())]
        if self._liveness is not Liveness.OWN:
            self._tasks.append(asyncio.create_task(self._heartbeat.run()))

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await delivery.run()
        except Exception as error:  # noqa: BLE001 - of the database; the client reconnects and gets everything unacked
            _logger.error("A delivery failed: %s", type(error).__name__)
            self.end(ErrorCode.INTERNAL, CloseCode.DRAINING, "try again later")

    async def _refresh(self, token: str) -> None:
        try:
            principal = await self._credential.judge(token)
        except TokenRefusedError as refusal:
            if refusal.code == ErrorCode.DEVICE_REVOKED:
                self._refused(refusal.code)
            else:
                # The connection still has its old token's time, and its grace.
                self._fault(Error(ErrorCode(refusal.code), "the fresh token is refused"))
            return
        if self._client is None or principal.address != self._client.address:
            self._fault(Error(ErrorCode.TOKEN_INVALID, "the fresh token is another device's"))
        elif not self.closed.is_set():
            self._credential.hold(token, principal)

    async def _recheck(self) -> None:
        """Make up for lost hints: read again, and ask again whether the token counts."""
        while True:
            await asyncio.sleep(self._relay.settings.reread_interval)
            self._hint()
            try:
                await self._credential.judge_again()
            except TokenRefusedError as refusal:
                if refusal.code != ErrorCode.TOKEN_EXPIRED:  # expiry has its own timers
                    self._refused(refusal.code)
            except Exception as error:  # noqa: BLE001 - of the database; the next round asks again
                _logger.error("A token could not be checked: %s", type(error).__name__)

    def _hint(self) -> None:
        if self._delivery is not None:
            self._delivery.wake()

    def _fault(self, error: Error) -> None:
        """Answer a frame that no honest client sends; when they recur, that was the last."""
        self._faults += 1
        if self._faults >= self._relay.settings.max_bad_frames:
            self.end(ErrorCode.FLOODING, CloseCode.TOO_FAST_OR_SLOW, "too many bad frames")
        else:
            self._relay.meter.refused(error.code.value)
            self._outbox.put(error)

    def _refused(self, code: str) -> None:
        revoked = code == ErrorCode.DEVICE_REVOKED
        self.end(ErrorCode(code), CloseCode.REVOKED if revoked else CloseCode.TOKEN_EXPIRED, "the token is refused")

    def _expired(self) -> None:
        self._outbox.put(Error(ErrorCode.TOKEN_EXPIRED, "send a fresh token"))

    def _overdue(self) -> None:
        self.end(ErrorCode.TOKEN_EXPIRED, CloseCode.TOKEN_EXPIRED, "no fresh token came")

    def _no_hello(self) -> None:
        self.end(ErrorCode.HELLO_TIMEOUT, CloseCode.TIMEOUT, "no hello came")

    def _ping(self) -> None:
        self._outbox.put(Ping())

    def _silent(self) -> None:
        self.end(ErrorCode.SILENT, CloseCode.TIMEOUT, "no sign of life came")

    def _stuck(self) -> None:
        self.end(ErrorCode.SLOW_CONSUMER, CloseCode.TOO_FAST_OR_SLOW, "the client does not read")

    def _stop(self) -> None:
        self.closed.set()
        self._relay.forget(self)
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._attendance is not None:
            self._attendance.leave()
        self._deadline.cancel()
        self._credential.drop()
        for task in self._tasks:
            task.cancel()
        self._frames.clear()


def _size(frame: ClientFrame) -> int:
    return FRAME_OVERHEAD + (len(frame.envelope) if isinstance(frame, Send) else 0)


def _is_oversize(fields: object) -> bool:
    envelope = fields.get("envelope") if isinstance(fields, Mapping) else None
    return isinstance(envelope, bytes | bytearray) and len(envelope) > MAX_ENVELOPE
