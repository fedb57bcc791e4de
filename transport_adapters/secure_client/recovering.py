"""What the key server has of a user who has no device (any more): what was left to recover from, the chain of lists.

Owns: fetching it before there is a device.
Does not know about: what is in it (e2ee.recovery, e2ee.account_reset).
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, final

from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.client import KeyServerClient
from transport_adapters.base import TransportError
from transport_adapters.secure_client.parts import TokenProvider, checked


@final
class NoAccountError(TransportError):
    """The server knows no account of this user, so there is none to be reset."""

    code = "no_account"
    remedy = "Check the name and the server; a first device makes the account"

    def __init__(self, user_id: UserId) -> None:
        super().__init__(f"There is no account of {user_id}")


async def left_with_server(user_id: UserId, server: str, token_provider: TokenProvider) -> bytes:
    """Return the user's recovery blob.

    Raises:
        ValueError: there is none.
        KeyServerError, TokenProviderError: the server was not reached, or refused.
    """
    async with _without_device(user_id, server, token_provider) as key_server:
        blob = await key_server.recovery_blob()
    if blob is None:
        raise ValueError(f"{user_id} left nothing with the server to recover from")
    return blob


async def lists_at_server(user_id: UserId, server: str, token_provider: TokenProvider) -> Sequence[SignedDeviceList]:
    """Return the user's device lists, oldest first, unverified.

    Raises:
        NoAccountError: there are none.
        KeyServerError, TokenProviderError: the server was not reached, or refused.
    """
    async with _without_device(user_id, server, token_provider) as key_server:
        lists = await key_server.device_lists(user_id, registered=False)
    if not lists:
        raise NoAccountError(user_id)
    return lists


@asynccontextmanager
async def _without_device(
    user_id: UserId, server: str, token_provider: TokenProvider
) -> AsyncIterator[KeyServerClient]:
    nobody_yet = DeviceAddress(user_id, DeviceId(secrets.token_bytes(DeviceId.LENGTH)))
    key_server = KeyServerClient(
        server, nobody_yet, host_token=checked(token_provider), sign=_no_device, next_counter=_no_counter
    )
    try:
        yield key_server
    finally:
        await key_server.aclose()


def _no_device(_: bytes) -> NoReturn:
    raise RuntimeError("this is read under the host application's token alone")


async def _no_counter() -> int:
    raise RuntimeError("this is read under the host application's token alone")
