"""The devices of our own account: which there are, letting one in, retiring one.

Owns: our own chain of device lists, one transaction per step. A list is drafted, published by the caller, and taken in
only after the server accepted it; whoever loses that race throws the draft away.
Does not know about: the network, messages, how two devices compare (linking.py).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import final

from e2ee import healing, sending
from e2ee.account import Account
from e2ee.errors import (
    AccountKeyChangedError,
    DeviceListForkError,
    LinkMismatchError,
    MalformedMessageError,
    TooManyDevicesError,
    UnlistedDeviceError,
)
from e2ee.limits import DEVICE_LIST_LIFETIME_MS, LIST_RENEWAL_MS, LIST_RENEWAL_SPREAD_MS, MAX_DEVICES
from e2ee.linking import Approval
from e2ee.ports import ReadTransaction, Store, Transaction
from e2ee.primitives import kdf
from e2ee.primitives.rng import Rng
from e2ee.sending import Sender
from e2ee.stores import records, trust_records
from e2ee.trust import mark_forked
from e2ee.wire.device_list import (
    DeviceList,
    ListedDevice,
    ListPosition,
    SignedDeviceList,
    VerifiedDeviceList,
    ordered,
)
from e2ee.wire.identifiers import DeviceAddress, DeviceId
from e2ee.wire.link import LinkCommit


def welcome(tx: Transaction, sender: Sender, added: Sequence[DeviceAddress]) -> None:
    """Let devices that are new in our own list have the copies of what waits, and be told of our contacts."""
    sending.copy_to_new_devices(tx, sender, added)
    trust_records.owe_contacts(tx, (each for each in added if each != sender.account.address))


@final
class OwnDevices:
    """Reached as `Messenger.own_devices`; every method is one transaction."""

    def __init__(self, store: Store, account: Account, rng: Rng, clock: Callable[[], int]) -> None:
        self._store, self._account, self._rng, self._clock = store, account, rng, clock

    def newest_list(self) -> VerifiedDeviceList:
        """Return the newest link of our own chain."""
        with self._store.read() as tx:
            return records.own_device_list(tx)

    def lists_after(self, seq: int) -> tuple[SignedDeviceList, ...]:
        """Return the links of our own chain above `seq`, oldest first, as far as this device has them."""
        with self._store.read() as tx:
            return tuple(each.signed for each in records.own_device_lists(tx) if each.content.seq > seq)

    def is_listed(self) -> bool:
        """Say whether the newest list known holds this device."""
        return self.newest_list().content.device(self._account.address.device_id) is not None

    def learn(self, lists: Iterable[SignedDeviceList]) -> VerifiedDeviceList:
        """Take in links of our own chain, oldest first; return the newest then known. Known ones change nothing.

        Raises:
            InvalidSignatureError: not a list of ours, or a wrong signature.
            AccountKeyChangedError: signed by another account key: this account was reset elsewhere, or the server lies.
            DeviceListForkError: it contradicts our chain. Nothing was taken in. Nothing more is encrypted to our other
                devices; what is for others is not held up.
            MalformedMessageError: links are missing in between.
        """
        user_id = self._account.address.user_id
        try:
            with self._store.write() as tx:
                newest = records.own_device_list(tx)
                before = newest.content
                for signed in lists:
                    verified = self._judge(tx, newest, signed)
                    if verified.content.seq > newest.content.seq:
                        records.save_own_device_list(tx, verified)
                        newest = verified
                now = self._clock()
                if added := healing.note_who_left(tx, before, newest.content, now):
                    welcome(tx, Sender(self._account, now, self._rng), added)
                return newest
        except DeviceListForkError:
            with self._store.write() as tx:
                mark_forked(tx, user_id)
            raise

    def lacks_earlier(self) -> int:
        """Return how many links of our own chain are missing at its beginning: this device was linked, or recovered."""
        with self._store.read() as tx:
            return next(records.own_device_lists(tx)).content.seq - 1

    def learn_earlier(self, lists: Sequence[SignedDeviceList]) -> None:
        """Take in links from before the first that we have, oldest first and up to that one, so that a server that
        loses them can be given them again. What vouches for them are the hashes in those that follow.

        Raises:
            InvalidSignatureError: not a list of ours, or a wrong signature. Nothing was taken in.
            DeviceListForkError: they do not lead up to ours. Nothing was taken in.
        """
        user_id = self._account.address.user_id
        with self._store.write() as tx:
            later = next(records.own_device_lists(tx)).content
            for signed in reversed(lists):
                verified = signed.verify(user_id)
                if verified.position != ListPosition(later.seq - 1, later.previous_hash):
                    raise DeviceListForkError(user_id)
                records.save_own_device_list(tx, verified)
                later = verified.content

    def draft_with(self, device: ListedDevice) -> VerifiedDeviceList:
        """Sign, but do not take in, the next list with one device more.

        Raises:
            TooManyDevicesError: there is no room.
            LinkMismatchError: the device's id was in a list before, and never returns.
        """
        with self._store.read() as tx:
            newest = records.own_device_list(tx).content
            if len(newest.devices) >= MAX_DEVICES:
                raise TooManyDevicesError(MAX_DEVICES)
            if any(each.content.device(device.device_id) for each in records.own_device_lists(tx)):
                raise LinkMismatchError("the device id is taken")
            return self._next(newest, (*newest.devices, device))

    def draft_without(self, device_id: DeviceId) -> VerifiedDeviceList:
        """Sign, but do not take in, the next list with one device less.

        Raises:
            UnlistedDeviceError: it is not in the newest list.
        """
        newest = self.newest_list().content
        if newest.device(device_id) is None:
            raise UnlistedDeviceError(str(DeviceAddress(newest.user_id, device_id)))
        return self._next(newest, tuple(each for each in newest.devices if each.device_id != device_id))

    def draft_alone(self) -> VerifiedDeviceList:
        """Sign, but do not take in, the next list with this device alone: all others are lost."""
        return self._next(self.newest_list().content, (self._account.listed,))

    def is_renewal_due(self) -> bool:
        """Whether it is on this device to sign the newest list again, before it expires or after it did.

        Each device has its own time for it, so that mostly one of them does it for all.
        """
        newest = self.newest_list().content
        ours = self._account.address.device_id
        if newest.device(ours) is None:
            return False
        early = LIST_RENEWAL_MS - _spread(ours, newest.seq)
        return self._clock() >= newest.expires_at - early

    def draft_renewed(self) -> VerifiedDeviceList | None:
        """Sign, but do not take in, the next list with the same devices; None if none is due (any more)."""
        newest = self.newest_list().content
        return self._next(newest, newest.devices) if self.is_renewal_due() else None

    def approve(self, commit: LinkCommit) -> Approval:
        """Begin to let a new device in, which has sent message 1 of a link.

        Raises:
            TooManyDevicesError: there is no room.
        """
        return Approval.make(self._account, self.newest_list(), commit, self._clock(), self._rng)

    def _next(self, newest: DeviceList, devices: tuple[ListedDevice, ...]) -> VerifiedDeviceList:
        now = self._clock()
        return self._account.sign_device_list(
            DeviceList(
                user_id=newest.user_id,
                account_key=newest.account_key,
                seq=newest.seq + 1,
                previous_hash=newest.hash(),
                created_at=now,
                expires_at=now + DEVICE_LIST_LIFETIME_MS,
                devices=ordered(devices),
            )
        )

    def _judge(self, tx: ReadTransaction, newest: VerifiedDeviceList, signed: SignedDeviceList) -> VerifiedDeviceList:
        user_id = self._account.address.user_id
        verified = signed.verify(user_id)
        content = verified.content
        known = records.own_device_list_at(tx, content.seq)
        if known is not None and known.position == verified.position:
            return verified  # perhaps of before a reset, under the key of then
        if content.account_key != self._account.party.account_key:
            raise AccountKeyChangedError(user_id)
        if known is not None:
            raise DeviceListForkError(user_id)
        entry = content.device(self._account.address.device_id)
        ours = self._account.party
        if entry and (entry.device_signing_key, entry.identity_key) != (ours.device_signing_key, ours.identity_key):
            raise DeviceListForkError(user_id)
        if verified.follows(newest) and content.seq != newest.content.seq + 1:
            raise MalformedMessageError("links of our own chain are missing")
        return verified


def _spread(device_id: DeviceId, seq: int) -> int:
    """Return by how many milliseconds a device lets others go first: always the same for one list, another for each."""
    drawn = kdf.sha256(device_id.raw + seq.to_bytes(8, "big"))[:8]
    return int.from_bytes(drawn, "big") % LIST_RENEWAL_SPREAD_MS
