"""What becomes of the envelopes and acks that a client sends.

Owns: the checks before the database, one transaction for all that waits, the answers, the hints.
Does not know about: connections and transports. One intake serves all of a relay.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never, final

from sqlalchemy import Connection

from e2ee.errors import ProtocolError
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, UserId
from transport_adapters.frames import Ack, Error, ErrorCode, Send, Sent, ServerFrame
from transport_adapters.server.buckets import Buckets
from transport_adapters.server.bus import Bus
from transport_adapters.server.mailbox import Full, Mailbox, Posted, Stored
from transport_adapters.server.ports import ContactPolicy, Database, DeviceDirectory, SendCheck, StaleList, Unavailable
from transport_adapters.server.settings import RelaySettings

_logger = logging.getLogger(__name__)

BATCH: Final = 64
"""Frames of one client in one transaction."""

FAULTS: Final = frozenset({ErrorCode.MALFORMED_FRAME, ErrorCode.WRONG_SENDER})
"""Answers that no honest client gets; they count as bad frames."""


class Client(NamedTuple):
    """Who speaks, and which inbox is theirs."""

    address: DeviceAddress
    inbox_id: int


class _Checked(NamedTuple):
    """A send that passed the checks before the database."""

    send: Send
    posted: Posted


class _Outcome(NamedTuple):
    """What to answer, and whom to wake."""

    answer: ServerFrame | None
    woken: DeviceAddress | None = None


@final
@dataclass(frozen=True, slots=True)
class Ports:
    """Whom the relay asks."""

    database: Database
    directory: DeviceDirectory
    contacts: ContactPolicy
    bus: Bus
    now: Callable[[], int]


@final
class Intake:
    """Takes batches of frames; gives one answer for each send, and one for each refused ack."""

    def __init__(self, mailbox: Mailbox, ports: Ports, settings: RelaySettings) -> None:
        self._mailbox = mailbox
        self._ports = ports
        self._max_control_body = settings.max_control_body
        self._control = Buckets(settings.control_rate)
        self._ordinary = Buckets(settings.send_rate)

    async def take(self, client: Client, frames: Sequence[Send | Ack]) -> list[ServerFrame]:
        """Process frames in their order, in one transaction. Never raises: what fails is answered as `internal`."""
        try:
            allowed = await self._allowed(client, frames)
            outcomes = await self._ports.database.write(lambda connection: self._store(connection, client, allowed))
        except Exception as error:  # noqa: BLE001 - of the database or the host's hook; no client may end the relay
            # The type alone: a driver's message may quote parameters.
            _logger.error("Frames could not be processed: %s", type(error).__name__)
            return [_refusal(ErrorCode.INTERNAL, "try again later", peek_envelope_id(each)) for each in frames]
        for recipient in {outcome.woken for outcome in outcomes if outcome.woken is not None}:
            self._ports.bus.publish(recipient)
        return [outcome.answer for outcome in outcomes if outcome.answer is not None]

    async def _allowed(self, client: Client, frames: Sequence[Send | Ack]) -> list[_Checked | Ack | Error]:
        """Do the checks that need no transaction. The host's hook is asked once for each user of the batch."""
        answers: dict[UserId, bool] = {client.address.user_id: True}
        checked: list[_Checked | Ack | Error] = []
        for frame in frames:
            item = frame if isinstance(frame, Ack) else self._checked(client.address, frame)
            if isinstance(item, _Checked):
                recipient = item.posted.envelope.recipient.user_id
                if recipient not in answers:
                    answers[recipient] = await self._ports.contacts.may_contact(client.address.user_id, recipient)
                if not answers[recipient]:
                    item = _refusal(ErrorCode.CONTACT_REFUSED, "the recipient does not take messages", _id(item))
            checked.append(item)
        return checked

    def _checked(self, sender: DeviceAddress, send: Send) -> _Checked | Error:
        try:
            envelope = Envelope.decode(send.envelope)
        except ProtocolError as error:
            return _refusal(ErrorCode.MALFORMED_FRAME, f"envelope: {error.code}", peek_envelope_id(send))
        if envelope.sender != sender:
            return _refusal(ErrorCode.WRONG_SENDER, "the envelope names another sender", envelope.envelope_id)
        is_control = envelope.lane is Lane.CONTROL
        if is_control and len(envelope.body) > self._max_control_body:
            return _refusal(ErrorCode.TOO_LARGE, "the body is too large for lane 0", envelope.envelope_id)
        wait = (self._control if is_control else self._ordinary).take(sender, self._ports.now())
        if wait:
            return Error(ErrorCode.RATE_LIMITED, "too many envelopes", envelope.envelope_id, retry_after=wait)
        return _Checked(send, Posted(envelope, send.envelope, send.counter))

    def _store(
        self, connection: Connection, client: Client, allowed: Sequence[_Checked | Ack | Error]
    ) -> list[_Outcome]:
        recipients = {each.posted.envelope.recipient for each in allowed if isinstance(each, _Checked)}
        self._mailbox.lock(connection, recipients | {client.address})
        outcomes = []
        for item in allowed:
            match item:
                case Error():
                    outcomes.append(_Outcome(item))
                case Ack(epoch, ranges):
                    done = self._mailbox.ack(connection, client.inbox_id, epoch, ranges)
                    refusal = _refusal(ErrorCode.ACK_REFUSED, "another epoch, or above the head")
                    outcomes.append(_Outcome(None if done else refusal))
                case _Checked():
                    outcomes.append(self._append(connection, client.address, item))
                case _:
                    assert_never(item)
        return outcomes

    def _append(self, connection: Connection, sender: DeviceAddress, item: _Checked) -> _Outcome:
        send, recipient = item.send, item.posted.envelope.recipient

        def check() -> SendCheck:
            directory = self._ports.directory
            return directory.check_send(connection, sender, recipient, send.sender_list, send.recipient_list)

        result = self._mailbox.append(connection, item.posted, check, self._ports.now())
        match result:
            case Stored(_, duplicate):
                return _Outcome(Sent(_id(item), duplicate), None if duplicate else recipient)
            case Full():
                return _Outcome(_refusal(ErrorCode.INBOX_FULL, result.value, _id(item)))
            case Unavailable():
                detail = "the device cannot receive at present"
                return _Outcome(_refusal(ErrorCode.DEVICE_UNAVAILABLE, detail, _id(item)))
            case StaleList(user_id, seq, device_ids):
                detail = "a device list is not the newest"
                stale = Error(ErrorCode.STALE_DEVICE_LIST, detail, _id(item), None, None, user_id, seq, device_ids)
                return _Outcome(stale)
            case _:
                assert_never(result)


def peek_envelope_id(frame: object) -> EnvelopeId | None:
    """Find the id in a frame that could not be processed, so that its sender learns which one."""
    raw = frame.envelope[1:17] if isinstance(frame, Send) else b""
    return EnvelopeId(raw) if len(raw) == EnvelopeId.LENGTH else None


def _id(item: _Checked) -> EnvelopeId:
    return item.posted.envelope.envelope_id


def _refusal(code: ErrorCode, detail: str, envelope_id: EnvelopeId | None = None) -> Error:
    return Error(code, detail, envelope_id)
