"""The client's dealings with the key server: registration, prekey supply, first contact, device lists.

Owns: when the key server is asked, and what is done with its answers.
Does not know about: messages on their way.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

from e2ee.errors import DeviceListStaleError, E2EEError, ProtocolError, SessionNotFoundError
from e2ee.prekey_supply import ServerCounts
from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.client import KeyServerError, PreKeyUpload
from transport_adapters import events
from transport_adapters.base import TransportError
from transport_adapters.secure_client.parts import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, Parts

T = TypeVar("T")

_PREKEY_CHECK_SECONDS: Final = 600


@final
class UserUnreachableError(TransportError):
    """The server has no device of this user to offer: unknown user, no device, or contact not allowed."""

    code = "user_unreachable"
    remedy = "Check the name; the user must have opened the application once"

    def __init__(self, user_id: UserId) -> None:
        super().__init__(f"No device of {user_id} can be reached")
        self.user_id = user_id


@final
class Directory:
    """Asks the key server what the messenger lacks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._contacting: dict[UserId, asyncio.Lock] = {}

    async def register(self) -> None:
        """Make this device known: its keys, its list, its prekeys. Each step may be repeated.

        Raises:
            KeyServerError: the server did not answer, or refused.
        """
        messenger, key_server = self._parts.messenger, self._parts.key_server
        party = messenger.account.party
        await key_server.register_device(party.device_signing_key, party.identity_key)
        own = await self._parts.call(messenger.own_device_list)
        await key_server.publish_device_list(own.signed)
        await self._publish_prekeys(ServerCounts(0, 0))
        await self._parts.call(messenger.mark_registered)

    async def keep_supplied(self) -> None:
        """Keep one-time prekeys at the server and rotate the signed ones, for ever."""
        failures = 0
        while True:
            await self._parts.online.wait()
            try:
                counts = await self._parts.key_server.prekey_counts()
                await self._publish_prekeys(ServerCounts(counts.one_time, counts.one_time_kem))
                failures, pause = 0, float(_PREKEY_CHECK_SECONDS)
            except KeyServerError as error:
                self._parts.emit(events.Trouble(error.code))
                pause = min(FIRST_RETRY_SECONDS * 2**failures, MAX_RETRY_SECONDS)
                failures = min(failures + 1, 10)
            # Jitter, so that a refill does not betray the moment at which a first message was read.
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))

    async def with_sessions(self, user_id: UserId, queue: Callable[[], T]) -> T:
        """Run `queue`, which encrypts to a user, after fetching what it lacks. One first contact per user at a time.

        Raises:
            UserUnreachableError: the server offers no device of this user that can be encrypted to.
            KeyServerError: it was needed, and did not answer.
            DeviceListForkError, AccountKeyChangedError, InvalidSignatureError: see `Messenger.learn_device_lists`.
        """
        async with self._contacting.setdefault(user_id, asyncio.Lock()):
            missing = await self._missing(user_id)
            if missing != ():
                await self._contact(user_id, missing)
            try:
                return await self._parts.call(queue)
            except SessionNotFoundError:
                raise UserUnreachableError(user_id) from None

    async def repair_lists(self, user_id: UserId) -> None:
        """Bring our idea of a user's device list, or the server's idea of ours, up to date."""
        messenger, key_server = self._parts.messenger, self._parts.key_server
        try:
            if user_id == messenger.address.user_id:
                own = await self._parts.call(messenger.own_device_list)
                await key_server.publish_device_list(own.signed)
                return
            contact = await self._parts.call(messenger.contact, user_id)
            known = contact.device_list.content.seq if contact else 0
            lists = await key_server.device_lists(user_id, from_seq=known + 1)
            await self._parts.call(messenger.learn_device_lists, user_id, lists)
        except (KeyServerError, E2EEError) as error:
            self._parts.emit(events.Trouble(error.code))

    async def _missing(self, user_id: UserId) -> Sequence[DeviceAddress] | None:
        """Return the devices that lack a session; None if not even the device list is known."""
        try:
            return await self._parts.call(self._parts.messenger.missing_sessions, user_id)
        except DeviceListStaleError:
            return None

    async def _contact(self, user_id: UserId, missing: Sequence[DeviceAddress] | None) -> None:
        """Claim bundles and start sessions. A device whose bundle is bad is skipped; the others are not held up."""
        messenger = self._parts.messenger
        device_ids = None if missing is None else [address.device_id for address in missing]
        claim = await self._parts.key_server.claim(user_id, secrets.token_bytes(16), device_ids)
        if claim.device_list is None:
            raise UserUnreachableError(user_id)
        await self._parts.call(messenger.learn_device_lists, user_id, [claim.device_list])
        for bundle in claim.bundles:
            try:
                await self._parts.call(messenger.start_session, bundle)
            except ProtocolError as error:
                self._parts.emit(events.DeviceSkipped(bundle.address, error.code))

    async def _publish_prekeys(self, counts: ServerCounts) -> None:
        due = await self._parts.call(self._parts.messenger.due_prekeys, counts)
        if due.is_empty:
            return
        await self._parts.key_server.publish_prekeys(
            PreKeyUpload(due.signed_prekey, due.one_time_prekeys, due.last_resort, due.one_time_kem_prekeys)
        )
        await self._parts.call(self._parts.messenger.prekeys_published, due.prekey_ids)
