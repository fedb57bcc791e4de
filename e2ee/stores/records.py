"""Typed views of a transaction: account, counters, prekeys, contacts, own device lists.

Owns: keys, groups and values of these tables.
Does not know about: how a store keeps records (memory.py, sqlite.py), what they are used for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

from e2ee import persist
from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.errors import AccountNotFoundError, CorruptStateError, ProtocolError
from e2ee.limits import LIST_QUERY_MS, MAX_ENVELOPE, MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.primitives.rng import Rng
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import ListPosition, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import PreKeyId, UserId
from e2ee.wire.public_keys import AccountKey

_CONTACT_VERSION = 3
_OWN_HEARD_SEQ = b"own list heard"
_OWN_FORKED = b"own list forked"
_ACCOUNT = b"account"


def load_account(tx: ReadTransaction) -> Account:
    """Return this device's account.

    Raises:
        AccountNotFoundError: the store holds none.
    """
    data = tx.get(Table.ACCOUNT, _ACCOUNT)
    if data is None:
        raise AccountNotFoundError
    return persist.decode_account(data)


def save_account(tx: Transaction, account: Account) -> None:
    tx.put(Table.ACCOUNT, _ACCOUNT, persist.encode_account(account))


def counter(tx: ReadTransaction, name: bytes) -> int:
    """Return a counter's value; 0 before its first use."""
    data = tx.get(Table.COUNTERS, name)
    return int.from_bytes(data, "big") if data is not None else 0


def set_counter(tx: Transaction, name: bytes, value: int) -> None:
    tx.put(Table.COUNTERS, name, value.to_bytes(8, "big"))


def next_counter(tx: Transaction, name: bytes) -> int:
    """Add one to a counter and return it."""
    value = counter(tx, name) + 1
    set_counter(tx, name, value)
    return value


# --- prekeys -------------------------------------------------------------------------------------------------


def fresh_prekey_id(tx: Transaction, rng: Rng) -> PreKeyId:
    """Draw an id that this device never used, and mark it as used for ever."""
    while True:
        raw = rng(4)
        if tx.get(Table.USED_PREKEY_IDS, raw) is None:
            tx.put(Table.USED_PREKEY_IDS, raw, b"")
            return PreKeyId(int.from_bytes(raw, "big"))


def save_prekey(tx: Transaction, prekey: OwnPreKey) -> None:
    key = prekey.prekey_id.to_bytes(4, "big")
    group = bytes((prekey.kind,))
    tx.put(Table.PREKEYS, key, persist.encode_prekey(prekey), group=group, order=prekey.created_at)


def load_prekey(tx: ReadTransaction, prekey_id: PreKeyId) -> OwnPreKey | None:
    data = tx.get(Table.PREKEYS, prekey_id.to_bytes(4, "big"))
    return persist.decode_prekey(data) if data is not None else None


def delete_prekey(tx: Transaction, prekey_id: PreKeyId) -> None:
    tx.delete(Table.PREKEYS, prekey_id.to_bytes(4, "big"))


def prekeys(tx: ReadTransaction, kind: PreKeyKind) -> Iterator[OwnPreKey]:
    """Return the prekeys of a kind, oldest first."""
    for record in tx.scan(Table.PREKEYS, bytes((kind,))):
        yield persist.decode_prekey(record.value)


# --- contacts and device lists -------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Contact:
    """What we know of another user."""

    user_id: UserId
    account_key: AccountKey
    """Pinned at first contact."""
    device_list: VerifiedDeviceList
    """The newest list known."""
    heard_seq: int = 0
    """The highest seq that an authenticated message named; above the list's own, the list is fetched before sending."""
    forked: bool = False
    """Two lists contradicted each other: sending stops until a human decides."""
    queried_at: int = 0
    """When the server was last asked for a newer list, Unix milliseconds."""
    verified: bool = False
    """The safety number was compared, with this account key. Whether to show it as verified `is_assured` says."""
    changed: VerifiedDeviceList | None = None
    """A list under another account key: sending stops until a human decides."""
    gap: ListPosition | None = None
    """The last list seen before links that this device has not seen; None if it has seen all since the first."""

    def is_expired(self, now: int) -> bool:
        """Whether the newest list known is past its time: no device of the user has vouched for it lately."""
        return now >= self.device_list.content.expires_at

    def is_assured(self, now: int) -> bool:
        """Whether the contact may be shown as verified: it is, no link lacks, and its list has not expired."""
        return self.verified and self.gap is None and not self.is_expired(now)

    def is_to_be_asked_about(self, now: int) -> bool:
        """Whether its list is in doubt, and the server was not asked within the last hour."""
        return (self.gap is not None or self.is_expired(now)) and not 0 <= now - self.queried_at < LIST_QUERY_MS

    @property
    def is_stale(self) -> bool:
        """True if a newer list was heard of than the one known."""
        return self.heard_seq > self.device_list.content.seq

    def with_list(self, device_list: VerifiedDeviceList) -> "Contact":
        """Return the contact with a newer list. If it leaves links out, the list before becomes the gap."""
        leaves_out = device_list.content.seq > self.device_list.content.seq + 1
        gap = self.device_list.position if leaves_out and self.gap is None else self.gap
        return replace(self, device_list=device_list, gap=gap)


def load_contact(tx: ReadTransaction, user_id: UserId) -> Contact | None:
    """Return what is known of a user. Our own user is one, too: its other devices are judged by our own chain."""
    data = tx.get(Table.CONTACTS, user_id.encode())
    if data is not None:
        return _decode_contact(user_id, data)
    own = _own_chain_end(tx)
    return _own_contact(tx, own) if own is not None and own.content.user_id == user_id else None


def save_contact(tx: Transaction, contact: Contact) -> None:
    own = _own_chain_end(tx)
    if own is not None and own.content.user_id == contact.user_id:
        _save_own(tx, own, contact)
        return
    writer = Writer().u8(_CONTACT_VERSION).raw(contact.account_key.raw).u8(contact.forked)
    writer.u64(contact.heard_seq).u64(contact.queried_at).u8(contact.verified)
    writer.bytes32(b"" if contact.changed is None else contact.changed.signed.encode())
    writer.u8(contact.gap is not None)
    if contact.gap is not None:
        contact.gap.encode_into(writer)
    writer.raw(contact.device_list.signed.encode())
    tx.put(Table.CONTACTS, contact.user_id.encode(), writer.finish())


def contacts(tx: ReadTransaction) -> tuple[UserId, ...]:
    """Return all contacts' user ids, sorted."""
    return tuple(sorted(UserId(record.key.decode()) for record in tx.scan(Table.CONTACTS)))


def own_device_list(tx: ReadTransaction) -> VerifiedDeviceList:
    """Return the newest link of our own chain.

    Raises:
        AccountNotFoundError: there is none.
    """
    newest = _own_chain_end(tx)
    if newest is None:
        raise AccountNotFoundError
    return newest


def own_device_lists(tx: ReadTransaction) -> Iterator[VerifiedDeviceList]:
    """Return all links of our own chain that this device has, oldest first."""
    for record in tx.scan(Table.OWN_DEVICE_LISTS):
        yield _restore_list(record.value)


def own_device_list_at(tx: ReadTransaction, seq: int) -> VerifiedDeviceList | None:
    """Return one link of our own chain, if this device has it."""
    data = tx.get(Table.OWN_DEVICE_LISTS, seq.to_bytes(8, "big"))
    return None if data is None else _restore_list(data)


def save_own_device_list(tx: Transaction, device_list: VerifiedDeviceList) -> None:
    """Append a link to our own chain; earlier ones stay, so that a restored server can be given them again.

    When a device leaves, what was heard of newer lists counts no more: it may have been that device's word, of a list
    that never was. Those that stay say theirs again with every message.
    """
    seq, before = device_list.content.seq, _own_chain_end(tx)
    is_newer = before is not None and seq > before.content.seq
    if before is not None and is_newer and not {*before.content.devices} <= {*device_list.content.devices}:
        set_counter(tx, _OWN_HEARD_SEQ, seq)
    tx.put(Table.OWN_DEVICE_LISTS, seq.to_bytes(8, "big"), device_list.signed.encode(), order=seq)


def forget_own_device_lists(tx: Transaction, from_seq: int) -> None:
    """Forget the links of our own chain from one on."""
    for record in list(tx.scan_range(Table.OWN_DEVICE_LISTS, b"", (from_seq, MAX_TIMESTAMP))):
        tx.delete(Table.OWN_DEVICE_LISTS, record.key)


def forget_own_warnings(tx: Transaction) -> None:
    """Forget what devices under the old account key said about our own chain."""
    set_counter(tx, _OWN_HEARD_SEQ, 0)
    set_counter(tx, _OWN_FORKED, 0)


def _own_chain_end(tx: ReadTransaction) -> VerifiedDeviceList | None:
    newest = tx.scan(Table.OWN_DEVICE_LISTS, limit=1, newest_first=True)
    return _restore_list(newest[0].value) if newest else None


def _own_contact(tx: ReadTransaction, own: VerifiedDeviceList) -> Contact:
    heard_seq, forked = counter(tx, _OWN_HEARD_SEQ), counter(tx, _OWN_FORKED) > 0
    return Contact(own.content.user_id, own.content.account_key, own, heard_seq, forked, verified=True)


def _save_own(tx: Transaction, own: VerifiedDeviceList, contact: Contact) -> None:
    """Take over what another device of ours said of our chain. A link is appended if none lacks before it."""
    learnt = contact.device_list
    set_counter(tx, _OWN_HEARD_SEQ, max(contact.heard_seq, learnt.content.seq))
    set_counter(tx, _OWN_FORKED, int(contact.forked))
    if learnt.content.seq == own.content.seq + 1:
        save_own_device_list(tx, learnt)


def _decode_contact(user_id: UserId, data: bytes) -> Contact:
    reader = Reader(data)
    try:
        version, account_key = reader.u8(), AccountKey.decode(reader)
        if not 1 <= version <= _CONTACT_VERSION:
            raise CorruptStateError(f"contact has layout version {version}")
        forked, heard_seq, queried_at = reader.flag(), reader.u64(), reader.u64()
        verified, changed = (reader.flag(), reader.bytes32(MAX_ENVELOPE)) if version > 1 else (False, b"")
        gap = ListPosition.decode(reader) if version > 2 and reader.flag() else None
        device_list = _restore_list(data[reader.position() :])
    except ProtocolError:
        raise CorruptStateError("contact does not decode") from None
    waiting = _restore_list(changed) if changed else None
    return Contact(user_id, account_key, device_list, heard_seq, forked, queried_at, verified, waiting, gap)


@lru_cache(maxsize=128)  # a message reads its contact's list several times, and the next one mostly the same again
def _restore_list(data: bytes) -> VerifiedDeviceList:
    if len(data) > MAX_ENVELOPE:
        raise CorruptStateError("device list is too long")
    try:
        signed = SignedDeviceList.decode(data)
    except ProtocolError:
        raise CorruptStateError("device list does not decode") from None
    # Not verified again: only verified lists are stored, and the store authenticates what it returns.
    return VerifiedDeviceList(signed.unverified, signed)
