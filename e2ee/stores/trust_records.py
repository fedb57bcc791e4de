"""Typed views of a transaction: what people decided about whom to trust, and what waits for a decision.

Owns: keys and values of the decisions, the policy, the envelopes that came under a changed account key, the devices
that left their users' lists, and which of our own devices are still to be told of our contacts.
Does not know about: what a decision changes (trust.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from e2ee.errors import CorruptStateError, ProtocolError
from e2ee.limits import MAX_CLOSED_KEYS_TOLD, MAX_PENDING_TRUST, MAX_TIMESTAMP, MAX_TRUST_DECISIONS
from e2ee.ports import ReadTransaction, Record, Table, Transaction
from e2ee.stores.records import counter, load_contact, next_counter, set_counter
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, UserId
from e2ee.wire.public_keys import AccountKey

_VERSION = 1
_NUMBER = b"trust decision"
_POLICY = b"trust policy"
_REMOVED = b"removed"
_OWED = b"contacts owed"


@final
class TrustPolicy(IntEnum):
    """Whom this device sends to. Receiving is the same under each."""

    FIRST_USE = 0
    """Everybody under the account key seen first; a changed key waits for a human."""
    VERIFIED_ONLY = 1
    """Contacts alone whose safety number was compared."""
    UNATTENDED = 2
    """Like FIRST_USE, and a changed key is accepted at once: for bots, whom nobody looks after."""


@final
class Decision(IntEnum):
    """What was decided, or seen, about an account key."""

    PINNED = 1
    """First use."""
    CHANGE_SEEN = 2
    CHANGE_ACCEPTED = 3
    CHANGE_DECLINED = 4
    VERIFIED = 5
    VERIFICATION_WITHDRAWN = 6
    KEY_CLOSED = 7
    """The key itself signed a list without devices: it is used no more."""


ABOUT_VERIFICATION: Final = frozenset({Decision.VERIFIED, Decision.VERIFICATION_WITHDRAWN})


@final
@dataclass(frozen=True, slots=True)
class TrustDecision:
    """One line of the history of a contact. `at` is Unix milliseconds; `key` the account key it is about."""

    user_id: UserId
    decision: Decision
    key: AccountKey
    at: int


def policy(tx: ReadTransaction) -> TrustPolicy:
    """Return this device's policy."""
    try:
        return TrustPolicy(counter(tx, _POLICY))
    except ValueError:
        raise CorruptStateError("unknown trust policy") from None


def set_policy(tx: Transaction, value: TrustPolicy) -> None:
    set_counter(tx, _POLICY, value)


def was_policy_chosen(tx: ReadTransaction) -> bool:
    """Say whether a policy was ever set on this device."""
    return tx.get(Table.COUNTERS, _POLICY) is not None


def owe_contacts(tx: Transaction, devices: Iterable[DeviceAddress]) -> None:
    """Note that devices of our own are to be told of our contacts."""
    for device in devices:
        tx.put(Table.COUNTERS, _OWED + device.encode(), device.encode(), group=_OWED)


def contacts_owed(tx: ReadTransaction) -> list[DeviceAddress]:
    """Return the devices of our own that are still to be told of our contacts."""
    return [DeviceAddress.decode(Reader(each.value)) for each in tx.scan(Table.COUNTERS, _OWED)]


def settle_contacts(tx: Transaction, device: DeviceAddress) -> None:
    """Note that a device was told, or never will be."""
    tx.delete(Table.COUNTERS, _OWED + device.encode())


def record(tx: Transaction, decision: TrustDecision) -> None:
    """Add a line to the history of a contact. A full one loses one for it that changes nothing, if there is such."""
    _make_room(tx, decision)
    value = Writer().u8(_VERSION).u8(decision.decision).raw(decision.key.raw).u64(decision.at).finish()
    number = next_counter(tx, _NUMBER)
    key, group = number.to_bytes(8, "big"), decision.user_id.encode()
    tx.put(Table.TRUST_DECISIONS, key, value, group=group, order=number)


def _make_room(tx: Transaction, new: TrustDecision) -> None:
    """Delete a line if there are 128 of a contact: what the new one supersedes; else a change that was merely seen,
    which is what a server can cause; else what is about another key than the pinned one.

    Of the words about a verification the latest counts, which is not always the newest line: that one stays. So does
    what was decided for the pinned key, and which keys are closed.
    """
    group = new.user_id.encode()
    if tx.count(Table.TRUST_DECISIONS, group) < MAX_TRUST_DECISIONS:
        return
    contact = load_contact(tx, new.user_id)
    lines = [(record.key, _decode(record)) for record in tx.scan(Table.TRUST_DECISIONS, group)]
    open_lines = [(key, each) for key, each in lines if each.decision is not Decision.KEY_CLOSED]
    about = ABOUT_VERIFICATION if new.decision in ABOUT_VERIFICATION else {new.decision}
    same = [(key, each) for key, each in open_lines if each.key == new.key and each.decision in about]
    superseded = sorted((line for line in same if line[1].at <= new.at), key=lambda line: line[1].at)
    seen = [(key, each) for key, each in open_lines if each.decision is Decision.CHANGE_SEEN]
    others = [(key, each) for key, each in open_lines if contact is None or each.key != contact.account_key]
    for key, _ in (*superseded, *seen, *others)[:1]:
        tx.delete(Table.TRUST_DECISIONS, key)


def worth_restoring(history: Iterable[TrustDecision], pinned: AccountKey) -> list[TrustDecision]:
    """Choose what a new device takes over of the history of one contact, as another one wrote it: at most 128 lines.

    Each line once, in its order; in a time that grows with their number alone. Of more than 128 the first 64 closed
    keys stay, and the latest word on each question about a key, so far as there is room: first what was decided about
    the pinned key, then the newest about others, then changes that were merely seen.
    """
    lines = list(dict.fromkeys(history))
    if len(lines) <= MAX_TRUST_DECISIONS:
        return lines
    closed, latest = dict[AccountKey, int](), dict[tuple[AccountKey, Decision], int]()
    for at, each in enumerate(lines):
        if each.decision is Decision.KEY_CLOSED:
            closed.setdefault(each.key, at)
        else:
            question = each.key, Decision.VERIFIED if each.decision in ABOUT_VERIFICATION else each.decision
            if question not in latest or lines[latest[question]].at <= each.at:
                latest[question] = at

    def rank(at: int) -> tuple[bool, bool, int]:
        return lines[at].decision is Decision.CHANGE_SEEN, lines[at].key != pinned, -at

    kept = list(closed.values())[:MAX_CLOSED_KEYS_TOLD]
    kept += sorted(latest.values(), key=rank)[: MAX_TRUST_DECISIONS - len(kept)]
    return [lines[at] for at in sorted(kept)]


def decisions(tx: ReadTransaction, user_id: UserId | None = None) -> list[TrustDecision]:
    """Return the history, of one user or of all, oldest first."""
    group = None if user_id is None else user_id.encode()
    return [_decode(each) for each in tx.scan(Table.TRUST_DECISIONS, group)]


def was_closed(tx: ReadTransaction, user_id: UserId, key: AccountKey) -> bool:
    """Say whether a user's account key has signed a list without devices, its last."""
    return any(each.key == key and each.decision is Decision.KEY_CLOSED for each in decisions(tx, user_id))


def keep_envelope(tx: Transaction, envelope: Envelope, now: int) -> bool:
    """Keep a first message under a changed account key as ciphertext; return False if too many wait already."""
    group = envelope.sender.user_id.encode()
    # The id alone is the server's to choose: one sender's envelope must not replace another's.
    key = envelope.envelope_id.raw + envelope.sender.encode()
    if tx.get(Table.PENDING_TRUST, key) is None and tx.count(Table.PENDING_TRUST, group) >= MAX_PENDING_TRUST:
        return False
    tx.put(Table.PENDING_TRUST, key, envelope.encode(), group=group, order=now)
    return True


def kept_envelopes(tx: ReadTransaction, user_id: UserId) -> list[Envelope]:
    """Return what waits for a decision about a user, oldest first."""
    return [Envelope.decode(each.value) for each in tx.scan(Table.PENDING_TRUST, user_id.encode())]


def forget_envelope(tx: Transaction, envelope: Envelope) -> None:
    tx.delete(Table.PENDING_TRUST, envelope.envelope_id.raw + envelope.sender.encode())


def waiting_users(tx: ReadTransaction) -> tuple[UserId, ...]:
    """Return of whom something waits for a decision, sorted."""
    return tuple(sorted({UserId(each.group.decode()) for each in tx.scan(Table.PENDING_TRUST)}))


def note_removed(tx: Transaction, device: DeviceAddress, now: int) -> None:
    """Note that a device left its user's list, unless that is noted."""
    if removed_at(tx, device) is None:
        now = min(now, MAX_TIMESTAMP)
        tx.put(Table.REMOVED_DEVICES, device.encode(), now.to_bytes(8, "big"), group=_REMOVED, order=now)


def removed_at(tx: ReadTransaction, device: DeviceAddress) -> int | None:
    """Return when it was noted that a device left its user's list, Unix milliseconds; None if it was not."""
    noted = tx.get(Table.REMOVED_DEVICES, device.encode())
    return None if noted is None else int.from_bytes(noted, "big")


def removed_devices(tx: ReadTransaction, user_id: UserId) -> list[DeviceAddress]:
    """Return the devices of a user of which it is noted that they left the user's list."""
    noted = (DeviceAddress.decode(Reader(each.key)) for each in tx.scan(Table.REMOVED_DEVICES, _REMOVED))
    return [each for each in noted if each.user_id == user_id]


def removed_before(tx: ReadTransaction, deadline: int) -> list[DeviceAddress]:
    """Return the devices of which it was noted before a time, Unix milliseconds, that they left."""
    if deadline <= 0:
        return []
    found = tx.scan_range(Table.REMOVED_DEVICES, _REMOVED, (0, deadline - 1))
    return [DeviceAddress.decode(Reader(each.key)) for each in found]


def removed_in_future(tx: ReadTransaction, now: int) -> list[DeviceAddress]:
    """Return the devices that are noted to have left later than now: the clock was set back."""
    found = tx.scan_range(Table.REMOVED_DEVICES, _REMOVED, (min(now, MAX_TIMESTAMP - 1) + 1, MAX_TIMESTAMP))
    return [DeviceAddress.decode(Reader(each.key)) for each in found]


def forget_removed(tx: Transaction, device: DeviceAddress) -> None:
    tx.delete(Table.REMOVED_DEVICES, device.encode())


def _decode(stored: Record) -> TrustDecision:
    reader = Reader(stored.value)
    try:
        version, decision, key, at = reader.u8(), reader.u8(), AccountKey.decode(reader), reader.u64()
        reader.finish()
        if version != _VERSION:
            raise CorruptStateError(f"trust decision has layout version {version}")
        return TrustDecision(UserId(stored.group.decode()), Decision(decision), key, at)
    except (ProtocolError, ValueError):
        raise CorruptStateError("trust decision does not decode") from None
