"""The ciphertext that waits for the server, and what was given up of it.

Owns: one transaction for each step; that nothing is given up without somebody being told.
Does not know about: the transport, encryption (sending.py), how long an envelope may wait (retention.py).
"""

from collections.abc import Callable, Iterable
from typing import final

from e2ee import retention
from e2ee.errors import DeviceListStaleError
from e2ee.ports import Store
from e2ee.stores import message_records, records, sent_records
from e2ee.stores.message_records import FailedSend, OutboxEntry
from e2ee.wire.device_list import ListPosition
from e2ee.wire.identifiers import EnvelopeId, MessageId, UserId


@final
class Outbox:
    """Reached as `Messenger.outbox`; every method is one transaction."""

    def __init__(self, store: Store, clock: Callable[[], int], keeps_contents: bool) -> None:
        self._store, self._clock, self._keeps_contents = store, clock, keeps_contents

    def entries(self, limit: int | None = None) -> list[OutboxEntry]:
        """Return envelopes that the server has not accepted, oldest first. A retry sends the same bytes."""
        with self._store.read() as tx:
            return message_records.outbox(tx, limit)

    def is_due_again(self, message_id: MessageId) -> bool:
        """Whether a message waits to be encrypted anew for a device, which `tend` does once there is a session."""
        with self._store.read() as tx:
            return any(each.message_id == message_id for each in sent_records.due_resends(tx))

    def settle(self, envelope_ids: Iterable[EnvelopeId], given_up: Iterable[tuple[EnvelopeId, str]] = ()) -> None:
        """Forget envelopes for which the server has taken responsibility, or which nobody wants any more.

        Those that are `given_up`, each with a code of why (ASCII, at most 255 characters), become `failed`.
        """
        with self._store.write() as tx:
            for envelope_id in envelope_ids:
                message_records.remove_outbox(tx, envelope_id)
            for envelope_id, code in given_up:
                message_records.give_up_by_id(tx, envelope_id, code, self._clock())

    def failed(self) -> list[FailedSend]:
        """Return the envelopes that were given up, oldest first, until `failures_told` forgets them.

        So that no process can die between giving up and telling. Tell the application of each, then forget them.
        """
        with self._store.read() as tx:
            return message_records.failed_sends(tx)

    def failures_told(self, envelope_ids: Iterable[EnvelopeId]) -> None:
        """Forget failed sends, of which the application was told."""
        with self._store.write() as tx:
            for envelope_id in envelope_ids:
                message_records.forget_failed_send(tx, envelope_id)

    def list_positions(self, user_id: UserId) -> tuple[ListPosition, ListPosition]:
        """Return the newest known positions of a recipient's list and of our own, as a send must state them.

        Raises:
            DeviceListStaleError: no list of the recipient is known.
        """
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            if contact is None:
                raise DeviceListStaleError(user_id)
            return contact.device_list.position, records.own_device_list(tx).position

    def expire(self) -> list[OutboxEntry]:
        """Give up on envelopes that no server accepted for 14 days, or, in lane 0, within their time to live; return
        them. They are among the `failed`.

        What was said so long ago is forgotten, too. Call it at the start and now and then, whether or not there is a
        connection.
        """
        with self._store.write() as tx:
            retention.forget_contents(tx, self._clock(), self._keeps_contents)
            retention.forget_history(tx, self._clock())
            return retention.expire_outbox(tx, self._clock())
