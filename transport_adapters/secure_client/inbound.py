"""From the relay to the store, and the acknowledgements back.

Owns: the order decrypt -> commit -> acknowledge; when the inbox counts as drained.
Does not know about: decryption (messenger), how the application is fed.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple, assert_never, final

from e2ee.messenger import DeliveryPosition, Outcome, Reception
from e2ee.notices import AccountKeysDiffer
from e2ee.rollback import RelayStatement
from e2ee.wire.identifiers import UserId
from transport_adapters import events
from transport_adapters.base import Connected, Delivery, PresenceSeen, SeqRange, TransportError, TypingSeen
from transport_adapters.secure_client.calls import Calls
from transport_adapters.secure_client.history import History
from transport_adapters.secure_client.outbound import Outbound
from transport_adapters.secure_client.parts import Parts
from transport_adapters.secure_client.presence import Presence
from transport_adapters.secure_client.tending import Tending


class Live(NamedTuple):
    """Whoever is told of what comes in at once, beside the application that asks for messages."""

    presence: Presence
    calls: Calls
    history: History


@final
class Inbound:
    """Takes deliveries in, one transaction each, and acknowledges what is committed."""

    def __init__(self, parts: Parts, outbound: Outbound, tending: Tending, live: Live) -> None:
        self._parts, self._outbound, self._tending, self._live = parts, outbound, tending, live
        self.changed = asyncio.Event()
        """Set when a row was added for the application."""
        self.kept: set[UserId] = set()
        """Users of whom another account key was seen than the pinned one, until somebody has looked."""
        self.kept_changed = asyncio.Event()
        self._head_seq: int | None = None
        self._prune_at = 0.0
        self._acks: list[DeliveryPosition] = []
        self._acks_due = asyncio.Event()

    async def run(self) -> None:
        """Receive until the transport is closed.

        Raises:
            StateError: our own store failed again and again. What was not committed was not acknowledged.
            TransportRefusedError: the server ended it for good.
        """
        async for incoming in self._parts.transport.receive():
            match incoming:
                case Connected():
                    await self._note_connected(incoming)
                case Delivery():
                    await self._take(incoming)
                case PresenceSeen() | TypingSeen():
                    self._live.presence.take(incoming)
                    continue
                case _:
                    assert_never(incoming)
            await self._note_progress()

    async def acknowledge(self) -> None:
        """Send acknowledgements as they fall due, for ever; what falls due meanwhile goes together."""
        while True:
            await self._acks_due.wait()
            self._acks_due.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send the acknowledgements that are due. One that is lost is made good by a repeated delivery."""
        due, self._acks = self._acks, []
        for epoch in sorted({position.epoch for position in due}):
            seqs = sorted(position.seq for position in due if position.epoch == epoch)
            with contextlib.suppress(TransportError):
                await self._parts.transport.ack(epoch, ranges(seqs))

    async def _note_connected(self, connected: Connected) -> None:
        statement = RelayStatement(
            connected.epoch,
            connected.settled_through,
            connected.accepted_counter,
            connected.acked_epoch,
            connected.acked_seq,
        )
        epoch, _ = await self._parts.commit(self._parts.messenger.delivery.cursor)
        # Before anything is sent on this connection: what a rollback made unfit must not go out.
        for notice in await self._parts.commit(self._parts.messenger.delivery.note_connected, statement):
            self._parts.emit(notice)
        if epoch not in (0, connected.epoch):
            self._parts.restarted.set()
            self._parts.emit(events.MailboxRestarted())
        self._tending.wake()
        self._head_seq = connected.head_seq
        self._parts.online.set()
        self._outbound.connected()
        self._parts.emit(events.Online())

    async def _take(self, delivery: Delivery) -> None:
        position = DeliveryPosition(delivery.epoch, delivery.seq)
        if delivery.envelope is not None:
            # A peer's bytes never raise here, so only local faults are tried again.
            self.report(await self._parts.commit(self._parts.messenger.receive, delivery.envelope, position))
        else:
            await self._parts.commit(self._parts.messenger.delivery.note_dropped, position, delivery.sender)
            if delivery.sender is not None and delivery.envelope_id is not None:
                self._parts.emit(events.Expired(delivery.sender, delivery.envelope_id))
        self._acks.append(position)
        self._acks_due.set()

    def report(self, reception: Reception) -> None:
        """Tell the application what became of an envelope."""
        for notice in reception.notices:
            self._parts.emit(notice)
            if isinstance(notice, AccountKeysDiffer):
                self._look_at(notice.user_id)
        if reception.tend:
            self._tending.wake()
        if reception.call is not None and reception.sender is not None:
            self._live.calls.take(reception.call, reception.sender)
        if reception.outcome is Outcome.STORED:
            self.changed.set()
            self._live.history.note_change()
        elif reception.outcome is Outcome.WAITING_FOR_TRUST and reception.sender is not None:
            self._look_at(reception.sender.user_id)
        elif reception.outcome is Outcome.UNREADABLE and reception.error is not None:
            self._parts.emit(events.Unreadable(reception.sender, reception.envelope_id, reception.error.code))

    def _look_at(self, user_id: UserId) -> None:
        self.kept.add(user_id)
        self.kept_changed.set()

    async def _note_progress(self) -> None:
        """Notice that what waited when we connected is committed; only then delete what could still decrypt, if due."""
        now = asyncio.get_running_loop().time()
        if self._head_seq is None or (self._parts.caught_up.is_set() and now < self._prune_at):
            return
        _, watermark = await self._parts.commit(self._parts.messenger.delivery.cursor)
        if watermark < self._head_seq:
            return
        await self._parts.commit(self._parts.messenger.prune)
        self._prune_at = now + self._parts.pace.prune
        if not self._parts.caught_up.is_set():
            self._parts.caught_up.set()
            self._parts.emit(events.CaughtUp())


def ranges(seqs: Sequence[int]) -> list[SeqRange]:
    """Join ascending seqs to ranges."""
    joined: list[SeqRange] = []
    for seq in seqs:
        if joined and seq <= joined[-1].last + 1:
            joined[-1] = SeqRange(joined[-1].first, seq)
        else:
            joined.append(SeqRange(seq, seq))
    return joined
