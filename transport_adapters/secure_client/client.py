"""SecureClient: what an application uses. Messenger + key directory + transport, under asyncio.

Owns: opening and closing a device, the application's view of messages, the life of the background work.
Does not know about: cryptography (e2ee), frames (transports), HTTP (keyserver.client).

    async with await SecureClient.open(store="alice.db", passphrase=..., server=..., token_provider=...) as client:
        await client.send("bob", "hello")
        async for message in client:
            print(message.sender, message.data)

A queued message reaches the server exactly once, over crashes and reconnects. A received one is committed to the store
before it is acknowledged, and shown to the application at least once, under a stable message id.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, final

from e2ee.export_file import owner_of
from e2ee.messenger import DEFAULT_TTL, Messenger
from e2ee.ports import Store
from e2ee.recovery import Purpose, RecoveryCode
from e2ee.sending import Queued
from e2ee.wire.call_signal import CallSignal
from e2ee.wire.content import ReceiptType
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress, MessageId, UserId
from transport_adapters.secure_client.background import Background
from transport_adapters.secure_client.calls import Call, Calls
from transport_adapters.secure_client.contacts import Contacts
from transport_adapters.secure_client.devices import Devices
from transport_adapters.secure_client.directory import Directory
from transport_adapters.secure_client.history import History
from transport_adapters.secure_client.inbound import Inbound, Live
from transport_adapters.secure_client.linking import (
    DEFAULT_LINK_PACE,
    Confirm,
    LinkPace,
    ShowCode,
    join,
    until_listed,
)
from transport_adapters.secure_client.messages import Message, Received, present
from transport_adapters.secure_client.opening import (
    Going,
    TransportFactory,
    application_conversation,
    application_user,
    failover_transport,
    longpoll_transport,
    make_parts,
    mqtt_transport,
    open_messenger,
    opening,
    opening_empty,
    socketio_transport,
    sse_transport,
    websocket_transport,
)
from transport_adapters.secure_client.outbound import Outbound
from transport_adapters.secure_client.parts import (
    DEFAULT_PACE,
    SERVER_TROUBLE,
    OnEvent,
    Pace,
    Parts,
    TokenProvider,
)
from transport_adapters.secure_client.presence import Presence
from transport_adapters.secure_client.push import Push
from transport_adapters.secure_client.receipts import Receipts
from transport_adapters.secure_client.recovering import left_with_server, lists_at_server
from transport_adapters.secure_client.tending import Tending

__all__ = [
    "Message",
    "Received",
    "SecureClient",
    "TransportFactory",
    "failover_transport",
    "longpoll_transport",
    "mqtt_transport",
    "socketio_transport",
    "sse_transport",
    "websocket_transport",
]

_LAST_ACKS_SECONDS: Final = 2.0
"""For the acknowledgements that are due when a client is closed; lost ones cost a repeated delivery each."""


@final
class SecureClient:
    """One device online. Make it with `open`, close it with `aclose` or `async with`."""

    def __init__(self, store: Store, parts: Parts) -> None:
        """Put a client together from its parts; applications call `open`."""
        self._store, self._parts = store, parts
        self._background = Background(parts.emit)
        self._directory = Directory(parts)
        self._outbound = Outbound(parts, self._directory)
        self._tending = Tending(parts, self._directory, self._outbound)
        self._directory.on_lists = self._tending.wake
        self.presence = Presence(parts)
        """Who is there, and who is writing. Off until told otherwise."""
        self._calls = Calls(self.address.device_id, self._say, parts.emit, parts.pace.ring)
        self.receipts = Receipts(parts, self._directory, self._outbound)
        """Telling others that their messages were delivered."""
        self.history = History(parts, self._mark_read, self._background.goes_on)
        """Past messages and conversations, if the application has them kept."""
        live = Live(self.presence, self._calls, self.history)
        self._inbound = Inbound(parts, self._outbound, self._tending, live)
        self.devices = Devices(parts, self._directory)
        """The devices of our own account."""
        self.contacts = Contacts(parts, self._directory, self._inbound, self._wake)
        """Safety numbers, verification, changed account keys."""
        self._closing: asyncio.Task[None] | None = None
        self._asking = False
        self._shown: int | None = None

    @classmethod
    async def open(  # noqa: PLR0913 - keywords only; each has one meaning and most have a default
        cls,
        *,
        store: str | Path | Store,
        server: str,
        token_provider: TokenProvider,
        transport: TransportFactory | None = None,
        passphrase: str | None = None,
        key: bytes | None = None,
        user: str | None = None,
        on_event: OnEvent | None = None,
        pace: Pace = DEFAULT_PACE,
        sent_log: bool = True,
    ) -> "SecureClient":
        """Open the device kept in `store`, or make it for `user`; register it if it is new; go online.

        `store` is a path, encrypted under `passphrase` or a 32-byte `key`, or a Store, which the client closes.
        `transport` is Socket.IO by default. A device that was registered before opens without the network, too.
        `on_event` is called in the event loop and must not wait. What it raises goes to the loop's exception handler
        and stops nothing. `sent_log` keeps what is sent for 14 days, encrypted, so that a device that could not read it
        can be sent it again.

        Raises:
            StateError: the store cannot be opened.
            ValueError: there is no account yet and no `user`, or the store is another user's.
            KeyServerError, TokenProviderError: the first registration failed.
            InsecureUrlError, InsecureServerUrlError: plaintext beyond this machine.
        """
        going = Going(server, token_provider, transport, on_event, pace)
        async with opening(store, passphrase, key, user) as opened:
            messenger = await asyncio.to_thread(open_messenger, opened, user, sent_log)
            client = cls(opened, make_parts(messenger, going))
        await client._go_online()
        return client

    @classmethod
    async def join(  # noqa: PLR0913 - keywords only; each has one meaning and most have a default
        cls,
        *,
        store: str | Path | Store,
        server: str,
        token_provider: TokenProvider,
        user: str,
        show_code: ShowCode,
        confirm: Confirm,
        transport: TransportFactory | None = None,
        passphrase: str | None = None,
        key: bytes | None = None,
        on_event: OnEvent | None = None,
        pace: Pace = DEFAULT_PACE,
        link_pace: LinkPace = DEFAULT_LINK_PACE,
        sent_log: bool = True,
    ) -> "SecureClient":
        """Link a further device to the account of `user`, in an empty store; register it; go online.

        `show_code` is called with what the person carries to a device that belongs to the account, which calls
        `devices.approve`. `confirm` is given the signs to show, and returns whether the person saw the same ones there.
        The other parameters are those of `open`. All of it takes ten minutes at most; until the end nothing is stored.

        Raises:
            ValueError: the store holds an account already.
            LinkDeclinedError, LinkExpiredError, LinkMismatchError, InvalidSignatureError, AuthenticationError: nothing
                was taken over.
            StateError, KeyServerError, TokenProviderError: see `open`. If it was only to be put into the list, `open`
                finishes it later.
        """
        going = Going(server, token_provider, transport, on_event, pace)
        async with opening_empty(store, passphrase, key, user) as opened:
            user_id = application_user(user)
            linked, until = await join(user_id, server, token_provider, show_code, confirm, link_pace)
            messenger = await asyncio.to_thread(Messenger.join, opened, linked, sent_log=sent_log)
            client = cls(opened, make_parts(messenger, going))
        await client._go_online(lambda: until_listed(client._directory, until, link_pace))
        return client

    @classmethod
    async def recover(  # noqa: PLR0913 - keywords only; each has one meaning and most have a default
        cls,
        *,
        store: str | Path | Store,
        server: str,
        token_provider: TokenProvider,
        user: str,
        code: RecoveryCode,
        export: bytes | BinaryIO | None = None,
        transport: TransportFactory | None = None,
        passphrase: str | None = None,
        key: bytes | None = None,
        on_event: OnEvent | None = None,
        pace: Pace = DEFAULT_PACE,
        sent_log: bool = True,
    ) -> "SecureClient":
        """Make a new device of an account whose devices are all lost, from an export (`Messenger.backup`), or without
        one from what was left with the server (`devices.set_recovery`). A file is given open, and read in pieces.

        The store is empty. The new device takes the place of all others: those that still live are out. The other
        parameters are those of `open`, which finishes what could not be finished here, but for the history: if that is
        interrupted, `history.merge` goes on with it.

        Raises:
            ValueError: the store holds an account already, the export is another user's, or nothing was left with the
                server.
            WrongRecoveryCodeError, MalformedMessageError, UnsupportedVersionError, InvalidSignatureError: see
                `Messenger.recover`.
            KeyServerRefusedError: `account_key_changed`: the account was given another key since the export was made.
            StateError, KeyServerError, TokenProviderError: see `open`.
        """
        going = Going(server, token_provider, transport, on_event, pace)
        async with opening_empty(store, passphrase, key, user) as opened:
            purpose = Purpose.RECOVERY if export is None else Purpose.EXPORT
            given = export
            if given is None:
                given = await left_with_server(application_user(user), server, token_provider)
            if owner_of(given)[0] != user:
                raise ValueError(f"the export is not one of {user}")
            messenger = await asyncio.to_thread(
                Messenger.recover, opened, given, code, purpose=purpose, sent_log=sent_log
            )
            client = cls(opened, make_parts(messenger, going))
        await client._go_online()
        return client

    @classmethod
    async def start_over(  # noqa: PLR0913 - keywords only; each has one meaning and most have a default
        cls,
        *,
        store: str | Path | Store,
        server: str,
        token_provider: TokenProvider,
        user: str,
        transport: TransportFactory | None = None,
        passphrase: str | None = None,
        key: bytes | None = None,
        on_event: OnEvent | None = None,
        pace: Pace = DEFAULT_PACE,
        sent_log: bool = True,
    ) -> "SecureClient":
        """Give the account of a user a new key, which a new device alone holds: all devices are lost, and there is
        nothing to `recover` from. Who still has a device uses `devices.reset_account`, which also closes the old key.

        The store is empty. All other devices are out. Contacts see that the key has changed and have to accept it;
        what they send under the old key is not read. The other parameters are those of `open`, which finishes what
        could not be finished here.

        Raises:
            NoAccountError: the server knows no account of the user.
            ValueError: the store holds an account already.
            MalformedMessageError, InvalidSignatureError: what the server has is no chain of lists of the user.
            StateError, KeyServerError, TokenProviderError: see `open`.
        """
        going = Going(server, token_provider, transport, on_event, pace)
        user_id = application_user(user)
        lists = await lists_at_server(user_id, server, token_provider)
        async with opening_empty(store, passphrase, key, user) as opened:
            messenger = await asyncio.to_thread(Messenger.start_over, opened, user_id, lists, sent_log=sent_log)
            client = cls(opened, make_parts(messenger, going))
        await client._go_online()
        return client

    @property
    def address(self) -> DeviceAddress:
        """This device."""
        return self._parts.messenger.address

    @property
    def messenger(self) -> Messenger:
        """The library underneath. Its calls block on the store."""
        return self._parts.messenger

    async def send(
        self,
        user: str,
        data: bytes | str,
        *,
        conversation: str | None = None,
        lane: Lane = Lane.CHAT,
        ttl: int | None = None,
    ) -> MessageId:
        """Encrypt up to 64 KiB to all devices of a user and queue it durably; delivery goes on in the background.

        The network is needed only at first contact. `ttl` is in seconds, 28 days by default and at most.

        Raises:
            UserUnreachableError: the server offers no device of this user.
            KeyServerError, TokenProviderError: the key server was needed and did not answer.
            DeviceListStaleError: the user has a newer device list than the server gives out.
            DeviceListForkError, AccountKeyChangedError, InvalidSignatureError: a human must look first.
            StoreUnavailableError: the disk refused; nothing was queued.
            ValueError: data too long, or `ttl` out of range.
        """
        user_id, conversation_id = application_user(user), application_conversation(conversation)
        seconds = DEFAULT_TTL if ttl is None else ttl

        def queue() -> Queued:
            messenger = self._parts.messenger
            return messenger.send(user_id, data, conversation=conversation_id, lane=lane, ttl=seconds)

        queued = await self._directory.with_sessions(user_id, queue)
        self._wake(queued.tend)
        return queued.message_id

    async def mark_read(self, message: Received, *, receipt: bool = True) -> None:
        """Say that a message was read: a `Message`, or what the application kept of it.

        The history and our other devices take note of it, whatever follows. Its sender is told if `receipt`.

        Raises:
            See `send`: the sender was not told.
        """
        await self._mark_read(message.sender, (message.message_id,), receipt)

    async def mark_delivered(self, *messages: Received) -> None:
        """Tell the senders of messages that this device has them. Nothing does so by itself unless
        `receipts.automatic` is set.

        Raises:
            See `send`.
        """
        await self.receipts.delivered(messages)

    async def call(self, user: str, data: bytes = b"") -> Call:
        """Ring all devices of a user for a minute. How it goes on is told by `CallChanged`, and by `call.ended()`.

        `data` is opaque, at most 3,840 bytes: what the devices need to know to connect, such as an SDP. Signals
        overtake chat and expire after a minute; media is the application's own matter. If both call at once, one call
        goes on, the same at both ends, and rings with `glare` set where it was not made.

        Raises:
            See `send`. ValueError: more than 3,840 bytes.
        """
        return await self._calls.ring(application_user(user), data)

    @property
    def push(self) -> Push:
        """Waking this device while it is not connected."""
        return Push(self._parts.key_server)

    async def heal_now(self, user: str) -> None:
        """After a suspected leak of this device's store: renew all secrets shared with a user's devices, at once.

        Raises:
            See `send`.
        """
        user_id, messenger = application_user(user), self._parts.messenger
        await self._directory.with_sessions(user_id, lambda: messenger.heal_now(user_id))
        self._outbound.wake()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        """Return the next message; asking for it confirms the one before. A call that is cancelled loses nothing.

        Ends when the client is closed.

        Raises:
            StateError, TransportRefusedError: work in the background ended for this reason.
            RuntimeError: somebody waits for the next message already. The two would confirm each other's messages.
        """
        if self._asking:
            raise RuntimeError("one iteration at a time")
        self._asking = True
        try:
            return await self._next()
        finally:
            self._asking = False

    async def online(self) -> None:
        """Wait until the relay has answered for the first time.

        Raises:
            StateError, TransportRefusedError: work in the background ended for this reason.
        """
        await self._background.until(self._parts.online)

    async def caught_up(self) -> None:
        """Wait until everything that waited at the relay when we came online is committed here.

        Raises:
            See `online`.
        """
        await self._background.until(self._parts.caught_up)

    async def flushed(self) -> None:
        """Wait until the server has taken everything that was queued.

        Raises:
            See `online`.
        """
        self._outbound.wake()
        await self._background.until(self._outbound.empty)

    async def aclose(self) -> None:
        """Go offline and close the store. What is queued stays queued. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        # Shielded: a caller that gives up waiting must not leave the store locked.
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _mark_read(self, user_id: UserId, message_ids: Sequence[MessageId], receipt: bool) -> None:
        tend = await self._parts.call(self._parts.messenger.mark_read, user_id, message_ids)
        self._wake(tend)
        if receipt:
            await self.receipts.tell(user_id, ReceiptType.READ, message_ids)

    def _wake(self, tend: bool) -> None:
        """Something was queued; with `tend`, something is due besides."""
        self._outbound.wake()
        self.history.note_change()
        if tend:
            self._tending.wake()

    async def _say(self, user_id: UserId, signal: CallSignal) -> None:
        messenger = self._parts.messenger
        await self._directory.with_sessions(user_id, lambda: messenger.signal_call(user_id, signal))
        self._outbound.wake()

    async def _go_online(self, register: Callable[[], Awaitable[None]] | None = None) -> None:
        try:
            if not await self._parts.call(self._parts.messenger.registration.is_registered):
                await (register or self._directory.register)()
            elif await self._parts.call(self._parts.messenger.account_reset.pending) is not None:
                with contextlib.suppress(*SERVER_TROUBLE):  # tried again in the background
                    await self._directory.reset_account()
        except BaseException:
            await self.aclose()
            raise
        inbound, outbound = self._inbound, self._outbound
        self._background.start((inbound.run, inbound.acknowledge, outbound.run))
        self._background.start((self._directory.keep_supplied, self._tending.run, self.contacts.run, self.receipts.run))

    async def _close(self) -> None:
        self._background.finish()
        async with contextlib.AsyncExitStack() as last_first:
            last_first.push_async_callback(self._parts.thread.close, self._store.close)
            last_first.push_async_callback(self._parts.key_server.aclose)
            last_first.push_async_callback(self._parts.transport.aclose)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ACKS_SECONDS):
                    await self._inbound.flush()
            self.presence.close()
            await self._calls.close()
            await self._background.cancel()

    async def _next(self) -> Message:
        # Looked at before every call, because after the end there is no store to ask.
        while not self._background.ended:
            if self._shown is not None:
                await self._confirm(self._shown)
                continue
            self._inbound.changed.clear()
            rows = await self._parts.call(self._parts.messenger.inbound, 1)
            if not rows:
                await self._background.until(self._inbound.changed)
            elif (message := present(self._parts, rows[0], self._confirm)) is not None:
                self._shown = message.number
                self.receipts.note_shown(message)
                return message
            elif not self._background.ended:
                await self._confirm(rows[0].number)
        self._background.check()
        raise StopAsyncIteration

    async def _confirm(self, number: int) -> None:
        await self._parts.call(self._parts.messenger.confirm, number)
        if self._shown == number:
            self._shown = None
