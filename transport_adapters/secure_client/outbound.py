"""From the durable outbox to the server.

Owns: the order and the pace of sending, what each refusal calls for.
Does not know about: encryption (the outbox holds ciphertext), frames.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, final

from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.identifiers import EnvelopeId
from transport_adapters import events
from transport_adapters.base import Accepted, ListClaim, Outgoing, Refused, TransportUnavailableError
from transport_adapters.secure_client.directory import Directory
from transport_adapters.secure_client.parts import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, Parts

SEND_WINDOW: Final = 32
"""Envelopes under way at once; the relay groups what arrives together into one transaction."""

_LOST_CAUSES: Final = frozenset({"contact_refused", "wrong_sender", "too_large", "malformed_frame"})
"""Refusals that no repetition heals."""


@final
class Outbound:
    """Empties the outbox whenever there is a connection. A retry sends the same bytes, and the server stores one."""

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self._parts, self._directory = parts, directory
        self._changed, self._empty = asyncio.Event(), asyncio.Event()
        self._paused_until: dict[EnvelopeId, float] = {}

    def wake(self) -> None:
        """Say that something was queued, or that a connection was made."""
        self._empty.clear()
        self._changed.set()

    def connected(self) -> None:
        """A new connection: whatever paused may be tried at once."""
        self._paused_until.clear()
        self.wake()

    @property
    def empty(self) -> asyncio.Event:
        """Set while the outbox is known to be empty."""
        return self._empty

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            await self._parts.online.wait()
            self._changed.clear()
            queued = await self._queued()
            due = [entry for entry in queued if self._is_due(entry)]
            if not queued and not self._changed.is_set():
                self._empty.set()
            progress = False
            for at in range(0, len(due), SEND_WINDOW):
                progress = await self._send_window(due[at : at + SEND_WINDOW]) or progress
            if not progress:
                await self._rest()

    async def _queued(self) -> list[OutboxEntry]:
        messenger = self._parts.messenger
        for given_up in await self._parts.call(messenger.expire_outbox):
            self._parts.emit(events.SendFailed(given_up.message_id, given_up.recipient, "expired"))
        return await self._parts.call(messenger.outbox)

    async def _send_window(self, entries: Sequence[OutboxEntry]) -> bool:
        """Send some envelopes at once; return whether any of them is settled."""
        outgoing = await self._parts.call(lambda: [self._outgoing(entry) for entry in entries])
        results = await asyncio.gather(*map(self._parts.transport.send, outgoing), return_exceptions=True)
        settled = []
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, Accepted) or (isinstance(result, Refused) and await self._answer(entry, result)):
                settled.append(entry.envelope_id)
            elif isinstance(result, BaseException) and not isinstance(result, TransportUnavailableError):
                raise result
        await self._parts.call(self._parts.messenger.outbox_settled, settled)
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, Accepted):
                self._parts.emit(events.Sent(entry.message_id, entry.recipient))
        return bool(settled)

    def _outgoing(self, entry: OutboxEntry) -> Outgoing:
        """Add what a send states beside the envelope: the newest lists known now, not those of the encryption."""
        theirs, ours = self._parts.messenger.list_positions(entry.recipient.user_id)
        return Outgoing(
            counter=entry.counter,
            envelope=entry.envelope,
            envelope_id=entry.envelope_id,
            recipient_list=ListClaim(theirs.seq, theirs.hash.raw),
            sender_list=ListClaim(ours.seq, ours.hash.raw),
        )

    async def _answer(self, entry: OutboxEntry, refused: Refused) -> bool:
        """Do what a refusal calls for; return whether the envelope is to be forgotten."""
        if refused.code in _LOST_CAUSES:
            self._parts.emit(events.SendFailed(entry.message_id, entry.recipient, refused.code))
            return True
        if refused.code == "stale_device_list":
            await self._directory.repair_lists(refused.stale_user_id or entry.recipient.user_id)
            if await self._is_delisted(entry):
                self._parts.emit(events.SendFailed(entry.message_id, entry.recipient, "device_removed"))
                return True
            self._pause(entry, FIRST_RETRY_SECONDS)
            return False
        if refused.code == "device_unavailable":
            self._parts.emit(events.DeviceSkipped(entry.recipient, refused.code))
        self._pause(entry, refused.retry_after or MAX_RETRY_SECONDS)
        return False

    async def _is_delisted(self, entry: OutboxEntry) -> bool:
        contact = await self._parts.call(self._parts.messenger.contact, entry.recipient.user_id)
        return contact is not None and contact.device_list.content.device(entry.recipient.device_id) is None

    def _pause(self, entry: OutboxEntry, seconds: float) -> None:
        self._paused_until[entry.envelope_id] = _now() + seconds

    def _is_due(self, entry: OutboxEntry) -> bool:
        return self._paused_until.get(entry.envelope_id, 0.0) <= _now()

    async def _rest(self) -> None:
        """Wait for new envelopes, a new connection, or the end of the shortest pause."""
        self._paused_until = {each: until for each, until in self._paused_until.items() if until > _now()}
        pause = min(self._paused_until.values(), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(pause):
                await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
