"""How much a device's store holds, for people and for monitoring.

Owns: which counts there are.
Does not know about: who looks at them.
"""

from dataclasses import dataclass
from typing import final

from e2ee.ports import ReadTransaction, Table
from e2ee.wire.identifiers import DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class Status:
    """Counts for people and for monitoring."""

    address: DeviceAddress
    contacts: int
    sessions: int
    skipped_keys: int
    outbox: int
    inbound: int
    unreadable: int


def of(tx: ReadTransaction, address: DeviceAddress) -> Status:
    """Count what the store holds of the device with this address."""
    return Status(
        address=address,
        contacts=tx.count(Table.CONTACTS),
        sessions=tx.count(Table.SESSIONS),
        skipped_keys=tx.count(Table.SKIPPED_KEYS),
        outbox=tx.count(Table.OUTBOX),
        inbound=tx.count(Table.INBOUND),
        unreadable=tx.count(Table.UNREADABLE),
    )
