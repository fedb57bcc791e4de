"""Being woken while no connection is open: what an application asks of `SecureClient.push`.

Owns: nothing but the words; the subscription is kept by the server.
Does not know about: push services, how the application gets a subscription from its platform.
"""

from typing import final

from keyserver.client import KeyServerClient, PushServices


@final
class Push:
    """Where this device is woken. A push says only "look": connect, and what waits comes."""

    def __init__(self, key_server: KeyServerClient) -> None:
        self._key_server = key_server

    async def services(self) -> PushServices:
        """Return through which services the server can wake this device, and the key that browsers subscribe with.

        Raises:
            KeyServerError: the server cannot be reached.
        """
        return await self._key_server.push_services()

    async def subscribe(self, kind: str, target: str, public_key: bytes = b"", auth: bytes = b"") -> None:
        """Have this device woken, in place of where it was before.

        `kind` is `web`, with the endpoint as `target` and the subscription's p256dh (65 bytes) and auth (16 bytes), or
        `fcm` or `apns`, with the platform's token.

        Raises:
            KeyServerRefusedError: the server serves no such service, or takes no such endpoint.
            KeyServerError: the server cannot be reached.
        """
        await self._key_server.subscribe_push(kind, target, public_key, auth)

    async def unsubscribe(self) -> None:
        """Have this device woken no more.

        Raises:
            KeyServerError: the server cannot be reached.
        """
        await self._key_server.unsubscribe_push()
