"""Contacts as an application under asyncio sees them: comparing, deciding, and what a decision sets in motion.

Owns: the calls off the event loop; that an accepted change is followed by reading what had waited for it.
Does not know about: what the decisions mean (e2ee.contact_book).
"""

from collections.abc import Callable, Sequence
from typing import final

from e2ee.contact_book import AccountKeyChange, ContactBook
from e2ee.errors import AccountKeyChangedError, ProtocolError
from e2ee.stores.trust_records import TrustDecision, TrustPolicy
from e2ee.wire.identifiers import UserId
from transport_adapters import events
from transport_adapters.secure_client.directory import Directory
from transport_adapters.secure_client.inbound import Inbound
from transport_adapters.secure_client.opening import application_user
from transport_adapters.secure_client.parts import LOCAL_FAULTS, SERVER_TROUBLE, Parts

Wake = Callable[[bool], None]
"""Says that something was queued, and whether something is due besides."""


@final
class Contacts:
    """Reached as `SecureClient.contacts`. Errors are those of `e2ee.contact_book.ContactBook`."""

    def __init__(self, parts: Parts, directory: Directory, inbound: Inbound, wake: Wake) -> None:
        self._parts, self._directory, self._inbound, self._wake = parts, directory, inbound, wake

    @property
    def _book(self) -> ContactBook:
        return self._parts.messenger.contact_book

    async def users(self) -> Sequence[UserId]:
        """Return the user ids of all contacts, sorted."""
        return await self._parts.call(self._book.users)

    async def safety_number(self, user: str) -> str:
        """Return the 60 digits to compare with a user, who sees the same."""
        return await self._parts.call(self._book.safety_number, application_user(user))

    async def qr_text(self, user: str) -> str:
        """Return the text of the QR code to show to a user."""
        return await self._parts.call(self._book.qr_text, application_user(user))

    async def compare(self, user: str, theirs: str) -> None:
        """Compare what a user shows, digits or the text of a QR code, and record that it is the same. Our other devices
        are told.
        """
        self._wake(await self._parts.call(self._book.compare, application_user(user), theirs))

    async def withdraw(self, user: str) -> None:
        """Take a verification back. Our other devices are told."""
        self._wake(await self._parts.call(self._book.withdraw, application_user(user)))

    async def is_verified(self, user: str) -> bool:
        """Say whether to show a user as verified: the safety number was compared, under the account key that is pinned
        now; the lists of the user's devices were all seen, and the newest has not expired.

        Lists that this device has not seen are fetched and checked first. If the server does not answer, or not with
        them, the user is not shown as verified.
        """
        user_id, book = application_user(user), self._book
        if await self._parts.call(book.lacks_lists, user_id):
            await self._directory.repair_lists(user_id)
        return await self._parts.call(book.is_verified, user_id)

    async def change(self, user: str) -> AccountKeyChange | None:
        """Return the change of a user's account key that waits for a decision, if there is one."""
        return await self._parts.call(self._book.change, application_user(user))

    async def accept_change(self, user: str, new_safety_number: str) -> None:
        """Pin the account key with this safety number, and read what had waited for it."""
        user_id = application_user(user)
        await self._parts.call(self._book.accept_change, user_id, new_safety_number)
        await self._reconsider(user_id)

    async def decline_change(self, user: str) -> None:
        """Stay with the pinned account key."""
        await self._parts.call(self._book.decline_change, application_user(user))

    async def policy(self) -> TrustPolicy:
        """Return whom this device sends to."""
        return await self._parts.call(self._book.policy)

    async def set_policy(self, policy: TrustPolicy) -> None:
        """Say whom this device sends to, from now on."""
        await self._parts.call(self._book.set_policy, policy)

    async def decisions(self, user: str | None = None) -> Sequence[TrustDecision]:
        """Return what was decided about a user, or about everybody, oldest first."""
        return await self._parts.call(self._book.decisions, None if user is None else application_user(user))

    async def run(self) -> None:
        """Look at what comes under changed account keys, and at what waited for a decision before, for ever."""
        await self._parts.online.wait()
        self._inbound.kept.update(await self._parts.call(self._parts.messenger.contact_book.waiting_for_trust))
        while True:
            while self._inbound.kept:
                await self._look(self._inbound.kept.pop())
            self._inbound.kept_changed.clear()
            await self._inbound.kept_changed.wait()

    async def _look(self, user_id: UserId) -> None:
        """Fetch the list that a kept message was sent under, so that a person sees both numbers."""
        try:
            await self._directory.fetch_lists(user_id)
        except AccountKeyChangedError as error:
            numbers = error.old_safety_number, error.new_safety_number
            self._parts.emit(events.TrustNeeded(user_id, *numbers))
            return
        except (*SERVER_TROUBLE, *LOCAL_FAULTS, ProtocolError) as error:
            self._parts.emit(events.Trouble(error.code))
            self._parts.emit(events.TrustNeeded(user_id))
            return
        change = await self.change(user_id)
        if change is None:
            await self._reconsider(user_id)
        else:
            self._parts.emit(events.TrustNeeded(user_id, change.old_safety_number, change.new_safety_number))

    async def _reconsider(self, user_id: UserId) -> None:
        """Read what was kept of a user under a changed account key, as far as it may be read now."""
        for reception in await self._parts.commit(self._parts.messenger.reconsider, user_id):
            self._inbound.report(reception)
