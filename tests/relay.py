"""The relay's side of the mailbox for tests of whole devices: inboxes, acknowledgements, what is stated at hello.

Owns: rows and their numbers, what was acknowledged, what was dropped, the highest n of each sender.
Does not know about: what envelopes hold, the order in which rows are delivered (the test's choice), quotas, time.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from e2ee.messenger import DeliveryPosition
from e2ee.rollback import RelayStatement
from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, MessageId
from tests.world import Network

EPOCH: Final = 1


@dataclass
class Row:
    """One envelope in an inbox."""

    seq: int
    sender: DeviceAddress
    envelope_id: EnvelopeId
    message_id: MessageId
    envelope: bytes | None
    """None once the relay has dropped it, as after its ttl."""
    acked: bool = False

    @property
    def position(self) -> DeliveryPosition:
        return DeliveryPosition(EPOCH, self.seq)


class Relay(Network):
    """Keeps each envelope until it is acknowledged (protocol.md section 12.5)."""

    inboxes: defaultdict[DeviceAddress, list[Row]]

    def __init__(self) -> None:
        self.accepted = defaultdict(int)
        self.inboxes = defaultdict(list)

    def accept(self, sender: DeviceAddress, entry: OutboxEntry) -> None:
        """Store an envelope, once however often it is sent."""
        self.accepted[sender] = max(self.accepted[sender], entry.counter)
        inbox = self.inboxes[entry.recipient]
        if all((row.sender, row.envelope_id) != (sender, entry.envelope_id) for row in inbox):
            inbox.append(Row(len(inbox) + 1, sender, entry.envelope_id, entry.message_id, entry.envelope))

    def waiting(self, address: DeviceAddress) -> list[Row]:
        """Return the rows that are not acknowledged."""
        return [row for row in self.inboxes[address] if not row.acked]

    def acked(self, address: DeviceAddress) -> frozenset[int]:
        """Return the seqs that a device has acknowledged."""
        return frozenset(row.seq for row in self.inboxes[address] if row.acked)

    def statement(self, address: DeviceAddress) -> RelayStatement:
        """Return what is stated when the device says hello."""
        waiting, acked = self.waiting(address), self.acked(address)
        settled = waiting[0].seq - 1 if waiting else len(self.inboxes[address])
        return RelayStatement(EPOCH, settled, self.accepted[address], EPOCH if acked else 0, max(acked, default=0))
