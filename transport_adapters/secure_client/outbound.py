"""From the durable outbox to the server.

Owns: the order and the pace of sending, what each refusal calls for.
Does not know about: encryption (the outbox holds ciphertext), frames.

Envelopes go out in the order in which they were queued. One that is refused for now holds up those after it for the
same device, not for others; only envelopes that were under way with it may overtake it.
"""

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Final, final

from e2ee.limits import HOUR_MS, SECOND_MS
from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId
from transport_adapters import events
from transport_adapters.base import Accepted, ListClaim, Outgoing, Refused, TransportUnavailableError
from transport_adapters.secure_client.directory import Directory
from transport_adapters.secure_client.parts import Parts

SEND_WINDOW: Final = 32
"""Envelopes under way at once; the relay groups what arrives together into one transaction."""
READ_AHEAD: Final = 4 * SEND_WINDOW
"""Envelopes read from the outbox at once, up to 96 KiB each."""

_LOST_CAUSES: Final = frozenset({"contact_refused", "wrong_sender", "too_large", "malformed_frame"})
"""Refusals that no repetition heals."""
_EXPIRY_CHECK_SECONDS: Final = HOUR_MS / SECOND_MS


@final
class Outbound:
    """Empties the outbox whenever there is a connection. A retry sends the same bytes, and the server stores one."""

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self._parts, self._directory = parts, directory
        self._changed, self._empty = asyncio.Event(), asyncio.Event()
        self._connections = 0
        self._expiry_check_at = 0.0
        self._held_until = math.inf
        """Nothing goes out before: there is no connection, or the server asked for a pause. 0 if nothing holds."""
        self._paused: dict[DeviceAddress, float] = {}
        self._setbacks: dict[DeviceAddress, int] = {}
        """Refusals in a row."""

    def wake(self) -> None:
        """Say that something was queued, or that a connection was made."""
        self._empty.clear()
        self._changed.set()

    def connected(self) -> None:
        """A new connection: whatever paused may be tried at once."""
        self._connections += 1
        self._expiry_check_at = self._held_until = 0.0
        self._paused.clear()
        self._setbacks.clear()
        self.wake()

    @property
    def empty(self) -> asyncio.Event:
        """Set while the outbox is known to be empty."""
        return self._empty

    async def run(self) -> None:
        """Send, for ever."""
        await self._parts.tell_failures()  # of which a process before this one could not tell any more
        while True:
            self._changed.clear()
            self._end_pauses()
            await self._give_up()
            queued, due = await self._queued()
            if not queued and not self._changed.is_set():
                self._empty.set()
            progress = False
            for at in range(0, len(due), SEND_WINDOW):
                # Looked at again: the window before may have met with a refusal.
                if window := [entry for entry in due[at : at + SEND_WINDOW] if self._is_due(entry)]:
                    connection = self._connections
                    progress = await self._send_window(window) or progress
                    if connection != self._connections:
                        # What was lost with the old connection goes before what follows it.
                        progress = True
                        break
            if not progress:
                await self._rest()

    async def _give_up(self) -> None:
        """Drop what no server has accepted for 14 days: before sending on a new connection, and now and then."""
        if _now() < self._expiry_check_at:
            return
        if await self._parts.commit(self._parts.messenger.outbox.expire):
            await self._parts.tell_failures()
        self._expiry_check_at = _now() + _EXPIRY_CHECK_SECONDS

    async def _queued(self) -> tuple[list[OutboxEntry], list[OutboxEntry]]:
        """Read as much of the outbox as is useful; return it, and which of it is due."""
        limit = 1 if self._held_until else READ_AHEAD
        while True:
            queued = await self._parts.commit(self._parts.messenger.outbox.entries, limit)
            due = [entry for entry in queued if self._is_due(entry)]
            if due or len(queued) < limit or limit == 1:
                return queued, due
            limit *= 2  # everything in front is for devices that pause: look behind it

    async def _send_window(self, entries: Sequence[OutboxEntry]) -> bool:
        """Send some envelopes at once; return whether any of them is settled."""
        connection = self._connections
        outgoing = await self._parts.commit(lambda: [self._outgoing(entry) for entry in entries])
        results = await asyncio.gather(*map(self._parts.transport.send, outgoing), return_exceptions=True)
        accepted: list[OutboxEntry] = []
        given_up: list[tuple[EnvelopeId, str]] = []
        stale = []
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, Accepted):
                self._setbacks.pop(entry.recipient, None)
                accepted.append(entry)
            elif isinstance(result, Refused) and result.code == "stale_device_list":
                stale.append((entry, result))
            elif isinstance(result, Refused):
                given_up += self._answer(entry, result)
            elif isinstance(result, TransportUnavailableError):
                if connection == self._connections:
                    # Until there is a new one; the time is for transports whose connection is not one thing.
                    self._hold(self._parts.pace.longest_retry)
            else:
                raise result
        given_up += await self._repair(stale)
        settled = [entry.envelope_id for entry in accepted]
        await self._parts.commit(self._parts.messenger.outbox.settle, settled, given_up)
        for entry in accepted:
            self._parts.emit(events.Sent(entry.message_id, entry.recipient))
        if given_up:
            await self._parts.tell_failures()
        return bool(accepted or given_up)

    def _outgoing(self, entry: OutboxEntry) -> Outgoing:
        """Add what a send states beside the envelope: the newest lists known now, not those of the encryption."""
        theirs, ours = self._parts.messenger.outbox.list_positions(entry.recipient.user_id)
        return Outgoing(
            counter=entry.counter,
            envelope=entry.envelope,
            envelope_id=entry.envelope_id,
            recipient_list=ListClaim(theirs.seq, theirs.hash.raw),
            sender_list=ListClaim(ours.seq, ours.hash.raw),
        )

    def _answer(self, entry: OutboxEntry, refused: Refused) -> list[tuple[EnvelopeId, str]]:
        """Do what a refusal calls for; return the envelope with the reason if it is to be given up."""
        if refused.code in _LOST_CAUSES:
            return [(entry.envelope_id, refused.code)]
        if refused.code == "rate_limited":
            # The first retry is the least: one envelope at a time would be refused as often as it is accepted.
            self._hold(max(refused.retry_after or 0.0, self._parts.pace.first_retry))
            return []
        if refused.code == "device_unavailable" and entry.recipient not in self._setbacks:
            self._parts.emit(events.DeviceSkipped(entry.recipient, refused.code))
        self._pause(entry.recipient, refused.retry_after)
        return []

    async def _repair(self, stale: Sequence[tuple[OutboxEntry, Refused]]) -> list[tuple[EnvelopeId, str]]:
        """Bring the lists up to date, each once; return envelopes for devices that are not listed any more."""
        ours = self._parts.messenger.address.user_id
        # Which of the two lists is stale the server may say; whom else to ask about is not its business.
        users = {ours if refused.stale_user_id == ours else entry.recipient.user_id for entry, refused in stale}
        await asyncio.gather(*map(self._directory.repair_lists, users))
        delisted = []
        for entry, _ in stale:
            if await self._is_delisted(entry.recipient):
                delisted.append((entry.envelope_id, "device_removed"))
            else:
                self._pause(entry.recipient)
        return delisted

    async def _is_delisted(self, device: DeviceAddress) -> bool:
        contact = await self._parts.commit(self._parts.messenger.contact, device.user_id)
        return contact is not None and contact.device_list.content.device(device.device_id) is None

    def _hold(self, seconds: float) -> None:
        self._held_until = max(self._held_until, _now() + seconds)

    def _pause(self, device: DeviceAddress, seconds: float | None = None) -> None:
        if device in self._paused:
            return  # several refusals of one window are one setback
        setbacks = self._setbacks[device] = self._setbacks.get(device, 0) + 1
        self._paused[device] = _now() + (seconds or self._parts.pace.retry(setbacks))

    def _is_due(self, entry: OutboxEntry) -> bool:
        return not self._held_until and entry.recipient not in self._paused

    def _end_pauses(self) -> None:
        """Forget the pauses that are over. Nowhere else, so that `_rest` waits for the end of each that counted."""
        now = _now()
        self._paused = {device: until for device, until in self._paused.items() if until > now}
        if self._held_until <= now:
            self._held_until = 0.0

    async def _rest(self) -> None:
        """Wait for new envelopes, a new connection, or the end of the shortest pause."""
        # While nothing at all may go out, the end of a device's pause is no news.
        until = self._held_until or min(self._paused.values(), default=math.inf)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
