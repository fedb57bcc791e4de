"""Exports of a device that lives: the account with its contacts and history in a file, and taking one in again.

Owns: in which steps a file is written and taken in; whose export is taken in.
Does not know about: the file's bytes (export_file.py), what becomes of a contact (contact_sharing.py) or of a message
(history_export.py), making a new device of an export (`Messenger.recover`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, final

from e2ee import account_export, contact_sharing, history, history_export
from e2ee.account import Account
from e2ee.errors import AccountKeyChangedError
from e2ee.export_file import ExportReader, write_export
from e2ee.ports import Store
from e2ee.primitives.rng import Rng
from e2ee.recovery import Purpose, RecoveryCode, seal_export
from e2ee.stores import history_records
from e2ee.wire.contacts import LinkedContacts
from e2ee.wire.identifiers import UserId


@final
@dataclass(frozen=True, slots=True)
class Merged:
    """What taking an export in has changed, by a step or so far."""

    contacts: tuple[UserId, ...] = ()
    """New here, or something else is known of them now."""
    waiting: tuple[UserId, ...] = ()
    """Those among them whose account key is another one here: a human must decide."""
    forked: tuple[UserId, ...] = ()
    """Those among them whose device lists are known to contradict each other, and were not before: nothing is sent to
    them any more."""
    messages: int = 0
    """New in the history."""

    def plus(self, step: "Merged") -> "Merged":
        """Return what this and a further step have changed."""
        return Merged(
            (*self.contacts, *step.contacts),
            (*self.waiting, *step.waiting),
            (*self.forked, *step.forked),
            self.messages + step.messages,
        )


@final
class Backup:
    """Reached as `Messenger.backup`. A file is written and read in pieces, so a long history needs little memory."""

    def __init__(self, store: Store, account: Account, rng: Rng, clock: Callable[[], int]) -> None:
        self._store, self._account, self._rng, self._clock = store, account, rng, clock

    def export(self, code: RecoveryCode) -> Iterator[bytes]:
        """Yield an export in pieces: the account's key, contacts, decisions about them, and the history if it is kept.

        Only the first piece, with the contacts, may be long. What comes in between two pieces is in it or is not.
        """
        user_id = self._account.address.user_id
        with self._store.read() as tx:
            payload, retention = account_export.collect(tx, self._account), history_records.retention(tx)
        if not retention:
            yield self.without_history(code)
            return
        yield from write_export(code, user_id, payload, (retention, history_export.pages(self._store)), self._rng)

    def without_history(self, code: RecoveryCode) -> bytes:
        """Return the account's key, contacts and decisions about them, sealed with a code (protocol.md section 16)."""
        with self._store.read() as tx:
            payload = account_export.collect(tx, self._account)
        return seal_export(code, self._account.address.user_id, payload, self._rng).encode()

    def for_server(self, code: RecoveryCode) -> bytes:
        """Return the account's key and list, sealed with a code, for the key server to keep (section 16)."""
        with self._store.read() as tx:
            payload = account_export.collect_account(tx, self._account)
        return seal_export(code, self._account.address.user_id, payload, self._rng, Purpose.RECOVERY).encode()

    def merge(self, export: BinaryIO | bytes, code: RecoveryCode) -> Iterator[Merged]:
        """Take an export of our own account in, beside what this device has; yield what each step has changed.

        Every step is one transaction. Nothing is doubled, so it may be repeated, after a crash for instance. Contacts
        are judged as those that another device of ours tells of. Messages go into the history, if one is kept here.

        Raises:
            WrongRecoveryCodeError: the code does not open the export, or the export was changed. Nothing was taken in.
            MalformedMessageError, UnsupportedVersionError, InvalidSignatureError, InvalidPublicKeyError: it is none.
            AccountKeyChangedError: it is another user's, or of before a reset of the account.
        """
        reader, own = ExportReader(export, code), self._account.address.user_id
        if (reader.user_id, reader.account_key) != (own, self._account.party.account_key):
            raise AccountKeyChangedError(reader.user_id)
        reader.check_history()
        payload = reader.payload
        contacts = {each.user_id for each in payload.contacts}
        decisions = tuple(each for each in payload.decisions if each.user_id in contacts)
        with self._store.write() as tx:
            told = LinkedContacts(payload.policy, payload.contacts, decisions)
            believed = contact_sharing.believe(tx, own, told, self._clock())
        yield Merged(believed.changed, believed.waiting, believed.forked)
        for messages in reader.messages():
            with self._store.write() as tx:
                added = history_export.merge(tx, own, messages, self._clock())
            yield Merged(messages=added)
        with self._store.write() as tx:
            history.forget_old(tx, self._clock())
