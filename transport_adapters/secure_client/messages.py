"""Received messages as an application gets them.

Owns: what an inbound row becomes: a message, or an event.
Does not know about: where rows come from, who asks for the next one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, final

from e2ee.stores.message_records import InboundMessage
from e2ee.wire import content as contents
from e2ee.wire.call_signal import CallSignal
from e2ee.wire.content import ContentKind, ReceiptType
from e2ee.wire.identifiers import ConversationId, DeviceAddress, MessageId, UserId
from e2ee.wire.sync import ReadMarks, SentCopy, decode_sync
from transport_adapters import events
from transport_adapters.secure_client.parts import Parts

Confirm = Callable[[int], Awaitable[None]]
"""Called with a row's number when the application is done with it."""


class Received(Protocol):
    """What names a received message: a `Message` does, and so does whatever the application keeps of one."""

    @property
    def message_id(self) -> MessageId:
        """Given by the sender's device."""
        ...

    @property
    def sender(self) -> UserId:
        """Who sent it."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Message:
    """One received message. Its `repr` holds no content."""

    message_id: MessageId
    sender: UserId
    recipient: UserId
    """This user; or, of a copy, whom it was sent to."""
    device: DeviceAddress
    conversation: ConversationId
    data: bytes | str | None = field(repr=False)
    """What the sender's application sent; None if the message's kind is unknown to this release."""
    sent_at: int
    """The sender's clock, Unix milliseconds."""
    received_at: int
    """Our clock, Unix milliseconds."""
    number: int
    """Position in the inbound table."""
    is_copy: bool
    """Whether this user sent it, from another device: something to show, and nothing to answer."""
    _confirm: Confirm = field(repr=False)
    from_removed_device: bool = False
    """The device that sent it is not in its user's list any more: the user's other devices do not vouch for it."""

    async def done(self) -> None:
        """Say that the application has taken care of it; otherwise it is shown again after a restart.

        Asking the client for the next message says the same.
        """
        await self._confirm(self.number)


def present(parts: Parts, row: InboundMessage, confirm: Confirm) -> Message | None:
    """Turn an inbound row into a message; a receipt, a read mark or a missed call becomes an event."""
    content = row.content
    recipient, kind, body = parts.messenger.address.user_id, content.kind, content.body
    match content.kind:
        case ContentKind.RECEIPT:
            receipt = contents.Receipt.decode(body)
            parts.emit(events.Receipt(row.sender.user_id, receipt.type is ReceiptType.READ, receipt.message_ids))
            return None
        case ContentKind.CALL:
            missed = CallSignal.decode(body)
            parts.emit(events.CallMissed(row.sender.user_id, missed.call_id, content.sent_at))
            return None
        case ContentKind.SYNC:
            match decode_sync(body):
                case ReadMarks(author, message_ids):
                    parts.emit(events.ReadElsewhere(author, message_ids))
                    return None
                case SentCopy() as copy:
                    recipient, kind, body = copy.recipient, copy.kind, copy.body
                case None:
                    return None
        case _:
            pass
    return Message(
        message_id=content.message_id,
        sender=row.sender.user_id,
        recipient=recipient,
        device=row.sender,
        conversation=content.conversation_id,
        data=contents.decode_application(body) if kind == ContentKind.APPLICATION else None,
        sent_at=content.sent_at,
        received_at=row.received_at,
        number=row.number,
        is_copy=content.kind == ContentKind.SYNC,
        from_removed_device=row.from_removed_device,
        _confirm=confirm,
    )
