"""A store that was replaced by an older copy of itself, noticed by what the relay remembers.

Owns: the comparison of protocol.md section 12.7, and what follows from it.
Does not know about: the network; how sessions are made anew.

Ciphertext and acknowledgements leave only after their counters were committed, so no crash looks like this. A relay
that hides a rollback is not found out; random nonces limit what it gains.
"""

from typing import NamedTuple

from e2ee import prekey_supply
from e2ee.limits import FRESH_SESSION_MS
from e2ee.ports import ReadTransaction, Transaction
from e2ee.stores import message_records, records, sent_records, session_records

_RESET_AT = b"rollback reset"
_RESET_DUE = b"rollback reset due"


class RelayStatement(NamedTuple):
    """What the relay states when a connection begins."""

    epoch: int
    settled_through: int
    """Nothing up to this seq will be delivered any more."""
    accepted_counter: int = 0
    """The highest n that it accepted from this device."""
    acked_epoch: int = 0
    acked_seq: int = 0
    """The highest position that this device acknowledged, and its epoch."""


def compare(tx: Transaction, statement: RelayStatement) -> None:
    """Compare the statement with the store; take over the higher counters, so that no n is used twice."""
    # Not with the n of now: what was queued since the store was put back would hide what it lost.
    sent_more = statement.accepted_counter > message_records.highest_released(tx)
    acked = statement.acked_epoch, statement.acked_seq
    acked_more = acked > message_records.highest_committed(tx)
    if sent_more:
        message_records.raise_send_counter(tx, statement.accepted_counter)
    if acked_more:
        message_records.note_acked(tx, *acked)
    if sent_more or acked_more:
        records.set_counter(tx, _RESET_DUE, 1)


def reset_in(tx: ReadTransaction, now: int) -> int | None:
    """Return after how many milliseconds a reset is due: an hour after the last one; None if there was no rollback."""
    if not records.counter(tx, _RESET_DUE):
        return None
    since = now - records.counter(tx, _RESET_AT)
    # A clock that was set back does not make it longer.
    return FRESH_SESSION_MS - since if 0 <= since < FRESH_SESSION_MS else 0


def reset_if_due(tx: Transaction, now: int) -> bool:
    """End sending on all sessions if that is due; return whether it was done.

    What waits in the outbox was encrypted with keys that may be used up: it is encrypted anew where its content is
    known. The server may offer prekeys that this store does not hold, so new ones take their place.
    """
    if reset_in(tx, now) != 0:
        return False
    records.set_counter(tx, _RESET_DUE, 0)
    records.set_counter(tx, _RESET_AT, now)
    session_records.end_sending(tx)
    prekey_supply.replace_all(tx, now)
    encrypt_outbox_anew(tx, now)
    return True


def encrypt_outbox_anew(tx: Transaction, now: int) -> None:
    """Take out of the outbox what can be encrypted again, and ask for that; the rest stays."""
    for entry in message_records.outbox(tx):
        sent = sent_records.sent_envelope(tx, entry.envelope_id)
        if sent is None:
            continue
        if sent.original is None or sent_records.request_resend(tx, sent, entry.recipient, now):
            message_records.remove_outbox(tx, entry.envelope_id)
