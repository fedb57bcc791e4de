"""The commands: init, send, receive, chat, status.

Owns: what each command does with a SecureClient, and which exit code an error becomes.
Does not know about: the grammar (__main__.py), formats (output.py).
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, home_directory, passphrase, store_path
from e2ee.errors import E2EEError, StateError
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from keyserver.client import KeyServerError, KeyServerUnavailableError
from transport_adapters.base import TransportError, TransportUnavailableError
from transport_adapters.secure_client.client import SecureClient

DONE, REFUSED, WRONG_USE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command; return the exit code. Errors become one line on standard error, never a traceback."""
    if arguments.command == "demo":
        from e2ee.cli.demo.story import run_demo

        return run_demo(arguments)
    printer = Printer(as_json=arguments.json)
    try:
        return asyncio.run(_COMMANDS[arguments.command](arguments, printer))
    except (UsageError, StateError, ValueError) as error:
        printer.remark(str(error))
        return WRONG_USE
    except (TimeoutError, KeyServerUnavailableError, TransportUnavailableError, ConnectionError) as error:
        printer.remark(str(error) or "the server did not answer in time; what was queued stays queued")
        return UNAVAILABLE
    except (E2EEError, KeyServerError, TransportError) as error:
        printer.remark(str(error))
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


async def _init(arguments: argparse.Namespace, printer: Printer) -> int:
    home = home_directory(arguments.home)
    secret = passphrase(arguments.passphrase_file, new=True)
    _refuse_registered(home, secret)
    settings = Settings(
        arguments.user, arguments.server, arguments.dev, arguments.token_command, _absolute(arguments.token_file)
    )
    _make_home(home)
    settings.save(home)
    async with await _open(home, settings, secret, printer, user=arguments.user) as client:
        address = client.address
    printer.result(
        f"{address.user_id} can be reached now; this device is {address.device_id}",
        user=address.user_id,
        device=str(address.device_id),
        server=arguments.server,
    )
    return DONE


def _refuse_registered(home: Path, secret: str) -> None:
    """Refuse to make a second device over a registered one. One whose registration failed is taken up again."""
    path = store_path(home)
    if not path.exists():
        return
    with contextlib.closing(SqliteStore.open(path, passphrase=secret)) as store:
        if Messenger.open(store).is_registered():
            raise UsageError(f"there is a device in {home} already: use it, or name another --home")


async def _send(arguments: argparse.Namespace, printer: Printer) -> int:
    data = _input(arguments)
    async with await _open_existing(arguments, printer) as client, asyncio.timeout(arguments.timeout):
        message_id = await client.send(arguments.user, data, conversation=arguments.conversation, ttl=arguments.ttl)
        await client.flushed()
    printer.result(f"sent to {arguments.user}", message_id=str(message_id), recipient=arguments.user)
    return DONE


async def _receive(arguments: argparse.Namespace, printer: Printer) -> int:
    async with await _open_existing(arguments, printer) as client:
        async with asyncio.timeout(arguments.timeout):
            await client.caught_up()
        left = arguments.count
        while arguments.follow or left is None or left > 0:
            if not arguments.follow and left is None and not client.messenger.inbound(1):
                break
            message = await anext(client)
            printer.message(message)
            await message.done()
            left = None if left is None else left - 1
    return DONE


async def _chat(arguments: argparse.Namespace, printer: Printer) -> int:
    async with await _open_existing(arguments, printer) as client:
        printer.remark(f"talking with {arguments.user}; end with Ctrl-D")
        shown = asyncio.create_task(_show(client, printer))
        async for line in _lines():
            if line.strip():
                await client.send(arguments.user, line)
        async with asyncio.timeout(30):
            await client.flushed()
        shown.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await shown
    return DONE


async def _show(client: SecureClient, printer: Printer) -> None:
    async for message in client:
        printer.message(message)
        await message.done()


async def _status(arguments: argparse.Namespace, printer: Printer) -> int:
    home = home_directory(arguments.home)
    settings = Settings.load(home)
    store = SqliteStore.open(store_path(home), passphrase=passphrase(arguments.passphrase_file))
    with contextlib.closing(store):
        status = Messenger.open(store).status()
    counts = {
        "contacts": status.contacts,
        "sessions": status.sessions,
        "skipped_keys": status.skipped_keys,
        "outbox": status.outbox,
        "inbound": status.inbound,
        "unreadable": status.unreadable,
    }
    lines = [f"{status.address.user_id} on {settings.server}, device {status.address.device_id}"]
    lines += [f"  {name.replace('_', ' '):13} {count}" for name, count in counts.items()]
    printer.result(
        "\n".join(lines),
        user=status.address.user_id,
        device=str(status.address.device_id),
        server=settings.server,
        **counts,
    )
    return DONE


_COMMANDS = {"init": _init, "send": _send, "receive": _receive, "chat": _chat, "status": _status}


async def _open_existing(arguments: argparse.Namespace, printer: Printer) -> SecureClient:
    home = home_directory(arguments.home)
    settings = Settings.load(home)
    return await _open(home, settings, passphrase(arguments.passphrase_file), printer)


async def _open(home: Path, settings: Settings, secret: str, printer: Printer, user: str | None = None) -> SecureClient:
    return await SecureClient.open(
        store=store_path(home),
        passphrase=secret,
        server=settings.server,
        token_provider=settings.token_provider(),
        user=user,
        on_event=printer.event,
    )


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{home} cannot be made: {error.strerror}") from None


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path is not None else None


def _input(arguments: argparse.Namespace) -> bytes | str:
    if arguments.text is not None:
        return str(arguments.text)
    data = sys.stdin.buffer.read()
    if arguments.binary:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text: use --binary") from None


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input without blocking the event loop."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.rstrip("\r\n")
