"""The client's dealings with the key server: registration, prekey supply, first contact, device lists.

Owns: when the key server is asked, and what is done with its answers.
Does not know about: messages on their way.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

from e2ee.errors import (
    AccountKeyChangedError,
    DeviceListForkError,
    DeviceListStaleError,
    ProtocolError,
    SessionNotFoundError,
    TrustError,
)
from e2ee.limits import MAX_TIMESTAMP
from e2ee.notices import DeviceListsForked
from e2ee.prekey_supply import ServerCounts
from e2ee.wire.device_list import SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId
from keyserver.client import DeviceListConflictError, KeyServerRefusedError, PreKeyUpload
from transport_adapters import events
from transport_adapters.base import TransportError
from transport_adapters.secure_client.parts import LOCAL_FAULTS, SERVER_TROUBLE, Parts

T = TypeVar("T")

_DRAFTS: Final = 5
"""How often a change of our own list is tried when other devices of ours are faster."""


@final
class UserUnreachableError(TransportError):
    """The server has no device of this user to offer: unknown user, no device, or contact not allowed."""

    code = "user_unreachable"
    remedy = "Check the name; the user must have opened the application once"

    def __init__(self, user_id: UserId) -> None:
        super().__init__(f"No device of {user_id} can be reached")
        self.user_id = user_id


@final
class DeviceNotListedError(TransportError):
    """This device is not in its user's list: the device that approved it did not finish, or it was retired."""

    code = "device_not_listed"
    remedy = "Approve it on another device, or link it anew in an empty store"

    def __init__(self, address: DeviceAddress) -> None:
        super().__init__(f"Device {address.device_id} is not in the device list of {address.user_id}")


@final
class Directory:
    """Asks the key server what the messenger lacks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._contacting: dict[UserId, asyncio.Lock] = {}
        self._told: dict[UserId, events.Event] = {}
        self.on_lists: Callable[[], None] = _nobody_waits
        """Called when lists were taken in: a device that is new in one gets what waits for its user."""

    async def register(self) -> None:
        """Make this device known: its keys, its list, its prekeys. Each step may be repeated.

        Raises:
            KeyServerError: the server did not answer, or refused.
            TokenProviderError: the application's token provider raised.
            DeviceNotListedError: all was done, but the device that approved this one has not put it into the list.
            AccountKeyChangedError, DeviceListForkError: the server has other lists of this user.
        """
        messenger, key_server = self._parts.messenger, self._parts.key_server
        party = messenger.account.party
        await key_server.register_device(party.device_signing_key, party.identity_key)
        if await self._parts.call(messenger.registration.is_starting_over):
            await self._start_over()
        else:
            # Before anything is compared: it is what tells a second first device of a user.
            newest = await self._parts.call(messenger.own_devices.newest_list)
            await key_server.publish_device_list(newest.signed)
        await self.sync_own_lists()
        await self._complete_own_chain()
        if await self._parts.call(messenger.registration.is_recovering):
            await self.change_own_list(messenger.own_devices.draft_alone)
        await self._supply()
        if not await self._parts.call(messenger.own_devices.is_listed):
            raise DeviceNotListedError(messenger.address)
        await self._parts.call(messenger.registration.mark_registered)

    async def _start_over(self) -> None:
        """Publish the first list of a new account key, without a word of the old one, which is lost."""
        messenger, key_server = self._parts.messenger, self._parts.key_server
        for attempts_left in reversed(range(_DRAFTS)):
            first = await self._parts.call(messenger.own_devices.newest_list)
            try:
                await key_server.reset_account(None, first.signed)
            except DeviceListConflictError:
                held = await key_server.device_lists(messenger.address.user_id)
                if not (attempts_left and held):  # without any it contradicts itself
                    raise
            else:
                return
            await self._parts.commit(messenger.registration.restart_over, held)

    async def keep_supplied(self) -> None:
        """Keep one-time prekeys at the server, rotate the signed ones, renew our list before it expires, for ever."""
        failures, pace = 0, self._parts.pace
        while True:
            await self._parts.online.wait()
            self._parts.restarted.clear()
            try:
                await self._bring_own_lists_up_to_date()
                await self._renew_own_list()
                await self._supply()
                failures, pause = 0, pace.prekey_check
            except (*SERVER_TROUBLE, *LOCAL_FAULTS, ProtocolError, TrustError) as error:
                self._parts.emit(events.Trouble(error.code))
                if isinstance(error, DeviceListForkError):
                    ours = self._parts.messenger.address.user_id
                    self._tell_once(ours, DeviceListsForked(ours))
                failures += 1
                pause = pace.retry(failures)
            # Jitter, so that a refill does not betray the moment at which a first message was read.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * (0.5 + secrets.randbelow(1000) / 1000)):
                    await self._parts.restarted.wait()

    async def with_sessions(self, user_id: UserId, queue: Callable[[], T]) -> T:
        """Run `queue`, which encrypts to a user, after fetching what it lacks. One first contact per user at a time.

        A device that cannot be reached now does not hold up those that can.

        Raises:
            UserUnreachableError: the server offers no device of this user that can be encrypted to.
            KeyServerError, TokenProviderError: the server was needed, and did not answer.
            DeviceListStaleError: the contact speaks of a newer device list than the server gives out.
            DeviceListForkError, AccountKeyChangedError, InvalidSignatureError: see `Messenger.learn_device_lists`.
        """
        async with self._contacting.setdefault(user_id, asyncio.Lock()):
            trouble: BaseException = UserUnreachableError(user_id)
            missing = await self._missing(user_id)
            if missing != ():
                try:
                    await self._contact(user_id, missing)
                except (*SERVER_TROUBLE, UserUnreachableError) as error:
                    if missing is None:
                        raise
                    trouble = error
                    self._parts.emit(events.Trouble(error.code))
            try:
                return await self._parts.call(queue)
            except SessionNotFoundError:
                raise trouble from None

    async def start_anew(self, device: DeviceAddress) -> None:
        """Start a session with a device, although there may be one.

        Raises:
            See `with_sessions`.
        """
        async with self._contacting.setdefault(device.user_id, asyncio.Lock()):
            await self._contact(device.user_id, [device])

    async def repair_lists(self, user_id: UserId) -> None:
        """Bring our idea of a user's device list, or the server's idea of ours, up to date."""
        messenger = self._parts.messenger
        try:
            if user_id == messenger.address.user_id:
                await self.sync_own_lists()
                return
            await self.fetch_lists(user_id)
            await self._give_back(user_id)
        except AccountKeyChangedError as error:
            if user_id == messenger.address.user_id:
                self._parts.emit(events.Trouble(error.code))  # nobody but us says which key is ours
            else:
                needed = events.TrustNeeded(user_id, error.old_safety_number, error.new_safety_number)
                self._tell_once(user_id, needed)
        except DeviceListForkError as error:
            contact = await self._parts.call(messenger.contact, user_id)
            # Under another account key than the pinned one, which has not signed it, a list stops nothing.
            is_forked = contact is not None and contact.forked
            self._tell_once(user_id, DeviceListsForked(user_id) if is_forked else events.Trouble(error.code))
        except (*SERVER_TROUBLE, *LOCAL_FAULTS, ProtocolError, TrustError) as error:
            self._parts.emit(events.Trouble(error.code))

    def _tell_once(self, user_id: UserId, event: events.Event) -> None:
        """Tell that a human must look, once, however often what waits for the user is tried again."""
        if self._told.get(user_id) != event:
            self._told[user_id] = event
            self._parts.emit(event)

    async def _give_back(self, user_id: UserId) -> None:
        """Give the server the newest list of a contact that we know, in case it was restored from before that."""
        contact = await self._parts.call(self._parts.messenger.contact, user_id)
        # The last list of a key is for its owner to bring, together with the first one of the next key.
        if contact is not None and not contact.device_list.content.closes:
            try:
                await self._parts.key_server.publish_device_list(contact.device_list.signed)
            except DeviceListConflictError:
                pass  # more is missing: its owner has the whole chain
            except KeyServerRefusedError as error:
                if error.code != "account_key_changed":
                    raise
                # It knows another key, in lists that are not newer than ours, so they were not asked for: who lied to
                # us at first contact may have chosen a high number.
                await self._learn(user_id, await self._parts.key_server.device_lists(user_id))

    async def sync_own_lists(self) -> None:
        """Bring our own chain of lists, and the server's copy of it, up to date.

        What other devices of ours have changed is taken in; what a server lost in a restore is given to it again.

        Raises:
            KeyServerError, TokenProviderError: the server was not reached, or refused.
            AccountKeyChangedError, DeviceListForkError, InvalidSignatureError: see `OwnDevices.learn`.
        """
        messenger, key_server = self._parts.messenger, self._parts.key_server
        own, user_id = messenger.own_devices, messenger.address.user_id
        newest = await self._parts.call(own.newest_list)
        lists = await key_server.device_lists(user_id, from_seq=newest.content.seq)
        if lists:
            await self.take_in(lists)
            return
        # The server is behind us. What it has must still be ours: learning it tells.
        held = await key_server.device_lists(user_id)
        await self.take_in(held)
        before, closing = (held[-1] if held else None), None
        for signed in await self._parts.call(own.lists_after, before.unverified.seq if before else 0):
            if signed.unverified.closes:
                closing = signed
            elif before is not None and before.unverified.account_key != signed.unverified.account_key:
                # Without a closing list if the key of before was lost.
                await key_server.reset_account(closing, signed)
                closing = None
            else:
                await key_server.publish_device_list(signed)
            before = signed

    async def _complete_own_chain(self) -> None:
        """Take in what the server has of our chain from before this device was linked or recovered.

        Raises:
            See `sync_own_lists`.
        """
        own, user_id = self._parts.messenger.own_devices, self._parts.messenger.address.user_id
        if lacks := await self._parts.call(own.lacks_earlier):
            held = await self._parts.key_server.device_lists(user_id)
            await self._parts.commit(own.learn_earlier, [each for each in held if each.unverified.seq <= lacks])

    async def change_own_list(self, draft: Callable[[], VerifiedDeviceList | None]) -> None:
        """Publish a list that `draft` signs, if it does, and take it in once the server accepted it.

        If another device was faster, its list is taken in and the draft made anew.

        Raises:
            See `sync_own_lists`, and what `draft` raises.
        """
        for attempts_left in reversed(range(_DRAFTS)):
            await self.sync_own_lists()
            drafted = await self._parts.call(draft)
            if drafted is None:
                return
            try:
                await self._parts.key_server.publish_device_list(drafted.signed)
            except DeviceListConflictError:
                if not attempts_left:
                    raise
            else:
                await self.take_in([drafted.signed])
                return

    async def reset_account(self) -> None:
        """Publish a new account key, and take it over once the server accepted it. A draft of before is finished.

        Raises:
            See `sync_own_lists`.
        """
        messenger = self._parts.messenger
        before = await self._parts.call(messenger.own_devices.newest_list)
        reset = await self._parts.call(messenger.account_reset.pending)
        for attempts_left in reversed(range(_DRAFTS)):
            if reset is None:
                await self.sync_own_lists()
                reset = await self._parts.commit(messenger.account_reset.draft)
            try:
                await self._parts.key_server.reset_account(reset.closing.signed, reset.first.signed)
            except DeviceListConflictError:
                if not attempts_left:
                    raise
                reset = None
            else:
                break
        await self._parts.commit(messenger.account_reset.accepted)
        await self._parts.tell_failures()
        after = await self._parts.call(messenger.own_devices.newest_list)
        self._tell(before, after)

    async def _renew_own_list(self) -> None:
        own = self._parts.messenger.own_devices
        if await self._parts.call(own.is_renewal_due):
            await self.change_own_list(own.draft_renewed)

    async def _bring_own_lists_up_to_date(self) -> None:
        if await self._parts.call(self._parts.messenger.account_reset.pending) is None:
            await self.sync_own_lists()
        else:
            await self.reset_account()

    async def take_in(self, lists: Sequence[SignedDeviceList]) -> None:
        """Take in links of our own chain that the server has, and tell the application what they change.

        Raises:
            AccountKeyChangedError, DeviceListForkError, InvalidSignatureError: see `OwnDevices.learn`.
        """
        own = self._parts.messenger.own_devices
        before = await self._parts.call(own.newest_list)
        self._tell(before, await self._parts.commit(own.learn, lists))

    def _tell(self, before: VerifiedDeviceList, after: VerifiedDeviceList) -> None:
        then, now = ({device.device_id for device in each.content.devices} for each in (before, after))
        if then != now:
            self._parts.emit(events.OwnDevicesChanged(tuple(sorted(now - then)), tuple(sorted(then - now))))
            self.on_lists()

    async def fetch_lists(self, user_id: UserId) -> None:
        """Take in what the server has beyond the newest list we know.

        Raises:
            KeyServerError, TokenProviderError: the server was not reached, or refused.
            DeviceListForkError, AccountKeyChangedError, InvalidSignatureError: see `Messenger.learn_device_lists`.
        """
        messenger = self._parts.messenger
        contact = await self._parts.call(messenger.contact, user_id)
        known = 0 if contact is None else (contact.gap or contact.device_list.position).seq
        lists = await self._parts.key_server.device_lists(user_id, from_seq=min(known + 1, MAX_TIMESTAMP))
        await self._learn(user_id, lists)
        if lists:
            self.on_lists()

    async def _missing(self, user_id: UserId) -> Sequence[DeviceAddress] | None:
        """Return the devices that lack a session; None if the user is no contact yet."""
        messenger = self._parts.messenger
        if await self._parts.call(messenger.contact, user_id) is None:
            return None
        try:
            return await self._parts.call(messenger.missing_sessions, user_id)
        except DeviceListStaleError:
            await self._ask_again(user_id)
            return await self._parts.call(messenger.missing_sessions, user_id)

    async def _ask_again(self, user_id: UserId) -> None:
        """Fetch a contact's lists before more is sent. Only one that is known to be outdated makes the server needed.

        Raises:
            See `fetch_lists`.
        """
        try:
            await self.fetch_lists(user_id)
        except SERVER_TROUBLE as error:
            contact = await self._parts.call(self._parts.messenger.contact, user_id)
            if contact is None or contact.is_stale:
                raise
            # Merely expired, or with a gap before it: the relay refuses what goes out under a list that is not current.
            self._parts.emit(events.Trouble(error.code))
            await self._learn(user_id, ())

    async def _learn(self, user_id: UserId, lists: Sequence[SignedDeviceList]) -> None:
        for notice in await self._parts.commit(self._parts.messenger.learn_device_lists, user_id, lists):
            self._parts.emit(notice)

    async def _contact(self, user_id: UserId, missing: Sequence[DeviceAddress] | None) -> None:
        """Claim bundles and start sessions. A device whose bundle is bad is skipped; the others are not held up."""
        messenger = self._parts.messenger
        device_ids = None if missing is None else [address.device_id for address in missing]
        claim = await self._parts.key_server.claim(user_id, secrets.token_bytes(16), device_ids)
        if claim.device_list is None:
            raise UserUnreachableError(user_id)
        contact = await self._parts.call(messenger.contact, user_id)
        served = claim.device_list.unverified
        if contact and (served.account_key != contact.account_key or served.seq > contact.device_list.content.seq + 1):
            # In order, and before a person is asked: in a list in between the old key may have closed itself.
            await self.fetch_lists(user_id)
        await self._learn(user_id, [claim.device_list])
        for bundle in claim.bundles:
            try:
                await self._parts.call(messenger.start_session, bundle)
            except ProtocolError as error:
                self._parts.emit(events.DeviceSkipped(bundle.address, error.code))

    async def _supply(self) -> None:
        """Publish what the server lacks. What it offers is asked first: an upload may have outlived our crash."""
        messenger, key_server = self._parts.messenger, self._parts.key_server
        counts = await key_server.prekey_counts()
        offered = [each for each in (counts.signed_prekey_id, counts.last_resort_id) if each is not None]
        left = ServerCounts(counts.one_time, counts.one_time_kem)
        due = await self._parts.commit(messenger.registration.due_prekeys, left, list(map(PreKeyId, offered)))
        if due.is_empty:
            return
        await key_server.publish_prekeys(
            PreKeyUpload(due.signed_prekey, due.one_time_prekeys, due.last_resort, due.one_time_kem_prekeys)
        )
        await self._parts.commit(messenger.registration.prekeys_published, due.prekey_ids)


def _nobody_waits() -> None:
    pass
