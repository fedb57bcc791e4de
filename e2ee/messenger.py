"""Messenger: the paved path through the library. One device of one user, on one store.

Owns: the order load -> compute -> commit; what an application calls.
Does not know about: the network. When it lacks a device list or a session it says so; the caller fetches and hands in.
It performs no I/O but on its store, so it works the same under asyncio, in threads and in a Qt application.

    messenger = Messenger.create(store, parse_user_id("alice"))
    messenger.send(bob, "hello")          # queues ciphertext; DeviceListStaleError, SessionNotFoundError say what lacks
    for entry in messenger.outbox.entries(): ...  # hand to a transport, then `outbox.settle([entry.envelope_id])`
    messenger.receive(envelope, position) # decrypts and commits; then acknowledge
    messenger.tend()                      # asks again for what was unreadable, sends again what others ask for
    for message in messenger.inbound(): ...; messenger.confirm(message.number)
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, final

from e2ee import (
    account_export,
    account_reset,
    history,
    history_export,
    intake,
    receiving,
    retention,
    sending,
    status,
    tending,
)
from e2ee.account import Account
from e2ee.account_reset import AccountResets
from e2ee.backup import Backup
from e2ee.contact_book import ContactBook
from e2ee.delivery import Delivery
from e2ee.errors import (
    DeviceListForkError,
)
from e2ee.export_file import ExportReader
from e2ee.history_book import HistoryBook
from e2ee.limits import CALL_TTL_SECONDS, MAX_TTL_SECONDS
from e2ee.linking import LinkedAccount
from e2ee.list_learning import learn_lists
from e2ee.notices import Notice
from e2ee.outbox import Outbox
from e2ee.own_devices import OwnDevices
from e2ee.ports import ReadTransaction, Store, Table, Transaction
from e2ee.primitives.rng import Rng, system_rng
from e2ee.private_keys import RatchetEncapsulate, encapsulate_in_ratchet
from e2ee.reception import DeliveryPosition, Outcome, Reception
from e2ee.recovery import Purpose, RecoveryCode
from e2ee.registration import Registration, note_recovering
from e2ee.sending import Draft, Queued, Sender
from e2ee.session import Session
from e2ee.status import Status
from e2ee.stores import message_records, records, session_records
from e2ee.stores.message_records import InboundMessage
from e2ee.stores.records import Contact
from e2ee.tending import Tended
from e2ee.trust import (
    mark_forked,
    recipients,
    sendable_contact,
)
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.content import ContentKind, Receipt, ReceiptType, encode_application
from e2ee.wire.device_list import SignedDeviceList, VerifiedDeviceList
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, MessageId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle

# fmt: off
__all__ = ["DEFAULT_TTL", "Clock", "DeliveryPosition", "Messenger", "Outcome", "Reception", "Status", "system_clock"]
# fmt: on

DEFAULT_TTL = MAX_TTL_SECONDS
_DEFAULT_CONVERSATION = ConversationId("")

Clock = Callable[[], int]
"""Returns Unix milliseconds."""


def system_clock() -> int:
    """Return the system's time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@final
class Messenger:
    """One device. Every method is one transaction, and the store is the truth. Beside it, a messenger only knows
    whether it has heard from the relay since it was opened.
    """

    def __init__(
        self,
        store: Store,
        account: Account,
        *,
        rng: Rng = system_rng,
        clock: Clock = system_clock,
        encapsulate: RatchetEncapsulate = encapsulate_in_ratchet,
        sent_log: bool = True,
    ) -> None:
        """Use `create` or `open`. Vectors put recorded values in the place of `encapsulate`; nothing else is safe."""
        self._store, self._account, self._rng, self._clock = store, account, rng, clock
        self._encapsulate = encapsulate
        self._keeps_contents = sent_log
        self._may_send = True

    @classmethod
    def create(
        cls,
        store: Store,
        user_id: UserId,
        *,
        rng: Rng = system_rng,
        clock: Clock = system_clock,
        sent_log: bool = True,
    ) -> "Messenger":
        """Make an account with this device alone, in an empty store. `sent_log`: see `open`.

        Raises:
            ValueError: the store holds an account already.
        """
        account = Account.generate(user_id, rng)
        with store.write() as tx:
            _begin(tx, account, account.first_device_list(clock()))
        return cls(store, account, rng=rng, clock=clock, sent_log=sent_log)

    @classmethod
    def join(
        cls,
        store: Store,
        linked: LinkedAccount,
        *,
        rng: Rng = system_rng,
        clock: Clock = system_clock,
        sent_log: bool = True,
    ) -> "Messenger":
        """Put what a link brought into an empty store: a further device of an account. `sent_log`: see `open`.

        The device is in no list yet: `own_devices.is_listed` says when it is.

        Raises:
            ValueError: the store holds an account already.
        """
        with store.write() as tx:
            _begin(tx, linked.account, linked.device_list)
        return cls(store, linked.account, rng=rng, clock=clock, sent_log=sent_log)

    @classmethod
    def recover(  # noqa: PLR0913 - keywords but for what it is about; each has a default
        cls,
        store: Store,
        export: bytes | BinaryIO,
        code: RecoveryCode,
        *,
        purpose: Purpose = Purpose.EXPORT,
        rng: Rng = system_rng,
        clock: Clock = system_clock,
        sent_log: bool = True,
    ) -> "Messenger":
        """Make a new device of an exported account, in an empty store. `sent_log`: see `open`.

        It is in no list yet. Take in the lists of our own that the server has, then publish `own_devices.draft_alone`.
        The history comes last, if the export holds one; if that is interrupted, `backup.merge` goes on with it.

        Raises:
            WrongRecoveryCodeError: the code does not open the export, or the export was changed.
            MalformedMessageError, UnsupportedVersionError, InvalidSignatureError, InvalidPublicKeyError: it is none.
            ValueError: the store holds an account already.
        """
        reader = ExportReader(export, code, purpose)
        reader.check_history()
        linked = account_export.new_device(reader.user_id, reader.payload, rng)
        with store.write() as tx:
            _begin(tx, linked.account, linked.device_list)
            account_export.restore(tx, reader.user_id, reader.payload)
            history_export.restore_retention(tx, reader.retention)
            note_recovering(tx)
        for messages in reader.messages():
            with store.write() as tx:
                history_export.merge(tx, reader.user_id, messages, clock())
        return cls(store, linked.account, rng=rng, clock=clock, sent_log=sent_log)

    @classmethod
    def start_over(
        cls,
        store: Store,
        user_id: UserId,
        lists: Sequence[SignedDeviceList],
        *,
        rng: Rng = system_rng,
        clock: Clock = system_clock,
        sent_log: bool = True,
    ) -> "Messenger":
        """Make a new account key for a user who lost all devices and the recovery code, in an empty store. `sent_log`:
        see `open`.

        `lists` are those of the user that the server has, oldest first. Publish `own_device_list` as an account reset
        without a closing list; if others were faster, call `restart_over` with the longer chain, and publish again.

        Raises:
            MalformedMessageError, InvalidSignatureError: what the server has is no chain of lists of the user.
            ValueError: it has none, or the store holds an account already.
        """
        account = Account.generate(user_id, rng)
        with store.write() as tx:
            _require_empty(tx)
            account_reset.start_over(tx, account, lists, clock())
        return cls(store, account, rng=rng, clock=clock, sent_log=sent_log)

    @classmethod
    def open(
        cls, store: Store, *, rng: Rng = system_rng, clock: Clock = system_clock, sent_log: bool = True
    ) -> "Messenger":
        """Open the account of a store.

        With `sent_log` the store keeps what was sent for 14 days, so that it can be sent again to a device that could
        not read it. Without, nothing can be sent again, and `expire_outbox` forgets what was kept before.

        Raises:
            AccountNotFoundError: the store holds none.
        """
        with store.read() as tx:
            account = records.load_account(tx)
        messenger = cls(store, account, rng=rng, clock=clock, sent_log=sent_log)
        messenger._may_send = False
        return messenger

    # --- this device -----------------------------------------------------------------------------------------

    @property
    def address(self) -> DeviceAddress:
        """This device."""
        return self._account.address

    @property
    def account(self) -> Account:
        """The keys of this device; their private halves redact themselves."""
        return self._account

    def own_device_list(self) -> VerifiedDeviceList:
        """Return the newest link of our own chain, to be published."""
        with self._store.read() as tx:
            return records.own_device_list(tx)

    # --- contacts and sessions -------------------------------------------------------------------------------

    def contact(self, user_id: UserId) -> Contact | None:
        """Return what is known of another user, or None before first contact."""
        with self._store.read() as tx:
            return records.load_contact(tx, user_id)

    def learn_device_lists(self, user_id: UserId, lists: Iterable[SignedDeviceList]) -> tuple[Notice, ...]:
        """Take in lists of a user, oldest first; none, if the server had none to give beyond those known.

        Says if the newest known has expired all the same, once an hour at most.

        Raises:
            InvalidSignatureError: not a list of this user, or a wrong signature.
            AccountKeyChangedError: signed by another account key than the pinned one. This is recorded: sending to this
                user stops until a person has decided (`contact_book`), or the policy does at once.
            DeviceListForkError: it contradicts the newest list known. This is recorded if the pinned key has signed it:
                sending to this user stops.
        """
        if user_id == self.address.user_id:
            self.own_devices.learn(tuple(lists))
            return ()
        try:
            with self._store.write() as tx:
                notices, refused = learn_lists(tx, user_id, tuple(lists), self._clock())
        except DeviceListForkError:
            with self._store.write() as tx:
                mark_forked(tx, user_id)
            raise
        if refused is not None:
            raise refused
        return notices

    @property
    def registration(self) -> Registration:
        """What the key server is told of this device."""
        return Registration(self._store, self._account, self._rng, self._clock)

    @property
    def account_reset(self) -> AccountResets:
        """A new account key, because a device was lost or stolen."""

        def replaced(account: Account) -> None:
            self._account = account

        return AccountResets(self._store, lambda: self._account, replaced, self._rng, self._clock)

    @property
    def outbox(self) -> Outbox:
        """The ciphertext that waits for the server."""
        return Outbox(self._store, self._clock, self._keeps_contents)

    @property
    def delivery(self) -> Delivery:
        """What the relay states of this device's mailbox."""

        def heard() -> None:
            self._may_send = True

        return Delivery(self._store, self._clock, heard)

    @property
    def own_devices(self) -> OwnDevices:
        """The devices of our own account."""
        return OwnDevices(self._store, self._account, self._rng, self._clock)

    @property
    def contact_book(self) -> ContactBook:
        """What a person sees of contacts, and decides about them."""
        return ContactBook(self._store, self._sender)

    @property
    def history(self) -> HistoryBook:
        """Past messages, if the application has them kept (`HistoryBook.set_retention`)."""
        return HistoryBook(self._store, self._clock)

    @property
    def backup(self) -> Backup:
        """Exports of this device, and taking one in."""
        return Backup(self._store, self._account, self._rng, self._clock)

    def reconsider(self, user_id: UserId) -> list[Reception]:
        """Read what was kept of a user under a changed account key, after the change was accepted.

        What still waits for a decision is kept. May be repeated, after a crash for instance.

        Raises:
            StateError: our own store failed; the rest is still kept.
        """
        return intake.reconsider(self._store, self._receiver(), self._sender(), user_id)

    def missing_sessions(self, user_id: UserId) -> tuple[DeviceAddress, ...]:
        """Return the user's devices that no session can send to; claim their bundles and hand them in.

        Raises:
            DeviceListStaleError: fetch the user's device list first.
            DeviceListForkError: sending to this user has stopped.
        """
        with self._store.read() as tx:
            now = self._clock()
            addresses = recipients(sendable_contact(tx, user_id, now), self.address)
            return tuple(address for address in addresses if session_records.sending_session(tx, address, now) is None)

    def start_session(self, bundle: PreKeyBundle) -> Session:
        """Verify a bundle against its user's newest known list and start a session with its device.

        Raises:
            DeviceListStaleError, DeviceListForkError: see `missing_sessions`.
            UnlistedDeviceError, InvalidSignatureError, PreKeyExpiredError: see `PreKeyBundle.verify`.
            InvalidPublicKeyError: a key of the bundle is of low order or out of range.
        """
        with self._store.write() as tx:
            return sending.start_session(tx, self._sender(), bundle)

    # --- out -------------------------------------------------------------------------------------------------

    def send(
        self,
        user_id: UserId,
        data: bytes | str,
        *,
        conversation: ConversationId = _DEFAULT_CONVERSATION,
        lane: Lane = Lane.CHAT,
        ttl: int = DEFAULT_TTL,
    ) -> Queued:
        """Encrypt application data, at most 64 KiB, to all devices of a user and queue the envelopes.

        Raises:
            DeviceListStaleError, DeviceListForkError: see `missing_sessions`.
            SessionNotFoundError: there is a session with none of the user's devices.
            ValueError: data too long, `ttl` not 1 to 2,419,200 seconds.
        """
        return self.queue(user_id, Draft(ContentKind.APPLICATION, encode_application(data), conversation, lane, ttl))

    def send_receipt(self, user_id: UserId, kind: ReceiptType, message_ids: tuple[MessageId, ...]) -> Queued:
        """Tell a user that messages (1 to 256) were delivered or read.

        Raises:
            See `send`.
        """
        body = Receipt(kind, message_ids).encode()
        return self.queue(user_id, Draft(ContentKind.RECEIPT, body, _DEFAULT_CONVERSATION, Lane.RECEIPT, DEFAULT_TTL))

    def mark_read(self, user_id: UserId, message_ids: Sequence[MessageId]) -> bool:
        """Note that messages of a user were read: in the history, and on our other devices. The user is not told.

        Returns whether one of our devices waits for a session: call `tend`.
        """
        with self._store.write() as tx:
            history.mark_read(tx, user_id, message_ids, self._clock())
            return sending.tell_read(tx, self._sender(), user_id, message_ids)

    def signal_call(self, user_id: UserId, signal: CallSignal) -> Queued:
        """Tell all devices of a user about a call. All but MISSED overtake chat, and expire after a minute.

        Raises:
            See `send`.
        """
        missed = signal.action is CallAction.MISSED
        lane, ttl = (Lane.CHAT, DEFAULT_TTL) if missed else (Lane.CONTROL, CALL_TTL_SECONDS)
        return self.queue(user_id, Draft(ContentKind.CALL, signal.encode(), _DEFAULT_CONVERSATION, lane, ttl))

    def queue(self, user_id: UserId, draft: Draft) -> Queued:
        """Encrypt a content of any kind to all devices of a user and queue the envelopes.

        Raises:
            See `send`.
        """
        with self._store.write() as tx:
            return sending.queue(tx, self._sender(), user_id, draft)

    def heal_now(self, user_id: UserId) -> Queued:
        """After a suspected leak of a store: agree on new post-quantum secrets with all devices of a user, at once.

        The leaked state reads nothing any more after three round trips with each device, if the user does the same.

        Raises:
            See `send`.
        """
        with self._store.write() as tx:
            return sending.heal(tx, self._sender(), user_id)

    # --- in --------------------------------------------------------------------------------------------------

    def receive(self, encoded: bytes, position: DeliveryPosition | None = None) -> Reception:
        """Decrypt an encoded envelope and commit all that follows from it, the delivery position included.

        Never raises for the bytes: a refused envelope is recorded as unreadable, once, and may be acknowledged.

        Raises:
            StateError: our own store failed; nothing was changed, so do not acknowledge, and try again.
        """
        return intake.take(self._store, self._receiver(), self._sender(), encoded, position)

    def inbound(self, limit: int | None = None) -> list[InboundMessage]:
        """Return decrypted contents that the application has not confirmed, in the order of their arrival."""
        with self._store.read() as tx:
            return intake.inbound(tx, limit)

    def confirm(self, number: int) -> None:
        """The application is done with an inbound content."""
        with self._store.write() as tx:
            message_records.remove_inbound(tx, number)

    # --- what is due by itself -------------------------------------------------------------------------------

    def tend(self) -> Tended:
        """Do what is due: ask again for what could not be read, send again what others ask for, answer payloads.

        The result says what lacks: device lists to fetch, devices with which to start a session. After that call again,
        and when the time is up that the result names.
        """
        with self._store.write() as tx:
            retention.forget_contents(tx, self._clock(), self._keeps_contents)
            return tending.tend(tx, self._sender())

    # --- housekeeping ----------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Delete what no late envelope can need any more.

        Call it only after the inbox was drained once since coming online: what it deletes could still decrypt.
        """
        with self._store.write() as tx:
            retention.forget_contents(tx, self._clock(), self._keeps_contents)
            retention.forget_history(tx, self._clock())
            retention.prune(tx, self._clock())

    def status(self) -> Status:
        """Count what the store holds."""
        with self._store.read() as tx:
            return status.of(tx, self.address)

    # --- inside ----------------------------------------------------------------------------------------------

    def _sender(self) -> Sender:
        return Sender(self._account, self._clock(), self._rng, self._keeps_contents, self._may_send)

    def _receiver(self) -> receiving.Receiver:
        return receiving.Receiver(self._account, self._clock(), self._encapsulate)


def _require_empty(tx: ReadTransaction) -> None:
    if tx.count(Table.ACCOUNT):
        raise ValueError("the store holds an account already")


def _begin(tx: Transaction, account: Account, device_list: VerifiedDeviceList) -> None:
    _require_empty(tx)
    records.save_account(tx, account)
    records.save_own_device_list(tx, device_list)
