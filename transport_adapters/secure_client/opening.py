"""Putting a client together: store, messenger, key server, transport.

Owns: which store is opened or made, whose it must be, the default transport.
Does not know about: what the client does then.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

from e2ee.errors import AccountNotFoundError, MalformedMessageError
from e2ee.messenger import Messenger
from e2ee.ports import Store
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import ConversationId, UserId, parse_conversation_id, parse_user_id
from keyserver.client import KeyServerClient
from transport_adapters.base import Cursor, EnvelopeTransport
from transport_adapters.failover import DEFAULT_FAILOVER, FailoverOptions, FailoverTransport
from transport_adapters.link import Linked
from transport_adapters.secure_client.parts import OnEvent, Pace, Parts, StoreThread, TokenProvider, checked

_WHOSE: Final = "the store holds no account yet: say whose it is (user=...)"


class TransportFactory(Protocol):
    """Makes the transport, once the device's tokens and its cursor are known."""

    def __call__(
        self, server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
    ) -> EnvelopeTransport:
        """Make a transport to the server. `token` gives a device token, `cursor` how far the store has come."""
        ...


def socketio_transport(
    server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
) -> EnvelopeTransport:
    """Make the default transport."""
    from transport_adapters.socketio import SocketIoTransport

    return SocketIoTransport(server, token=token, cursor=cursor)


def websocket_transport(
    server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
) -> EnvelopeTransport:
    """Make a transport over a plain WebSocket."""
    from transport_adapters.websocket import WebSocketTransport

    return WebSocketTransport(server, token=token, cursor=cursor)


def sse_transport(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
    """Make a transport over server-sent events and POSTs, for networks that let no WebSocket through."""
    from transport_adapters.sse import SseTransport

    return SseTransport(server, token=token, cursor=cursor)


def longpoll_transport(
    server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
) -> EnvelopeTransport:
    """Make a transport over long-polling, for networks that let no stream through either."""
    from transport_adapters.longpoll import LongPollTransport

    return LongPollTransport(server, token=token, cursor=cursor)


def mqtt_transport(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
    """Make a transport over the MQTT broker that the server names, if it has one."""
    from transport_adapters.mqtt import MqttTransport

    return MqttTransport(server, token=token, cursor=cursor)


def xmpp_transport(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
    """Make a transport over XMPP from environment variables: see `transport_adapters.xmpp.from_environment`.

    Raises:
        ValueError: a variable is missing or wrong; the text names it.
    """
    from transport_adapters.xmpp import from_environment

    return from_environment(os.environ)(server, token=token, cursor=cursor)


def failover_transport(
    primary: TransportFactory, fallback: TransportFactory, options: FailoverOptions = DEFAULT_FAILOVER
) -> TransportFactory:
    """Return what makes a transport with a fallback, for example of `socketio_transport` and `websocket_transport`.

    A factory of your own may make either, if what it makes is `Linked`.
    """

    def make(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
        first, second = (each(server, token=token, cursor=cursor) for each in (primary, fallback))
        if not isinstance(first, Linked) or not isinstance(second, Linked):
            raise TypeError("failover needs transports that are links: two that are not would displace each other")
        return FailoverTransport(first, second, options)

    return make


TRANSPORTS: Final[Mapping[str, TransportFactory]] = {
    "socketio": socketio_transport,
    "websocket": websocket_transport,
    "sse": sse_transport,
    "longpoll": longpoll_transport,
    "mqtt": mqtt_transport,
    "xmpp": xmpp_transport,
}
"""By the names that configurations use."""


@final
@dataclass(frozen=True, slots=True)
class Going:
    """How a client goes online, as the application said it."""

    server: str
    host_token: TokenProvider
    transport: TransportFactory | None
    """Socket.IO unless said."""
    on_event: OnEvent | None
    pace: Pace


def make_parts(messenger: Messenger, going: Going) -> Parts:
    """Put together what a client of this device works with.

    Raises:
        InsecureUrlError, InsecureServerUrlError: plaintext beyond this machine.
    """
    thread = StoreThread()

    async def next_counter() -> int:
        return await thread.call(messenger.registration.next_assertion_counter)

    async def cursor() -> Cursor:
        return Cursor(*await thread.call(messenger.delivery.cursor))

    key_server = KeyServerClient(
        going.server,
        messenger.address,
        host_token=checked(going.host_token),
        sign=messenger.registration.sign_assertion,
        next_counter=next_counter,
        keys=(messenger.account.party.device_signing_key, messenger.account.party.identity_key),
    )
    make = going.transport or socketio_transport
    transport = make(going.server, token=_DeviceToken(key_server), cursor=cursor)
    return Parts(messenger, thread, key_server, transport, going.on_event, going.pace)


@final
class _DeviceToken:
    """The device token as a transport gets it (`RenewableToken`)."""

    def __init__(self, key_server: KeyServerClient) -> None:
        self._key_server = key_server

    async def __call__(self) -> str:
        return await self._key_server.device_token()

    def refused(self) -> None:
        self._key_server.forget_token()


@asynccontextmanager
async def opening(
    store: str | Path | Store, passphrase: str | None, key: bytes | None, user: str | None
) -> AsyncIterator[Store]:
    """Open or make a store. It is closed again if the block does not come to its end."""
    opened = await asyncio.to_thread(_open_store, store, passphrase, key, user)
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


@asynccontextmanager
async def opening_empty(
    store: str | Path | Store, passphrase: str | None, key: bytes | None, user: str | None
) -> AsyncIterator[Store]:
    """Open or make a store that is to take a new device: see `opening`.

    Raises:
        ValueError: it holds an account already.
    """
    async with opening(store, passphrase, key, user) as opened:
        await asyncio.to_thread(_refuse_account, opened)
        yield opened


def _open_store(store: str | Path | Store, passphrase: str | None, key: bytes | None, user: str | None) -> Store:
    if not isinstance(store, str | Path):
        return store
    path = Path(store)
    if SqliteStore.exists(path):
        return SqliteStore.open(path, passphrase=passphrase, key=key)
    if user is None:
        raise ValueError(_WHOSE)  # before a mistyped path makes a new store
    return SqliteStore.create(path, passphrase=passphrase, key=key)


def open_messenger(store: Store, user: str | None, sent_log: bool) -> Messenger:
    try:
        messenger = Messenger.open(store, sent_log=sent_log)
    except AccountNotFoundError:
        if user is None:
            raise ValueError(_WHOSE) from None
        return Messenger.create(store, application_user(user), sent_log=sent_log)
    if user is not None and messenger.address.user_id != user:
        raise ValueError(f"the store belongs to {messenger.address.user_id}, not to {user}")
    return messenger


def _refuse_account(store: Store) -> None:
    """Refuse a store that cannot take a new device.

    Raises:
        ValueError: it holds an account already.
    """
    try:
        messenger = Messenger.open(store)
    except AccountNotFoundError:
        return
    raise ValueError(f"the store holds a device of {messenger.address.user_id} already")


def application_conversation(text: str | None) -> ConversationId:
    """Parse a conversation id given by the application; None is the default conversation."""
    try:
        return parse_conversation_id(text or "")
    except MalformedMessageError as error:
        raise ValueError(error.args[0]) from None  # without the remedy, which is for hostile input


def application_user(text: str) -> UserId:
    """Parse a name given by the application: a bad one is its mistake, not hostile input."""
    try:
        return parse_user_id(text)
    except MalformedMessageError as error:
        raise ValueError(error.args[0]) from None  # without the remedy, which is for hostile input
