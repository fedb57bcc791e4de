"""What a user left with the key server to recover an account.

Owns: fetching it before there is a device.
Does not know about: what is in it (e2ee.recovery).
"""

import secrets
from typing import NoReturn

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.client import KeyServerClient
from transport_adapters.secure_client.parts import TokenProvider, checked


async def left_with_server(user_id: UserId, server: str, token_provider: TokenProvider) -> bytes:
    """Return the user's recovery blob.

    Raises:
        ValueError: there is none.
        KeyServerError, TokenProviderError: the server was not reached, or refused.
    """
    nobody_yet = DeviceAddress(user_id, DeviceId(secrets.token_bytes(DeviceId.LENGTH)))
    key_server = KeyServerClient(
        server, nobody_yet, host_token=checked(token_provider), sign=_no_device, next_counter=_no_counter
    )
    try:
        blob = await key_server.recovery_blob()
    finally:
        await key_server.aclose()
    if blob is None:
        raise ValueError(f"{user_id} left nothing with the server to recover from")
    return blob


def _no_device(_: bytes) -> NoReturn:
    raise RuntimeError("a blob is read under the host application's token alone")


async def _no_counter() -> int:
    raise RuntimeError("a blob is read under the host application's token alone")
