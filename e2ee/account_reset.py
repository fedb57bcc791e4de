"""A new account key for a user whose device was lost or stolen (protocol.md section 4.2).

Every device holds the account's private key, so a device that somebody else may have read is not got rid of by taking
it out of the list: it could sign itself in again. The old key signs a last, empty list; the new key's first list
follows it, and holds this device alone.

Whoever lost all devices and the recovery code has no old key to sign anything with. A new device then makes the new
key, whose first list follows the newest one that the server has. Contacts see a changed key, as after any reset, but
for one thing: the old key was not closed, so somebody who has it can still make lists that a contact who has not
accepted the new key takes in.

Owns: the draft, which is stored before it is published so that no crash loses the key that the server accepted; what
ends here once it was accepted; the chain of an account that starts over.
Does not know about: the network, how contacts decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, final

from e2ee import persist, rollback
from e2ee.account import Account
from e2ee.errors import CorruptStateError, MalformedMessageError, ProtocolError
from e2ee.limits import DEVICE_LIST_LIFETIME_MS, MAX_ENVELOPE
from e2ee.ports import ReadTransaction, Store, Table, Transaction
from e2ee.primitives.rng import Rng
from e2ee.private_keys import AccountKeyPair
from e2ee.stores import message_records, records, session_records
from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import DeviceList, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import UserId

_DRAFT: Final = b"account reset"
_STARTING_OVER: Final = b"starting over"
_VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True)
class AccountReset:
    """A draft: the account as it will be, and the two lists to publish together."""

    account: Account
    closing: VerifiedDeviceList
    """Empty, and the last one under the old key."""
    first: VerifiedDeviceList
    """Of the new key: this device alone."""


@final
class AccountResets:
    """Reached as `Messenger.account_reset`; every method is one transaction.

    `replace_account` is given the account that has the new key, once the server has accepted it.
    """

    def __init__(
        self,
        store: Store,
        account: Callable[[], Account],
        replace_account: Callable[[Account], None],
        rng: Rng,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._account, self._replace, self._rng, self._clock = store, account, replace_account, rng, clock

    def draft(self) -> AccountReset:
        """Make a new account key because a device was lost or stolen, and the two lists that announce it.

        The draft is stored; publish both lists together, then call `accepted`. Calling this again, after
        a crash or after a newer list of ours was learned, gives the same key.
        """
        with self._store.write() as tx:
            return draft(tx, self._account(), self._clock(), self._rng)

    def pending(self) -> AccountReset | None:
        """Return the draft that was made and not yet accepted, as far as is known."""
        with self._store.read() as tx:
            return pending(tx)

    def accepted(self) -> list[OutboxEntry]:
        """The server has accepted the draft: the account has the new key, all sessions end.

        What waited in the outbox is encrypted anew once sessions can be started. What cannot be is returned, and is
        among the `Messenger.outbox.failed`.

        Raises:
            ValueError: there is no draft.
        """
        with self._store.write() as tx:
            account, lost = accepted(tx, self._clock())
        self._replace(account)
        return lost


def pending(tx: ReadTransaction) -> AccountReset | None:
    """Return the draft that was stored and not yet accepted, as far as this device knows."""
    data = tx.get(Table.ACCOUNT, _DRAFT)
    return None if data is None else _decode(data)


def draft(tx: Transaction, account: Account, now: int, rng: Rng) -> AccountReset:
    """Return a draft that follows our newest list, and store it. One of before keeps its key."""
    newest, known = records.own_device_list(tx), pending(tx)
    if known is not None and known.closing.content.previous_hash == newest.content.hash():
        return known
    pair = AccountKeyPair.generate(rng) if known is None else known.account.account_key_pair
    fresh = replace(account, account_key_pair=pair)
    closing = account.sign_device_list(_following(newest.content, account, now, with_device=False))
    first = fresh.sign_device_list(_following(closing.content, fresh, now, with_device=True))
    drafted = AccountReset(fresh, closing, first)
    tx.put(Table.ACCOUNT, _DRAFT, _encode(drafted))
    return drafted


def accepted(tx: Transaction, now: int) -> tuple[Account, list[OutboxEntry]]:
    """Take the draft over, which the server accepted: the new key, both lists. All sessions end.

    What waits in the outbox was encrypted under the old key: it is encrypted anew where its content is known. Return
    the account, and what is lost of the outbox.

    Raises:
        ValueError: there is no draft.
    """
    reset = pending(tx)
    if reset is None:
        raise ValueError("there is no draft of a new account key")
    for device in records.own_device_list(tx).content.addresses():
        session_records.settle_meeting(tx, device)
    records.save_account(tx, reset.account)
    # A device under the old key may have told us of further lists meanwhile; the server has accepted none of them.
    records.forget_own_device_lists(tx, reset.closing.content.seq)
    for each in (reset.closing, reset.first):
        records.save_own_device_list(tx, each)
    records.forget_own_warnings(tx)
    session_records.delete_all_sessions(tx)
    rollback.encrypt_outbox_anew(tx, now)
    lost = message_records.outbox(tx)
    for entry in lost:
        message_records.give_up(tx, entry, "account_reset", now)
    tx.delete(Table.ACCOUNT, _DRAFT)
    return reset.account, lost


# --- without the old key -------------------------------------------------------------------------------------


def start_over(tx: Transaction, account: Account, lists: Sequence[SignedDeviceList], now: int) -> VerifiedDeviceList:
    """Store an account under a new key, whose first list follows the chain that the server has; return that list.

    May be called again with a longer chain, for the same account: nobody has accepted the first list of before. The
    links are not ours, and stored only so that a server that loses them can be given them again.

    Raises:
        MalformedMessageError: the links do not follow one another from the first.
        InvalidSignatureError: not lists of this user, or wrong signatures.
        ValueError: there are none: the server knows no account to be reset.
    """
    chain = _chain(account.address.user_id, lists)
    if not chain:
        raise ValueError(f"there is no account of {account.address.user_id} that could be reset")
    first = account.sign_device_list(_following(chain[-1].content, account, now, with_device=True))
    records.save_account(tx, account)
    records.forget_own_device_lists(tx, 0)
    for each in (*chain, first):
        records.save_own_device_list(tx, each)
    records.set_counter(tx, _STARTING_OVER, 1)
    return first


def is_starting_over(tx: ReadTransaction) -> bool:
    """Whether the newest list of our own is the first of a new account key, which the server has not accepted yet."""
    return records.counter(tx, _STARTING_OVER) == 1


def note_registered(tx: Transaction) -> None:
    """Note that the server has accepted this device and its list."""
    records.set_counter(tx, _STARTING_OVER, 0)


def _chain(user_id: UserId, lists: Sequence[SignedDeviceList]) -> list[VerifiedDeviceList]:
    chain = [each.verify(user_id) for each in lists]
    if chain and chain[0].content.seq != 1:
        # Else a server could begin so high that there is no number left for lists of ours.
        raise MalformedMessageError("the lists of the account do not begin with the first")
    for earlier, later in pairwise(chain):
        if later.content.seq != earlier.content.seq + 1 or later.content.previous_hash != earlier.position.hash:
            raise MalformedMessageError("the lists of the account do not follow one another")
    return chain


def _following(newest: DeviceList, account: Account, now: int, *, with_device: bool) -> DeviceList:
    return DeviceList(
        user_id=newest.user_id,
        account_key=account.party.account_key,
        seq=newest.seq + 1,
        previous_hash=newest.hash(),
        created_at=now,
        expires_at=now + DEVICE_LIST_LIFETIME_MS,
        devices=(account.listed,) if with_device else (),
    )


def _encode(reset: AccountReset) -> bytes:
    writer = Writer().u8(_VERSION).bytes16(persist.encode_account(reset.account))
    return writer.bytes32(reset.closing.signed.encode()).bytes32(reset.first.signed.encode()).finish()


def _decode(data: bytes) -> AccountReset:
    reader = Reader(data)
    try:
        version, account = reader.u8(), persist.decode_account(reader.bytes16())
        if version != _VERSION:
            raise CorruptStateError(f"account reset has layout version {version}")
        lists = [SignedDeviceList.decode(reader.bytes32(MAX_ENVELOPE)) for _ in range(2)]
        reader.finish()
    except ProtocolError:
        raise CorruptStateError("account reset does not decode") from None
    # Not verified again: this device signed them, and the store authenticates what it returns.
    closing, first = (VerifiedDeviceList(each.unverified, each) for each in lists)
    return AccountReset(account, closing, first)
