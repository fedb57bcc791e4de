"""Receipts: telling the senders of messages that these were delivered or read.

Owns: who is told what, when delivered receipts go out by themselves.
Does not know about: what a receipt looks like (e2ee.wire.content), what the history makes of one.
"""

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Final, final

from e2ee.errors import DeviceListStaleError, ProtocolError, TrustError
from e2ee.sending import batched
from e2ee.wire.content import ReceiptType
from e2ee.wire.identifiers import MessageId, UserId
from transport_adapters import events
from transport_adapters.secure_client.directory import Directory, UserUnreachableError
from transport_adapters.secure_client.messages import Message, Received
from transport_adapters.secure_client.outbound import Outbound
from transport_adapters.secure_client.parts import LOCAL_FAULTS, SERVER_TROUBLE, Parts

_TROUBLE: Final = (
    *SERVER_TROUBLE,
    *LOCAL_FAULTS,
    UserUnreachableError,
    DeviceListStaleError,
    ProtocolError,
    TrustError,
)
"""Why somebody may not be told. Nobody waits for it, and what is read later says more."""


@final
class Receipts:
    """Reached as `SecureClient.receipts`."""

    def __init__(self, parts: Parts, directory: Directory, outbound: Outbound) -> None:
        self._parts, self._directory, self._outbound = parts, directory, outbound
        self._shown: dict[UserId, list[MessageId]] = {}
        self._changed = asyncio.Event()
        self.automatic = False
        """Whether the senders of messages are told, by itself, that the application was handed them. Off by default: it
        says when a device is online and costs a message for each few. Users to whom we never wrote are not told: who
        writes to strangers must not learn that they are there. Set it after opening, before asking for messages."""

    async def delivered(self, messages: Iterable[Received]) -> None:
        """Tell the senders of messages that this device has them.

        Raises:
            See `SecureClient.send`.
        """
        by_sender: dict[UserId, list[MessageId]] = {}
        for each in messages:
            by_sender.setdefault(each.sender, []).append(each.message_id)
        for user_id, ids in by_sender.items():
            await self.tell(user_id, ReceiptType.DELIVERED, ids)

    async def tell(self, user_id: UserId, kind: ReceiptType, message_ids: Sequence[MessageId]) -> None:
        """Tell one user of messages; nothing happens for our own, which are copies.

        Raises:
            See `SecureClient.send`.
        """
        messenger = self._parts.messenger
        if user_id == messenger.address.user_id:
            return
        for ids in batched(message_ids):
            await self._directory.with_sessions(user_id, functools.partial(messenger.send_receipt, user_id, kind, ids))
        self._outbound.wake()

    def note_shown(self, message: Message) -> None:
        """Note that the application was handed a message."""
        if self.automatic and not message.is_copy:
            # Not the message: a server that does not answer must not make us keep them all.
            self._shown.setdefault(message.sender, []).append(message.message_id)
            self._changed.set()

    async def run(self) -> None:
        """Send what falls due by itself, for ever; what is shown within a moment goes together."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._parts.pace.first_retry)
            self._changed.clear()
            shown, self._shown = self._shown, {}
            for user_id in sorted(shown):
                await self._tell_delivered(user_id, shown[user_id])

    async def _tell_delivered(self, user_id: UserId, message_ids: Sequence[MessageId]) -> None:
        try:
            if not await self._parts.call(self._parts.messenger.contact_book.is_stranger, user_id):
                await self.tell(user_id, ReceiptType.DELIVERED, message_ids)
        except _TROUBLE as error:
            self._parts.emit(events.Trouble(error.code))
