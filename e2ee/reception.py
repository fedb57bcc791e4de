"""What becomes of an envelope that came in.

Owns: the outcomes, and what is committed of an envelope that was refused.
Does not know about: how one is decrypted (receiving.py).
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, final

from e2ee import healing
from e2ee.errors import AccountKeyChangedError, DeviceListForkError, DuplicateMessageError, E2EEError
from e2ee.notices import DeviceListsForked, Notice
from e2ee.ports import Transaction
from e2ee.stores import message_records, trust_records
from e2ee.trust import mark_forked
from e2ee.wire.call_signal import CallSignal
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId


class DeliveryPosition(NamedTuple):
    """Where the relay's inbox held an envelope; committed together with what the envelope caused."""

    epoch: int
    seq: int


@final
class Outcome(Enum):
    """What became of a received envelope. In every case it may be acknowledged."""

    STORED = "stored"
    """An inbound row waits for the application."""
    CONSUMED = "consumed"
    """It authenticated and holds nothing for the application, or a message that it has already seen."""
    DUPLICATE = "duplicate"
    """The same ciphertext was committed before."""
    WAITING_FOR_TRUST = "waiting for trust"
    """Sent under a changed account key; kept as ciphertext until a human decides."""
    UNREADABLE = "unreadable"
    """Refused; recorded, and nothing else changed."""


@final
@dataclass(frozen=True, slots=True)
class Reception:
    """The result of `Messenger.receive`."""

    outcome: Outcome
    sender: DeviceAddress | None
    """The envelope's claim; proven only for STORED and CONSUMED."""
    envelope_id: EnvelopeId | None
    number: int | None = None
    """Of the inbound row, for STORED."""
    error: E2EEError | None = None
    """Why, for WAITING_FOR_TRUST and UNREADABLE."""
    notices: tuple[Notice, ...] = ()
    tend: bool = False
    """Whether something may be due by itself now: call `Messenger.tend`, at once or when more has come in."""
    call: CallSignal | None = None
    """A signal of a call between `sender` and this user, proven. It is not stored: act on it now."""


def refuse(
    tx: Transaction, envelope: Envelope, error: E2EEError, position: DeliveryPosition | None, now: int
) -> Reception:
    """Record that an envelope was refused, and why, so that acknowledging it loses no record of it."""
    outcome, tend = Outcome.UNREADABLE, False
    if isinstance(error, DuplicateMessageError):
        outcome = Outcome.DUPLICATE
    elif isinstance(error, AccountKeyChangedError) and trust_records.keep_envelope(tx, envelope, now):
        outcome = Outcome.WAITING_FOR_TRUST
    else:
        message_records.remember_unreadable(tx, envelope, error.code, now)
        tend = healing.note_unreadable(tx, envelope, error, now)
    notices: tuple[Notice, ...] = ()
    if isinstance(error, DeviceListForkError) and mark_forked(tx, envelope.sender.user_id):
        notices = (DeviceListsForked(envelope.sender.user_id),)
    commit_position(tx, position)
    return Reception(outcome, envelope.sender, envelope.envelope_id, error=error, notices=notices, tend=tend)


def commit_position(tx: Transaction, position: DeliveryPosition | None) -> None:
    """Note that what the relay holds at a position was dealt with; None for what came another way."""
    if position is not None:
        message_records.commit_delivery(tx, position.epoch, position.seq)
