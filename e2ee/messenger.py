"""Messenger: the paved path through the library. One device of one user, on one store.

Owns: the order load -> compute -> commit; what an application calls.
Does not know about: the network. When it lacks a device list or a session it says so; the caller fetches and hands in.
It performs no I/O but on its store, so it works the same under asyncio, in threads and in a Qt application.

    messenger = Messenger.create(store, parse_user_id("alice"))
    messenger.send(bob, "hello")          # queues ciphertext; DeviceListStaleError, SessionNotFoundError say what lacks
    for entry in messenger.outbox(): ...  # hand to a transport, then messenger.outbox_settled([entry.envelope_id])
    messenger.receive(envelope, position) # decrypts and commits; then acknowledge
    messenger.tend()                      # asks again for what was unreadable, sends again what others ask for
    for message in messenger.inbound(): ...; messenger.confirm(message.number)
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import BinaryIO, final

from e2ee import (
    account_export,
    account_reset,
    healing,
    history,
    history_export,
    prekey_supply,
    receiving,
    reception,
    retention,
    rollback,
    sending,
    status,
    tending,
)
from e2ee.account import Account
from e2ee.account_reset import AccountReset
from e2ee.backup import Backup
from e2ee.contact_book import ContactBook
from e2ee.errors import (
    AccountKeyChangedError,
    DeviceListForkError,
    DeviceListStaleError,
    E2EEError,
    ProtocolError,
    SessionNotFoundError,
    TrustError,
)
from e2ee.export_file import ExportReader
from e2ee.history_book import HistoryBook
from e2ee.limits import CALL_TTL_SECONDS, MAX_TTL_SECONDS
from e2ee.linking import LinkedAccount
from e2ee.notices import DeviceListExpired, Notice, StoreRolledBack
from e2ee.own_devices import OwnDevices, welcome
from e2ee.ports import ReadTransaction, Store, Table, Transaction
from e2ee.prekey_supply import PreKeyPublication, ServerCounts
from e2ee.primitives.rng import Rng, system_rng
from e2ee.private_keys import RatchetEncapsulate, encapsulate_in_ratchet
from e2ee.reception import DeliveryPosition, Outcome, Reception
from e2ee.recovery import Purpose, RecoveryCode
from e2ee.rollback import RelayStatement
from e2ee.sending import Draft, Queued, Sender
from e2ee.session import Session
from e2ee.status import Status
from e2ee.stores import healing_records, message_records, records, sent_records, session_records, trust_records
from e2ee.stores.message_records import FailedSend, InboundMessage, OutboxEntry
from e2ee.stores.records import Contact
from e2ee.tending import Tended
from e2ee.trust import (
    changed_key_error,
    learn_device_list,
    mark_forked,
    note_asked,
    note_changed_key,
    recipients,
    sendable_contact,
)
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.content import ContentKind, Receipt, ReceiptType, encode_application
from e2ee.wire.device_list import ListPosition, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, EnvelopeId, MessageId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle

# fmt: off
__all__ = ["DEFAULT_TTL", "Clock", "DeliveryPosition", "Messenger", "Outcome", "Reception", "Status", "system_clock"]
# fmt: on

DEFAULT_TTL = MAX_TTL_SECONDS
_DEFAULT_CONVERSATION = ConversationId("")
_ASSERTION_COUNTER = b"assertion"
_REGISTERED = b"registered"
_RECOVERING = b"recovering"

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
            records.set_counter(tx, _RECOVERING, 1)
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

    def sign_assertion(self, signed_bytes: bytes) -> bytes:
        """Sign a login assertion (protocol.md section 3) with the device signing key; returns 64 bytes."""
        return self._account.device_signing_key_pair.sign(signed_bytes)

    def next_assertion_counter(self) -> int:
        """Return a counter above all returned before, even after a crash; follows the clock to survive reinstalls."""
        with self._store.write() as tx:
            value = max(self._clock(), records.counter(tx, _ASSERTION_COUNTER) + 1)
            records.set_counter(tx, _ASSERTION_COUNTER, value)
            return value

    def is_registered(self) -> bool:
        """Whether the key server has accepted this device and its list."""
        with self._store.read() as tx:
            return records.counter(tx, _REGISTERED) == 1

    def mark_registered(self) -> None:
        """Note that the key server has accepted this device and its list."""
        with self._store.write() as tx:
            records.set_counter(tx, _REGISTERED, 1)
            records.set_counter(tx, _RECOVERING, 0)
            account_reset.note_registered(tx)

    def due_prekeys(self, counts: ServerCounts, offered: Collection[PreKeyId] | None = None) -> PreKeyPublication:
        """Make the prekeys that are due and return all that the server has not confirmed.

        `offered` are the ids of the signed and the last-resort prekey that it offers, if that is known: it may not be
        what it confirmed, after a restore of the server or of this store.
        """
        with self._store.write() as tx:
            if offered is not None:
                prekey_supply.note_offered(tx, offered, self._clock())
            prekey_supply.make_due(tx, counts, self._clock(), self._rng)
            return prekey_supply.publication(tx)

    def prekeys_published(self, prekey_ids: Sequence[PreKeyId]) -> None:
        """Note the server's confirmation of a publication."""
        with self._store.write() as tx:
            prekey_supply.mark_published(tx, tuple(prekey_ids))

    def is_recovering(self) -> bool:
        """Whether this device was made from an export, and has not taken the place of the lost ones yet."""
        with self._store.read() as tx:
            return records.counter(tx, _RECOVERING) == 1

    def is_starting_over(self) -> bool:
        """Whether the server has not accepted the new account key of `start_over` yet."""
        with self._store.read() as tx:
            return account_reset.is_starting_over(tx)

    def restart_over(self, lists: Sequence[SignedDeviceList]) -> None:
        """Let the first list of a new account key follow a longer chain than the one that `start_over` was given.

        Raises:
            See `start_over`. ValueError: the new key was accepted already.
        """
        with self._store.write() as tx:
            if not account_reset.is_starting_over(tx):
                raise ValueError("the account does not start over")
            account_reset.start_over(tx, self._account, lists, self._clock())

    def draft_account_reset(self) -> AccountReset:
        """Make a new account key because a device was lost or stolen, and the two lists that announce it.

        The draft is stored; publish both lists together, then call `account_reset_accepted`. Calling this again, after
        a crash or after a newer list of ours was learned, gives the same key.
        """
        with self._store.write() as tx:
            return account_reset.draft(tx, self._account, self._clock(), self._rng)

    def pending_account_reset(self) -> AccountReset | None:
        """Return the draft that was made and not yet accepted, as far as is known."""
        with self._store.read() as tx:
            return account_reset.pending(tx)

    def account_reset_accepted(self) -> list[OutboxEntry]:
        """The server has accepted the draft: the account has the new key, all sessions end.

        What waited in the outbox is encrypted anew once sessions can be started. What cannot be is returned, and is
        among the `failed_sends`.

        Raises:
            ValueError: there is no draft.
        """
        with self._store.write() as tx:
            account, lost = account_reset.accepted(tx, self._clock())
        self._account = account
        return lost

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
            DeviceListForkError: it contradicts the newest list known. This is recorded: sending to this user stops.
        """
        try:
            return self._learn(user_id, tuple(lists))
        except DeviceListForkError:
            with self._store.write() as tx:
                mark_forked(tx, user_id)
            raise

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

    def is_stranger(self, user_id: UserId) -> bool:
        """Say whether a user has written to us, and we never to the user."""
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            return contact is not None and session_records.is_stranger(tx, contact.device_list.content.addresses())

    def waiting_for_trust(self) -> tuple[UserId, ...]:
        """Return the users of whom messages under a changed account key are kept."""
        with self._store.read() as tx:
            return trust_records.waiting_users(tx)

    def reconsider(self, user_id: UserId) -> list[Reception]:
        """Read what was kept of a user under a changed account key, after the change was accepted.

        What still waits for a decision is kept. May be repeated, after a crash for instance.

        Raises:
            StateError: our own store failed; the rest is still kept.
        """
        with self._store.read() as tx:
            kept = trust_records.kept_envelopes(tx, user_id)
        receptions = []
        for envelope in kept:
            received = self._receive(envelope, None, kept=True)
            if received.outcome is not Outcome.WAITING_FOR_TRUST:
                receptions.append(received)
        return receptions

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

    def outbox(self, limit: int | None = None) -> list[OutboxEntry]:
        """Return envelopes that the server has not accepted, oldest first. A retry sends the same bytes."""
        with self._store.read() as tx:
            return message_records.outbox(tx, limit)

    def is_due_again(self, message_id: MessageId) -> bool:
        """Whether a message waits to be encrypted anew for a device, which `tend` does once there is a session."""
        with self._store.read() as tx:
            return any(each.message_id == message_id for each in sent_records.due_resends(tx))

    def outbox_settled(
        self, envelope_ids: Iterable[EnvelopeId], given_up: Iterable[tuple[EnvelopeId, str]] = ()
    ) -> None:
        """Forget envelopes for which the server has taken responsibility, or which nobody wants any more.

        Those that are `given_up`, each with a code of why (ASCII, at most 255 characters), become `failed_sends`.
        """
        with self._store.write() as tx:
            for envelope_id in envelope_ids:
                message_records.remove_outbox(tx, envelope_id)
            for envelope_id, code in given_up:
                message_records.give_up_by_id(tx, envelope_id, code, self._clock())

    def failed_sends(self) -> list[FailedSend]:
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
        try:
            envelope = Envelope.decode(encoded)
        except ProtocolError as error:
            with self._store.write() as tx:
                reception.commit_position(tx, position)
            return Reception(Outcome.UNREADABLE, None, None, error=error)
        return self._receive(envelope, position, kept=False)

    def note_dropped(self, position: DeliveryPosition, sender: DeviceAddress | None = None) -> None:
        """Commit the position of an envelope that expired at the relay, and whose it was, as the relay says."""
        with self._store.write() as tx:
            known = message_records.is_committed(tx, position.epoch, position.seq)
            if sender is not None and not known and records.load_contact(tx, sender.user_id) is not None:
                healing_records.count_dropped(tx, sender, self._clock())
            reception.commit_position(tx, position)

    def inbound(self, limit: int | None = None) -> list[InboundMessage]:
        """Return decrypted contents that the application has not confirmed, in the order of their arrival."""
        with self._store.read() as tx:
            return [_marked(tx, each) for each in message_records.inbound(tx, limit)]

    def confirm(self, number: int) -> None:
        """The application is done with an inbound content."""
        with self._store.write() as tx:
            message_records.remove_inbound(tx, number)

    def note_connected(self, statement: RelayStatement) -> tuple[Notice, ...]:
        """Take note of what the relay states at the beginning of a connection; call it before anything is sent.

        If the relay has seen more of this device than the store knows, the store was rolled back: all sessions only
        receive from now on, and `StoreRolledBack` is returned, at most once an hour; `tend` makes up for it.
        """
        with self._store.write() as tx:
            rollback.compare(tx, statement)
            rolled_back = rollback.reset_if_due(tx, self._clock())
            if message_records.cursor(tx)[0] not in (0, statement.epoch):
                prekey_supply.withhold(tx)
            message_records.start_epoch(tx, statement.epoch, statement.settled_through)
            message_records.note_online(tx)
        self._may_send = True
        return (StoreRolledBack(),) if rolled_back else ()

    def cursor(self) -> tuple[int, int]:
        """Return (epoch, watermark) of the inbox."""
        with self._store.read() as tx:
            return message_records.cursor(tx)

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

    def expire_outbox(self) -> list[OutboxEntry]:
        """Give up on envelopes that no server accepted for 14 days, or, in lane 0, within their time to live; return
        them. They are among the `failed_sends`.

        What was said so long ago is forgotten, too. Call it at the start and now and then, whether or not there is a
        connection.
        """
        with self._store.write() as tx:
            retention.forget_contents(tx, self._clock(), self._keeps_contents)
            retention.forget_history(tx, self._clock())
            return retention.expire_outbox(tx, self._clock())

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

    def _learn(self, user_id: UserId, lists: tuple[SignedDeviceList, ...]) -> tuple[Notice, ...]:
        if user_id == self.address.user_id:
            self.own_devices.learn(lists)
            return ()
        refused: E2EEError | None = None
        with self._store.write() as tx:
            now = self._clock()
            asked = records.load_contact(tx, user_id)
            before = note_asked(tx, user_id, now)
            for signed in lists:
                try:
                    contact = learn_device_list(tx, user_id, signed, now)
                except AccountKeyChangedError:
                    # What came before stays: it may be the list with which the old key said that it is the last.
                    refused = _note_changed_key(tx, user_id, lists[-1], now)
                    break
                healing.note_list_change(tx, before, contact, now)
                before = contact
        if refused is not None:
            raise refused
        # Once an hour, however often what waits for the user is tried again.
        is_news = asked is None or asked.is_to_be_asked_about(now)
        return (DeviceListExpired(user_id),) if is_news and before is not None and before.is_expired(now) else ()

    def _receive(self, envelope: Envelope, position: DeliveryPosition | None, *, kept: bool) -> Reception:
        """Receive an envelope; one that was `kept` until a person decided is kept no longer if that was enough."""
        try:
            with self._store.write() as tx:
                number, notices, tend, call, new_own = receiving.receive(tx, self._receiver(), envelope)
                if new_own:
                    welcome(tx, self._sender(), new_own)
                reception.commit_position(tx, position)
                if kept:
                    trust_records.forget_envelope(tx, envelope)
        except (ProtocolError, TrustError, SessionNotFoundError) as error:
            return self._refuse(envelope, error, position, kept)
        outcome = Outcome.CONSUMED if number is None else Outcome.STORED
        known = outcome, envelope.sender, envelope.envelope_id, number
        return Reception(*known, notices=notices, tend=tend, call=call)

    def _refuse(self, envelope: Envelope, error: E2EEError, position: DeliveryPosition | None, kept: bool) -> Reception:
        with self._store.write() as tx:
            refused = reception.refuse(tx, envelope, error, position, self._clock())
            if kept and refused.outcome is not Outcome.WAITING_FOR_TRUST:
                trust_records.forget_envelope(tx, envelope)
            return refused

    def _sender(self) -> Sender:
        return Sender(self._account, self._clock(), self._rng, self._keeps_contents, self._may_send)

    def _receiver(self) -> receiving.Receiver:
        return receiving.Receiver(self._account, self._clock(), self._encapsulate)


def _note_changed_key(tx: Transaction, user_id: UserId, newest: SignedDeviceList, now: int) -> E2EEError | None:
    """Keep the newest of some lists, one of which is under another account key, until a person decides.

    In the transaction that takes in the lists before it: after a last list alone nobody would be asked. Return the
    error to raise after the commit; None if the key was accepted.
    """
    try:
        contact = note_changed_key(tx, user_id, newest, now)
    except (ProtocolError, TrustError) as error:
        return error
    return None if contact.changed is None else changed_key_error(tx, contact)


def _marked(tx: ReadTransaction, message: InboundMessage) -> InboundMessage:
    contact = records.load_contact(tx, message.sender.user_id)
    removed = contact is not None and contact.device_list.content.device(message.sender.device_id) is None
    return replace(message, from_removed_device=True) if removed else message


def _require_empty(tx: ReadTransaction) -> None:
    if tx.count(Table.ACCOUNT):
        raise ValueError("the store holds an account already")


def _begin(tx: Transaction, account: Account, device_list: VerifiedDeviceList) -> None:
    _require_empty(tx)
    records.save_account(tx, account)
    records.save_own_device_list(tx, device_list)
