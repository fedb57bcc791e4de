"""A command's device, online: opened, watched, and given up on in time.

Owns: how long a command waits, and for what reason it stops waiting earlier.
Does not know about: what the commands do with the client.

A client tries for ever to reach its server, which is right for an application. A command must end: when its time is
up, and at once when a person has to do something first (the token file is gone, the server refuses the login).
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, final

from e2ee import notices
from e2ee.cli.credentials import TokenProvider, token_provider
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, store_path
from e2ee.errors import AccountKeyChangedError
from e2ee.recovery import RecoveryCode
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import DeviceAddress, DeviceId, MessageId, UserId
from keyserver.client import KeyServerError, KeyServerRefusedError, RateLimitedError
from transport_adapters import events
from transport_adapters.base import Cursor, EnvelopeTransport
from transport_adapters.secure_client.client import SecureClient
from transport_adapters.secure_client.linking import Confirm, ShowCode
from transport_adapters.secure_client.opening import TRANSPORTS
from transport_adapters.secure_client.parts import TokenProviderError

T = TypeVar("T")

LOCK_SECONDS: Final = 5.0
"""How long a command waits for another one that uses the same device."""
_QUIET_SECONDS: Final = 2.0
"""After this time a person wants to know what is being waited for."""


@final
class UnansweredError(Exception):
    """The server did not answer in time. The text says what was waited for, and what is known."""


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command on a device that exists."""

    arguments: argparse.Namespace
    printer: Printer
    home: Path
    settings: Settings
    secret: str = field(repr=False)
    """The passphrase."""


@final
class Line:
    """One device on its way to the server, and what happens there."""

    def __init__(self, settings: Settings, printer: Printer, transport: str) -> None:
        self._settings, self._printer, self._carrier = settings, printer, transport
        self._hopeless: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trouble = ""
        self._has_token = False
        self._caught_up = False
        self._accepted: set[MessageId] = set()
        self._lost: set[tuple[MessageId, DeviceAddress]] = set()
        self._changed: dict[UserId, AccountKeyChangedError] = {}
        self._settled = asyncio.Event()
        self._told = asyncio.Queue[notices.ContactsTold | notices.ContactsShared]()
        self._client: SecureClient | None = None

    @property
    def client(self) -> SecureClient:
        if self._client is None:
            raise RuntimeError("not opened yet")
        return self._client

    @property
    def has_all(self) -> bool:
        """Whether the server has delivered what waited, and nothing is known to have gone wrong since."""
        return self._caught_up and not self._trouble

    async def open(self, store: SqliteStore | Path, secret: str, user: str | None) -> SecureClient:
        """Open the client; see `SecureClient.open` for what it raises."""
        provider = token_provider(self._settings)
        self._client = await SecureClient.open(
            store=store,
            passphrase=secret if isinstance(store, Path) else None,
            server=self._settings.server,
            token_provider=provider,
            user=user,
            transport=self._transport,
            on_event=self._note,
        )
        return self._client

    async def join(self, store: Path, secret: str, show: ShowCode, confirm: Confirm) -> SecureClient:
        """Link this device to the account of the settings' user; see `SecureClient.join`."""
        self._client = await SecureClient.join(
            store=store,
            passphrase=secret,
            server=self._settings.server,
            token_provider=token_provider(self._settings),
            user=self._settings.user,
            show_code=show,
            confirm=confirm,
            transport=self._transport,
            on_event=self._note,
        )
        return self._client

    async def recover(self, store: Path, secret: str, export: BinaryIO | None, code: RecoveryCode) -> SecureClient:
        """Make a device of an exported account; see `SecureClient.recover`."""
        self._client = await SecureClient.recover(
            store=store,
            passphrase=secret,
            server=self._settings.server,
            token_provider=token_provider(self._settings),
            user=self._settings.user,
            export=export,
            code=code,
            transport=self._transport,
            on_event=self._note,
        )
        return self._client

    async def start_over(self, store: Path, secret: str) -> SecureClient:
        """Make the only device of an account under a new key; see `SecureClient.start_over`."""
        self._client = await SecureClient.start_over(
            store=store,
            passphrase=secret,
            server=self._settings.server,
            token_provider=token_provider(self._settings),
            user=self._settings.user,
            transport=self._transport,
            on_event=self._note,
        )
        return self._client

    async def until(self, step: Coroutine[Any, Any, T], deadline: float | None, what: str = "") -> T:
        """Wait for a step until a moment of the loop's clock.

        `what` says what the server has to do for it; without, to wait long is nothing worth telling.

        Raises:
            UnansweredError: the moment came first.
            UsageError, KeyServerError: a person has to do something, or the server has refused.
        """
        task = asyncio.ensure_future(step)
        try:
            soon = _now() + _QUIET_SECONDS
            if not await self._ended(task, soon if deadline is None else min(soon, deadline)):
                if what:
                    self._printer.progress(f"waiting for the server to {what} (Ctrl-C ends it)")
                if not await self._ended(task, deadline):
                    raise UnansweredError(f"{self._settings.server} did not {what} in time{self._reason()}")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def settled(self, message_id: MessageId) -> bool:
        """Wait until the server has taken a message or refused it for good; return whether any device will get it.

        Raises:
            AccountKeyChangedError: its recipient has another key now; it waits until a person has decided.
        """
        messenger = self.client.messenger
        while True:
            self._settled.clear()
            # Asked first: what is due again goes into the outbox, and never out of it.
            due_again = await asyncio.to_thread(messenger.outbox.is_due_again, message_id)
            queued = await asyncio.to_thread(messenger.outbox.entries)
            waiting = {(each.message_id, each.recipient) for each in queued if each.message_id == message_id}
            lost = {each for each in self._lost if each[0] == message_id}
            for _, recipient in waiting:
                if (change := self._changed.get(recipient.user_id)) is not None:
                    raise change
            # A message may have left the outbox a moment before its event comes: then neither says anything yet.
            if not waiting and message_id in self._accepted:
                return True
            if not waiting and lost and not due_again:
                return False  # else a device that took the place of the lost one is to get it
            await self._settled.wait()

    async def contacts_told(self, device_id: DeviceId) -> None:
        """Wait until the server has taken what tells a linked device of our contacts."""
        while (
            not isinstance(told := await self._told.get(), notices.ContactsTold) or told.device.device_id != device_id
        ):
            pass
        await self.client.flushed()

    async def contacts_shared(self) -> int:
        """Wait until another device of ours has told us of contacts; return how many it was."""
        while not isinstance(told := await self._told.get(), notices.ContactsShared):
            pass
        return len(told.users)

    async def _ended(self, task: "asyncio.Future[Any]", deadline: float | None) -> bool:
        seconds = None if deadline is None else max(0.0, deadline - _now())
        await asyncio.wait([task, self._hopeless], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._hopeless.done() and not task.done():
            self._hopeless.result()
        return task.done()

    def _reason(self) -> str:
        if self._trouble:
            return f": {self._trouble}"
        if self._has_token:
            path = "/socket.io/" if self._carrier == "socketio" else "/e2ee/"
            return f": the key server answers, but the relay does not. Does a proxy pass {path} on to it?"
        return ""

    def _transport(
        self, server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
    ) -> EnvelopeTransport:
        async def watched() -> str:
            try:
                got = await token()
            except (KeyServerError, TokenProviderError) as error:
                self._note_failure(error)
                raise
            self._has_token, self._trouble = True, ""
            return got

        try:
            return TRANSPORTS[self._carrier](server, token=watched, cursor=cursor)
        except ValueError as error:
            raise UsageError(f"--transport {self._carrier}: {error}") from None

    def _note_failure(self, error: KeyServerError | TokenProviderError) -> None:
        """Tell what passes from what does not."""
        cause = root_cause(error)
        if isinstance(cause, UsageError) or (
            isinstance(cause, KeyServerRefusedError) and not isinstance(cause, RateLimitedError)
        ):
            if not self._hopeless.done():
                self._hopeless.set_exception(cause)
                self._hopeless.exception()  # mark it as retrieved: perhaps nobody waits any more
        elif self._trouble != str(cause):
            self._trouble = str(cause)
            self._printer.progress(f"not connected: {cause}")

    def _note(self, event: events.Event) -> None:
        match event:
            case events.Sent() if (
                event.recipient.user_id != self._settings.user
            ):  # a copy for our own devices is no arrival
                self._accepted.add(event.message_id)
                self._settled.set()
            case events.TrustNeeded():
                numbers = event.old_safety_number, event.new_safety_number
                self._changed[event.user_id] = AccountKeyChangedError(event.user_id, *numbers)
                self._settled.set()
            case events.CaughtUp():
                self._caught_up = True
            case events.SendFailed():
                self._lost.add((event.message_id, event.recipient))
                self._settled.set()
            case notices.ContactsTold() | notices.ContactsShared():
                self._told.put_nowait(event)
            case notices.MessageResent() | notices.MessageNotResent():
                self._settled.set()
            case _:
                pass
        self._printer.event(event)


@asynccontextmanager
async def online(call: Call) -> AsyncIterator[Line]:
    """Open the device of a call, and close it in the end.

    Raises:
        UsageError, StateError: it cannot be opened.
    """
    path = store_path(call.home)
    if not SqliteStore.exists(path):
        raise UsageError(f"the device in {call.home} was never finished: run 'e2ee init' again")
    line = Line(call.settings, call.printer, call.arguments.transport)
    store = await asyncio.to_thread(SqliteStore.open, path, passphrase=call.secret, wait=LOCK_SECONDS)
    async with await line.open(store, call.secret, call.settings.user):
        yield line


def deadline_in(seconds: float | None) -> float | None:
    """Return the moment of the loop's clock in so many seconds; None is never."""
    return None if seconds is None else _now() + seconds


def root_cause(error: BaseException) -> BaseException:
    """Return what a token provider of ours raised, out of the wrapping that applications get."""
    if isinstance(error, TokenProviderError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
