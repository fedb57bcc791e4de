"""The devices of our own account as an application under asyncio sees them.

Owns: the calls off the event loop, and their order with the server.
Does not know about: what a list may say (e2ee.own_devices), the steps of a link (linking.py).
"""

from collections.abc import Sequence
from typing import final

from e2ee.recovery import RecoveryCode
from e2ee.wire.identifiers import DeviceId
from transport_adapters.secure_client.directory import Directory
from transport_adapters.secure_client.linking import DEFAULT_LINK_PACE, Confirm, LinkPace, approve
from transport_adapters.secure_client.parts import Parts


@final
class Devices:
    """Reached as `SecureClient.devices`."""

    def __init__(self, parts: Parts, directory: Directory) -> None:
        self._parts, self._directory = parts, directory

    async def listed(self) -> Sequence[DeviceId]:
        """Return the devices in the newest list known, this one among them unless it was retired."""
        newest = await self._parts.call(self._parts.messenger.own_devices.newest_list)
        return [device.device_id for device in newest.content.devices]

    async def approve(self, code: str, confirm: Confirm, *, pace: LinkPace = DEFAULT_LINK_PACE) -> DeviceId:
        """Let a new device in, which shows this code (`SecureClient.join`); return its id once it is listed.

        `confirm` is given the signs to show, and returns whether the person saw the same ones on the new device. After
        that, the new device can do everything that this one can.

        Raises:
            MalformedMessageError: the code was mistyped.
            TooManyDevicesError: there is no room.
            LinkDeclinedError, LinkExpiredError, LinkMismatchError: nothing was changed.
            KeyServerError, TokenProviderError: the server was not reached, or refused.
        """
        return await approve(self._parts, self._directory, code, confirm, pace)

    async def set_recovery(self, code: RecoveryCode | None) -> None:
        """Leave the account's key with the server, sealed with a code, in the place of what was there; None deletes it.

        Contacts are not in it: those and what was decided about them are in an export (`Messenger.backup`).

        Raises:
            KeyServerError, TokenProviderError: the server was not reached, or refused.
        """
        blob = None if code is None else await self._parts.call(self._parts.messenger.backup.for_server, code)
        await self._parts.key_server.store_recovery_blob(blob)

    async def reset_account(self) -> None:
        """A device was lost or stolen: give the account a new key, which only this device holds; all others leave.

        Contacts are told that the key has changed, and have to accept it; safety numbers have to be compared anew. What
        they send under the old key is not read. Other devices that are still ours are linked again, in empty stores.

        Raises:
            KeyServerError, TokenProviderError: the server was not reached, or refused. If it may have accepted the new
                key all the same, opening the client finishes it.
        """
        await self._directory.reset_account()

    async def retire(self, device_id: DeviceId) -> None:
        """Take another device out of the list: it was wiped, or is not used any more.

        It holds the account's key all the same. If somebody else may have it, that is not enough.

        Raises:
            ValueError: it is this device.
            UnlistedDeviceError: it is not in the list.
            KeyServerError, TokenProviderError: the server was not reached, or refused.
        """
        if device_id == self._parts.messenger.address.device_id:
            raise ValueError("a device does not retire itself")
        await self._directory.change_own_list(lambda: self._parts.messenger.own_devices.draft_without(device_id))
