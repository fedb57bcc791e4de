"""Typed views of a transaction: what could not be read of each device, and what the relay dropped of its messages.

Owns: keys, groups and values of these tables.
Does not know about: when a session is started or a message asked for (healing.py).
"""

from typing import NamedTuple

from e2ee.errors import CorruptStateError, ProtocolError
from e2ee.limits import MAX_RETRY_IDS, MAX_SKIP, MAX_SKIP_WITH_DROPPED
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId

_OPEN, _IDLE = b"open", b""


class Wanted(NamedTuple):
    """An envelope that could not be read."""

    envelope_id: EnvelopeId
    after: int
    """Ask for it on a session that was established later than this one was."""
    asks: int
    """How often it was asked for."""


class Healing(NamedTuple):
    """What we lack of one device. Times are Unix milliseconds; 0 is never."""

    peer: DeviceAddress
    fresh_at: int = 0
    """When we last started a session to heal."""
    asked_at: int = 0
    """When we last sent a retry request."""
    outranked: bool = False
    """A session that we gave up outranks all others, and the peer may go on with it: start anew."""
    wanted: tuple[Wanted, ...] = ()
    """Oldest first; at most 256."""

    def want(self, envelope_id: EnvelopeId, after: int) -> "Healing":
        """Return the record with one more envelope; beyond 256 the oldest go."""
        if any(each.envelope_id == envelope_id for each in self.wanted):
            return self
        return self._replace(wanted=(*self.wanted, Wanted(envelope_id, after, 0))[-MAX_RETRY_IDS:])


def load_healing(tx: ReadTransaction, peer: DeviceAddress) -> Healing:
    """Return a device's record; an empty one if there is none."""
    data = tx.get(Table.HEALING, peer.encode())
    return Healing(peer) if data is None else _decode(data)


def open_healings(tx: ReadTransaction) -> list[Healing]:
    """Return the records of all devices for which something is to be done."""
    return [_decode(record.value) for record in tx.scan(Table.HEALING, _OPEN)]


def save_healing(tx: Transaction, healing: Healing, now: int) -> None:
    writer = Writer().raw(healing.peer.encode()).u64(healing.fresh_at).u64(healing.asked_at)
    writer.u8(healing.outranked).u16(len(healing.wanted))
    for each in healing.wanted:
        writer.raw(each.envelope_id.raw).u64(each.after).u8(each.asks)
    group = _OPEN if healing.wanted or healing.outranked else _IDLE
    tx.put(Table.HEALING, healing.peer.encode(), writer.finish(), group=group, order=now)


# --- dropped rows --------------------------------------------------------------------------------------------


def count_dropped(tx: Transaction, sender: DeviceAddress, now: int) -> None:
    """Count an envelope of a device that the relay dropped undelivered."""
    count = _dropped(tx, sender)
    if count < MAX_SKIP_WITH_DROPPED:
        tx.put(Table.DROPPED, sender.encode(), (count + 1).to_bytes(4, "big"), order=now)


def skip_allowance(tx: ReadTransaction, sender: DeviceAddress) -> int:
    """Return how many keys a message of this device may skip in each chain."""
    return min(MAX_SKIP + _dropped(tx, sender), MAX_SKIP_WITH_DROPPED)


def forget_dropped(tx: Transaction, sender: DeviceAddress) -> None:
    """A message has skipped the keys of what was dropped: the allowance is used up."""
    if _dropped(tx, sender):
        tx.delete(Table.DROPPED, sender.encode())


def _dropped(tx: ReadTransaction, sender: DeviceAddress) -> int:
    return int.from_bytes(tx.get(Table.DROPPED, sender.encode()) or b"", "big")


def _decode(data: bytes) -> Healing:
    reader = Reader(data)
    try:
        peer, fresh_at, asked_at = DeviceAddress.decode(reader), reader.u64(), reader.u64()
        outranked = reader.flag()
        wanted = tuple(Wanted(EnvelopeId.decode(reader), reader.u64(), reader.u8()) for _ in range(reader.u16()))
        reader.finish()
    except ProtocolError:
        raise CorruptStateError("healing record does not decode") from None
    return Healing(peer, fresh_at, asked_at, outranked, wanted)
