"""Typed views of a transaction: sessions, their skipped keys, first messages that may not come twice.

Owns: keys, groups and values of these tables; when a skipped key dies.
Does not know about: which session is used for what.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from e2ee import persist
from e2ee.limits import (
    LATE_ENVELOPE_MS,
    MAX_EVICTED_MARKS,
    MAX_REPLAY_ENTRIES,
    MAX_SESSIONS_PER_DEVICE,
    MAX_SKIPPED_KEYS,
    MAX_TIMESTAMP,
    SKIPPED_KEY_LIFETIME_MS,
    SKIPPED_KEY_RECEIVES,
)
from e2ee.ports import ReadTransaction, Record, Table, Transaction
from e2ee.ratchet.skipped_keys import Evicted, FindSkipped, Ratchet, SkippedKey, SkippedPosition
from e2ee.session import Session
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId

_LIVE, _EVICTED = b"L", b"E"
_EVICTION_STEP = 32
_MEETING = b"meeting "


def save_session(tx: Transaction, session: Session) -> None:
    tx.put(
        Table.SESSIONS,
        session.session_id,
        persist.encode_session(session),
        group=session.peer.encode(),
        order=session.origin.created,
    )


def sessions_with(tx: ReadTransaction, peer: DeviceAddress) -> list[Session]:
    """Return the sessions with a device, the highest (created, T) first."""
    found = [persist.decode_session(record.value) for record in tx.scan(Table.SESSIONS, peer.encode())]
    return sorted(found, key=lambda session: session.precedence, reverse=True)


def sending_session(tx: ReadTransaction, peer: DeviceAddress, now: int) -> Session | None:
    """Return the session that both ends send on (protocol.md section 12.1), or None.

    None older than a dead one: it may have leaked before, and its first message may have been kept back until now.
    """
    least = 0
    for session in sessions_with(tx, peer):
        if session.dead:
            least = max(least, session.origin.created)
        elif session.may_send(now):
            return session if session.origin.created >= least else None
    return None


def add_session(tx: Transaction, session: Session) -> None:
    """Save a new session; beyond 20 with one device, the lowest in order goes."""
    save_session(tx, session)
    for surplus in sessions_with(tx, session.peer)[MAX_SESSIONS_PER_DEVICE:]:
        delete_session(tx, surplus)


def end_sending(tx: Transaction) -> None:
    """Mark all sessions dead: they only receive from now on."""
    for record in tx.scan(Table.SESSIONS):
        session = persist.decode_session(record.value)
        if not session.dead:
            save_session(tx, session.mark_dead())


class Meeting(NamedTuple):
    """A session with a device of ours that is to come about. Times are Unix milliseconds."""

    since: int
    """When it was first to be started."""
    due: int
    """When it is tried next."""


def meeting(tx: ReadTransaction, device: DeviceAddress) -> Meeting | None:
    """Return how things stand with the session that is to be started with a device of ours; None if none is."""
    data = tx.get(Table.COUNTERS, _MEETING + device.encode())
    return None if data is None else Meeting(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))


def note_meeting(tx: Transaction, device: DeviceAddress, planned: Meeting) -> None:
    value = b"".join(min(each, MAX_TIMESTAMP).to_bytes(8, "big") for each in planned)
    tx.put(Table.COUNTERS, _MEETING + device.encode(), value)


def settle_meeting(tx: Transaction, device: DeviceAddress) -> None:
    """Note that there is a session."""
    tx.delete(Table.COUNTERS, _MEETING + device.encode())


def load_session(tx: ReadTransaction, session_id: bytes) -> Session | None:
    data = tx.get(Table.SESSIONS, session_id)
    return persist.decode_session(data) if data is not None else None


def owe_answer(tx: Transaction, session: Session, now: int) -> None:
    """Note that a post-quantum payload came on a session, unless an earlier one waits for an answer already."""
    if tx.get(Table.OWED_ANSWERS, session.session_id) is None:
        tx.put(Table.OWED_ANSWERS, session.session_id, b"", order=now)


def settle_answer(tx: Transaction, session_id: bytes) -> None:
    """Note that something was sent on a session since, or that nothing will be."""
    tx.delete(Table.OWED_ANSWERS, session_id)


def owed_answers(tx: ReadTransaction) -> list[tuple[bytes, int]]:
    """Return the ids of sessions on which an answer is owed, and since when, Unix milliseconds."""
    return [(record.key, record.order) for record in tx.scan(Table.OWED_ANSWERS)]


def delete_session(tx: Transaction, session: Session) -> None:
    """Delete a session with all its skipped keys."""
    tx.delete(Table.SESSIONS, session.session_id)
    settle_answer(tx, session.session_id)
    for ratchet in Ratchet:
        for state in (_LIVE, _EVICTED):
            tx.delete_group(Table.SKIPPED_KEYS, _group(session, ratchet, state))


def delete_sessions_of_user(tx: Transaction, user_id: UserId) -> None:
    """Delete the sessions with all devices of a user, whether they are listed still or not."""
    for record in tx.scan(Table.SESSIONS):
        session = persist.decode_session(record.value)
        if session.peer.user_id == user_id:
            delete_session(tx, session)


def delete_all_sessions(tx: Transaction) -> None:
    """Delete the sessions with everybody."""
    for record in tx.scan(Table.SESSIONS):
        delete_session(tx, persist.decode_session(record.value))


def delete_superseded(tx: Transaction, now: int) -> None:
    """Delete sessions that have only been receiving for 45 days, because a higher one took over before that."""
    for record in tx.scan(Table.SESSIONS):
        session = persist.decode_session(record.value)
        successor = sending_session(tx, session.peer, now)
        if successor is None or successor.precedence <= session.precedence:
            continue
        if now - successor.origin.established_at > LATE_ENVELOPE_MS:
            delete_session(tx, session)


def skipped_lookup(tx: ReadTransaction, session: Session) -> FindSkipped:
    """Return the lookup into a session's skipped keys that the ratchets ask."""

    def find(position: SkippedPosition) -> bytes | Evicted | None:
        value = tx.get(Table.SKIPPED_KEYS, _key(session, position))
        if value is None:
            return None
        return value[:32] if value else Evicted.EVICTED

    return find


def add_skipped(tx: Transaction, session: Session, keys: Sequence[SkippedKey], now: int) -> None:
    """Add a message's skipped keys, `session` being the state after it; on the occasion those beyond 2,000 and those
    overtaken by 2,000 others are evicted. Age waits for `evict_old_skipped`.
    """
    stored_at = now.to_bytes(8, "big")
    for ratchet in {each.position.ratchet for each in keys}:
        of_ratchet = [each for each in keys if each.position.ratchet is ratchet]
        _mark_evicted(tx, session, ratchet, of_ratchet[:-MAX_SKIPPED_KEYS])
        group = _group(session, ratchet, _LIVE)
        for each in of_ratchet[-MAX_SKIPPED_KEYS:]:
            value = each.key + stored_at
            tx.put(Table.SKIPPED_KEYS, _key(session, each.position), value, group=group, order=session.receives)
        _evict(tx, session, ratchet, tx.count(Table.SKIPPED_KEYS, group) - MAX_SKIPPED_KEYS, 0)


def _mark_evicted(tx: Transaction, session: Session, ratchet: Ratchet, keys: Sequence[SkippedKey]) -> None:
    """Leave marks of keys that would be evicted at once: a gap of dropped rows may be wider than the map."""
    if not keys:
        return
    evicted = _group(session, ratchet, _EVICTED)
    for each in keys[-MAX_EVICTED_MARKS:]:
        tx.put(Table.SKIPPED_KEYS, _key(session, each.position), b"", group=evicted, order=session.receives)
    _forget_marks(tx, evicted)


def use_skipped(tx: Transaction, session: Session, position: SkippedPosition) -> None:
    """Delete the key that a message used up."""
    tx.delete(Table.SKIPPED_KEYS, _key(session, position))


def evict_old_skipped(tx: Transaction, now: int) -> None:
    """Evict the skipped keys of all sessions that have lived for 7 days.

    Call it only after the inbox was drained once since coming online: the messages may be waiting there.
    """
    for record in tx.scan(Table.SESSIONS):
        session = persist.decode_session(record.value)
        for ratchet in Ratchet:
            _evict(tx, session, ratchet, 0, now - SKIPPED_KEY_LIFETIME_MS)


def forget_closed_chains(tx: Transaction, now: int) -> None:
    """Drop post-quantum chains that were closed 7 days ago, in all sessions.

    Call it only after the inbox was drained once since coming online: their messages may be waiting there.
    """
    for record in tx.scan(Table.SESSIONS):
        session = persist.decode_session(record.value)
        if (kept := session.forget_closed_chains(now)) is not session:
            save_session(tx, kept)


def _evict(tx: Transaction, session: Session, ratchet: Ratchet, surplus: int, stored_before: int) -> None:
    """Drop keys that are surplus, overtaken or too old. What remains is a mark, so the loss has a name."""
    live, evicted = _group(session, ratchet, _LIVE), _group(session, ratchet, _EVICTED)
    dropped = 0
    for record in _oldest_first(tx, live):
        too_old = int.from_bytes(record.value[32:], "big") < stored_before
        overtaken = session.receives - record.order > SKIPPED_KEY_RECEIVES
        if not (dropped < surplus or too_old or overtaken):
            break
        tx.put(Table.SKIPPED_KEYS, record.key, b"", group=evicted, order=record.order)
        dropped += 1
    if dropped:
        _forget_marks(tx, evicted)


def _forget_marks(tx: Transaction, evicted: bytes) -> None:
    """Keep the newest 4,000 marks."""
    excess = tx.count(Table.SKIPPED_KEYS, evicted) - MAX_EVICTED_MARKS
    if excess > 0:
        for record in tx.scan(Table.SKIPPED_KEYS, evicted, limit=excess):
            tx.delete(Table.SKIPPED_KEYS, record.key)


def _oldest_first(tx: Transaction, live: bytes) -> Iterator[Record]:
    """Yield the keys of a group while the caller takes each away, a few at a time: mostly the first one may stay."""
    while some := tx.scan(Table.SKIPPED_KEYS, live, limit=_EVICTION_STEP):
        yield from some


def remember_handshake(tx: Transaction, last_resort_id: PreKeyId, handshake_hash: bytes, now: int) -> None:
    """Remember H of a first message that used no one-time key at all, for as long as its KEM key lives."""
    tx.put(Table.REPLAYS, handshake_hash, b"", group=_replay_group(last_resort_id), order=now)


def is_replay(tx: ReadTransaction, handshake_hash: bytes) -> bool:
    return tx.get(Table.REPLAYS, handshake_hash) is not None


def replay_memory_is_full(tx: ReadTransaction, last_resort_id: PreKeyId) -> bool:
    """Whether this last-resort key must refuse further handshakes and be rotated."""
    return tx.count(Table.REPLAYS, _replay_group(last_resort_id)) >= MAX_REPLAY_ENTRIES


def forget_handshakes(tx: Transaction, last_resort_id: PreKeyId) -> None:
    """Drop the memory of a last-resort key whose private half is deleted."""
    tx.delete_group(Table.REPLAYS, _replay_group(last_resort_id))


def _replay_group(last_resort_id: PreKeyId) -> bytes:
    return last_resort_id.to_bytes(4, "big")


def _group(session: Session, ratchet: Ratchet, state: bytes) -> bytes:
    return session.session_id + bytes((ratchet,)) + state


def _key(session: Session, position: SkippedPosition) -> bytes:
    return session.session_id + bytes((position.ratchet,)) + position.chain + position.chain_index.to_bytes(4, "big")
