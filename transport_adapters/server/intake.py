"""What becomes of the envelopes and acks that a client sends.

Owns: the checks before the database, one transaction for all that waits, the answers, the hints.
Does not know about: connections and transports. One intake serves all of a relay.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple, assert_never, final

from sqlalchemy import Connection

from e2ee.errors import ProtocolError
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, UserId
from transport_adapters.codes import ErrorCode
from transport_adapters.frames import Ack, Error, Send, Sent, ServerFrame
from transport_adapters.server.buckets import Buckets
from transport_adapters.server.bus import Bus
from transport_adapters.server.mailbox import Mailbox, Position
from transport_adapters.server.ports import (
    ContactPolicy,
    Database,
    DeviceDirectory,
    ListClaim,
    SendCheck,
    StaleList,
    Unavailable,
)
from transport_adapters.server.posting import Appended, Full, Posted, Stored
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
    """What to answer, and what was stored for whom."""

    answer: ServerFrame | None
    stored: Envelope | None = None


@final
@dataclass(frozen=True, slots=True)
class Ports:
    """Whom the relay asks."""

    database: Database
    directory: DeviceDirectory
    contacts: ContactPolicy
    bus: Bus
    now: Callable[[], int]
    stored: Callable[[DeviceAddress, Lane], None]
    """Told of every envelope that was stored: somebody may have to be woken."""


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
        stored = [outcome.stored for outcome in outcomes if outcome.stored is not None]
        for recipient in {envelope.recipient for envelope in stored}:
            self._ports.bus.publish(recipient)
        for recipient, lane in {(envelope.recipient, envelope.lane) for envelope in stored}:
            self._ports.stored(recipient, lane)
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
        acks = [Position(each.epoch, each.ranges) for each in allowed if isinstance(each, Ack)]
        sends = [each.posted for each in allowed if isinstance(each, _Checked)]
        self._mailbox.lock(connection, {each.envelope.recipient for each in sends} | {client.address})
        acked = iter(self._mailbox.ack(connection, client.inbox_id, acks) if acks else ())
        posting = self._mailbox.posting(connection, sends)

        @cache  # lists do not change within a transaction
        def check(recipient: DeviceAddress, sender_list: ListClaim, recipient_list: ListClaim) -> SendCheck:
            return self._ports.directory.check_send(connection, client.address, recipient, sender_list, recipient_list)

        outcomes = []
        for item in allowed:
            match item:
                case Error():
                    outcomes.append(_Outcome(item))
                case Ack():
                    refusal = _refusal(ErrorCode.ACK_REFUSED, "another epoch, or above the head")
                    outcomes.append(_Outcome(None if next(acked) else refusal))
                case _Checked(send, posted):
                    of_send = partial(check, posted.envelope.recipient, send.sender_list, send.recipient_list)
                    outcomes.append(_outcome(posted, posting.append(posted, of_send, self._ports.now())))
                case _:
                    assert_never(item)
        posting.flush()
        return outcomes


def _outcome(posted: Posted, result: Appended) -> _Outcome:
    envelope_id = posted.envelope.envelope_id
    match result:
        case Stored(_, duplicate):
            return _Outcome(Sent(envelope_id, duplicate), None if duplicate else posted.envelope)
        case Full():
            return _Outcome(_refusal(ErrorCode.INBOX_FULL, result.value, envelope_id))
        case Unavailable():
            detail = "the device cannot receive at present"
            return _Outcome(_refusal(ErrorCode.DEVICE_UNAVAILABLE, detail, envelope_id))
        case StaleList(user_id, seq, device_ids):
            detail = "a device list is not the newest"
            stale = Error(ErrorCode.STALE_DEVICE_LIST, detail, envelope_id, None, None, user_id, seq, device_ids)
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
