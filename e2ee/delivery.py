"""What the relay states of this device's mailbox: where the inbox stands, and what it accepted of this device.

Owns: one transaction for each statement; that nothing is sent before the relay was heard.
Does not know about: the transport, what an envelope holds, how a rollback is made up for (rollback.py).
"""

from collections.abc import Callable
from typing import final

from e2ee import prekey_supply, reception, rollback
from e2ee.notices import Notice, StoreRolledBack
from e2ee.ports import Store
from e2ee.reception import DeliveryPosition
from e2ee.rollback import RelayStatement
from e2ee.stores import healing_records, message_records, records
from e2ee.wire.identifiers import DeviceAddress


@final
class Delivery:
    """Reached as `Messenger.delivery`; every method is one transaction. `heard` is called once the relay was."""

    def __init__(self, store: Store, clock: Callable[[], int], heard: Callable[[], None]) -> None:
        self._store, self._clock, self._heard = store, clock, heard

    def note_dropped(self, position: DeliveryPosition, sender: DeviceAddress | None = None) -> None:
        """Commit the position of an envelope that expired at the relay, and whose it was, as the relay says."""
        with self._store.write() as tx:
            known = message_records.is_committed(tx, position.epoch, position.seq)
            if sender is not None and not known and records.load_contact(tx, sender.user_id) is not None:
                healing_records.count_dropped(tx, sender, self._clock())
            reception.commit_position(tx, position)

    def note_connected(self, statement: RelayStatement) -> tuple[Notice, ...]:
        """Take note of what the relay states at the beginning of a connection; call it before anything is sent.

        If the relay has seen more of this device than the store knows, the store was rolled back: all sessions only
        receive from now on, and `StoreRolledBack` is returned, at most once an hour; `tend` makes up for it.
        """
        with self._store.write() as tx:
            rollback.compare(tx, statement)
            rolled_back = rollback.reset_if_due(tx, self._clock())
            if message_records.cursor(tx)[0] not in (0, statement.epoch):
                prekey_supply.withhold(tx)
            message_records.start_epoch(tx, statement.epoch, statement.settled_through)
            message_records.note_online(tx)
        self._heard()
        return (StoreRolledBack(),) if rolled_back else ()

    def cursor(self) -> tuple[int, int]:
        """Return (epoch, watermark) of the inbox."""
        with self._store.read() as tx:
            return message_records.cursor(tx)
