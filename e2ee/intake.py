"""From the bytes that the relay delivers to a committed outcome.

Owns: that every envelope has one outcome, in one transaction, or another one if it was refused; what the application
is shown of those that were stored.
Does not know about: how an envelope is decrypted (receiving.py), what is recorded of a refused one (reception.py).
"""

from dataclasses import replace

from e2ee import receiving, reception
from e2ee.errors import E2EEError, ProtocolError, SessionNotFoundError, TrustError
from e2ee.own_devices import welcome
from e2ee.ports import ReadTransaction, Store
from e2ee.receiving import Receiver
from e2ee.reception import DeliveryPosition, Outcome, Reception
from e2ee.sending import Sender
from e2ee.stores import message_records, records, trust_records
from e2ee.stores.message_records import InboundMessage
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import UserId


def take(
    store: Store, receiver: Receiver, sender: Sender, encoded: bytes, position: DeliveryPosition | None
) -> Reception:
    """Decrypt an encoded envelope and commit all that follows from it: see `Messenger.receive`.

    Raises:
        StateError: the store failed; nothing was changed.
    """
    try:
        envelope = Envelope.decode(encoded)
    except ProtocolError as error:
        with store.write() as tx:
            reception.commit_position(tx, position)
        return Reception(Outcome.UNREADABLE, None, None, error=error)
    return _receive(store, receiver, sender, envelope, position)


def reconsider(store: Store, receiver: Receiver, sender: Sender, user_id: UserId) -> list[Reception]:
    """Read what was kept of a user: see `Messenger.reconsider`.

    Raises:
        StateError: the store failed; the rest is still kept.
    """
    with store.read() as tx:
        kept = trust_records.kept_envelopes(tx, user_id)
    receptions = (_receive(store, receiver, sender, envelope, None, kept=True) for envelope in kept)
    return [each for each in receptions if each.outcome is not Outcome.WAITING_FOR_TRUST]


def inbound(tx: ReadTransaction, limit: int | None) -> list[InboundMessage]:
    """Return decrypted contents that the application has not confirmed, in the order of their arrival."""
    return [_marked(tx, each) for each in message_records.inbound(tx, limit)]


def _receive(
    store: Store,
    receiver: Receiver,
    sender: Sender,
    envelope: Envelope,
    position: DeliveryPosition | None,
    *,
    kept: bool = False,
) -> Reception:
    """Receive an envelope; one that was `kept` until a person decided is kept no longer if that was enough."""
    try:
        with store.write() as tx:
            number, notices, tend, call, new_own = receiving.receive(tx, receiver, envelope)
            if new_own:
                welcome(tx, sender, new_own)
            reception.commit_position(tx, position)
            if kept:
                trust_records.forget_envelope(tx, envelope)
    except (ProtocolError, TrustError, SessionNotFoundError) as error:
        return _refuse(store, receiver.now, envelope, error, position, kept)
    outcome = Outcome.CONSUMED if number is None else Outcome.STORED
    known = outcome, envelope.sender, envelope.envelope_id, number
    return Reception(*known, notices=notices, tend=tend, call=call)


def _refuse(
    store: Store, now: int, envelope: Envelope, error: E2EEError, position: DeliveryPosition | None, kept: bool
) -> Reception:
    with store.write() as tx:
        refused = reception.refuse(tx, envelope, error, position, now)
        if kept and refused.outcome is not Outcome.WAITING_FOR_TRUST:
            trust_records.forget_envelope(tx, envelope)
        return refused


def _marked(tx: ReadTransaction, message: InboundMessage) -> InboundMessage:
    contact = records.load_contact(tx, message.sender.user_id)
    removed = contact is not None and contact.device_list.content.device(message.sender.device_id) is None
    return replace(message, from_removed_device=True) if removed else message
