"""Connections that live across HTTP requests.

Owns: their ids, whose they are, what is remembered of one that has ended; frames that come by POST.
Does not know about: how frames go back (sse.py, longpoll.py), what they mean.

An id is 16 random bytes, and useful only with a token of the device that opened the connection. To anybody else it
looks as if there were none.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Sequence
from typing import Final, Protocol, final

from e2ee.errors import MalformedMessageError
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error, Hello
from transport_adapters.server.channel import Carriage, Channel
from transport_adapters.server.connection import Connection
from transport_adapters.server.http_requests import (
    Receive,
    RequestRefusedError,
    Scope,
    Send,
    bearer_token,
    header,
    read_posted,
    refuse,
    refused,
    reply,
    status_of,
)
from transport_adapters.server.ports import TokenRefusedError
from transport_adapters.server.relay import Relay
from transport_adapters.text import encode_frame, from_pair

_logger = logging.getLogger(__name__)

ID_HEADER: Final = b"e2ee-connection"
MAX_OF_DEVICE: Final = 4
"""Connections of one device that are open, or remembered. Beyond it the oldest is ended and forgotten."""
REMEMBERED: Final = 60.0
"""Seconds for which a request learns why its connection has ended."""
_CODES: Final = {
    CloseCode.TOKEN_EXPIRED: ErrorCode.TOKEN_INVALID,
    CloseCode.REVOKED: ErrorCode.DEVICE_REVOKED,
    CloseCode.TIMEOUT: ErrorCode.SILENT,
    CloseCode.REPLACED: ErrorCode.REPLACED,
    CloseCode.TOO_LARGE: ErrorCode.TOO_LARGE,
    CloseCode.TOO_FAST_OR_SLOW: ErrorCode.SLOW_CONSUMER,
    CloseCode.DRAINING: ErrorCode.DRAINING,
}


class HttpChannel(Channel, Protocol):
    """A channel over requests; it knows how its connection ended."""

    closed: asyncio.Event
    """Set when the relay has ended the connection."""
    code: CloseCode | None
    last: Error | None
    """The `error` frame that said so, if it came as far as the channel."""


@final
class HttpConnection:
    """One client's connection."""

    def __init__(self, owner: DeviceAddress, token: str, connection: Connection, channel: HttpChannel) -> None:
        self.id = secrets.token_bytes(16).hex()
        self.owner = owner
        self.token = token
        self.connection = connection
        self.channel = channel

    @property
    def reason(self) -> Error | None:
        """Why the connection has ended; None while it has not."""
        if not self.connection.closed.is_set():
            return None
        channel = self.channel
        if channel.last is not None:
            return channel.last
        # Ended by the client's side, or the last frame never got through.
        code = CloseCode.TIMEOUT if channel.code is None else channel.code
        return Error(_CODES[code], "the connection has ended", close_code=code)

    async def leave(self) -> None:
        """End the connection as its client asks; what is held open for it ends as well."""
        if self.reason is None:
            self.connection.disconnected()
            await self.channel.close(CloseCode.TIMEOUT)

    def take(self, frames: Sequence[object]) -> None:
        """Take frames off a request, in their order.

        Raises:
            RequestRefusedError: a `hello` with another token than the request's own.
        """
        self.connection.alive()
        for pair in frames:
            try:
                event, fields = from_pair(pair)
            except MalformedMessageError:
                event, fields = None, None  # which the connection refuses, and counts
            if event == Hello.EVENT and not self._is_ours(fields):
                detail = "the token of hello is not that of the Authorization header"
                raise RequestRefusedError(Error(ErrorCode.MALFORMED_FRAME, detail))
            self.connection.receive(event, fields)

    def _is_ours(self, hello: object) -> bool:
        token = hello.get("token") if isinstance(hello, dict) else None
        return isinstance(token, str) and hmac.compare_digest(token.encode(errors="replace"), self.token.encode())


@final
class HttpConnections:
    """The connections of one relay, by their ids."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._by_id: dict[str, HttpConnection] = {}
        self._by_owner: dict[DeviceAddress, list[HttpConnection]] = {}

    async def authorize(self, token: str) -> DeviceAddress:
        """Say whose a token is.

        Raises:
            RequestRefusedError: it does not count, or nobody can say now.
        """
        try:
            principal = await self._relay.tokens.verify(token)
        except TokenRefusedError as refusal:
            is_final = refusal.code == ErrorCode.DEVICE_REVOKED
            close_code = CloseCode.REVOKED if is_final else CloseCode.TOKEN_EXPIRED
            raise refused(ErrorCode(refusal.code), close_code, "the token is refused") from None
        except Exception as error:  # noqa: BLE001 - of the database or the key service; the client tries again
            _logger.error("A token could not be checked: %s", type(error).__name__)
            raise refused(ErrorCode.INTERNAL, CloseCode.DRAINING, "try again later") from None
        return principal.address

    def open(self, owner: DeviceAddress, token: str, channel: HttpChannel, carriage: Carriage) -> HttpConnection:
        """Make a connection; it has to say `hello` soon."""
        of_owner = self._by_owner.setdefault(owner, [])
        while len(of_owner) >= MAX_OF_DEVICE:
            oldest = of_owner[0]
            oldest.connection.end(ErrorCode.FLOODING, CloseCode.TOO_FAST_OR_SLOW, "too many connections of one device")
            self._forget(oldest)
        made = HttpConnection(owner, token, self._relay.connect(channel, carriage), channel)
        self._by_id[made.id] = made
        of_owner.append(made)
        self._by_owner[owner] = of_owner  # _forget may have dropped an empty list
        self._relay.spawn(self._remember(made))
        return made

    async def find(self, connection_id: str, token: str) -> HttpConnection:
        """Find a connection of the token's device.

        Raises:
            RequestRefusedError: the token does not count; there is no such connection; or it is another device's.
        """
        found = self._by_id.get(connection_id)
        # The token that opened it, or refreshed it, need not be asked about: the connection itself watches it.
        if found is not None and hmac.compare_digest(found.token.encode(), token.encode()):
            return found
        owner = await self.authorize(token)
        if found is None or found.owner != owner:
            raise refused(ErrorCode.UNKNOWN_CONNECTION, CloseCode.TIMEOUT, "say hello again", 404)
        found.token = token
        return found

    async def _remember(self, made: HttpConnection) -> None:
        await made.connection.closed.wait()
        asyncio.get_running_loop().call_later(REMEMBERED, self._forget, made)

    def _forget(self, made: HttpConnection) -> None:
        if self._by_id.pop(made.id, None) is not None:
            of_owner = self._by_owner[made.owner]
            of_owner.remove(made)
            if not of_owner:
                del self._by_owner[made.owner]


@final
class FramesEndpoint:
    """`POST`: frames of a connection that is open; what they cause goes its own way back. `DELETE`: its end."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            found = await self._connections.find(header(scope, ID_HEADER), bearer_token(scope))
            if scope["method"] == "DELETE":
                await found.leave()
                await reply(send, 202, [])
                return
            posted = await read_posted(scope, receive)
            if found.reason is None:
                found.take(posted.frames)
        except RequestRefusedError as refusal:
            await refuse(send, refusal)
            return
        if found.reason is None:
            await reply(send, 202, [])
        else:
            await reply(send, status_of(found.reason), [encode_frame(found.reason)])
