"""`e2ee init`: a new device in a home directory, registered at a server.

Owns: what is checked before anything is written, and that a registration that failed can be taken up again.
Does not know about: formats, what errors become.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path
from typing import Final

from e2ee.cli.credentials import passphrase, token_provider
from e2ee.cli.failures import DONE
from e2ee.cli.online import LOCK_SECONDS, Line
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, absolute, home_directory, store_path
from e2ee.errors import AccountNotFoundError
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from keyserver.client import KeyServerRefusedError
from transport_adapters.link import require_secure

_HAS_A_DEVICE: Final = frozenset({"account_key_changed", "device_list_conflict"})


def init(arguments: argparse.Namespace, printer: Printer) -> int:
    """Make a device and register it."""
    home, settings = home_directory(arguments.home), checked_settings(arguments)
    secret = passphrase(arguments.passphrase_file)
    refuse_taken(home, secret, arguments.user)
    return asyncio.run(_register(home, settings, secret, printer, arguments.transport))


def checked_settings(arguments: argparse.Namespace) -> Settings:
    """Return what is to be written down.

    Raises:
        UsageError: the server's address is none.
    """
    try:
        require_secure(arguments.server)
    except ValueError as error:
        raise UsageError(f"{arguments.server!r} is no address of a server: {error}") from None
    return Settings(
        arguments.user,
        arguments.server,
        arguments.dev,
        arguments.token_command,
        absolute(arguments.token_file),
        absolute(arguments.passphrase_file),
    )


def refuse_taken(home: Path, secret: str, user: str) -> bool:
    """Refuse to make a device over a registered one; return whether one is there whose registration failed.

    Raises:
        UsageError: there is a registered device, or one of another user.
    """
    path = store_path(home)
    if not SqliteStore.exists(path):
        return False
    with contextlib.closing(SqliteStore.open(path, passphrase=secret, wait=LOCK_SECONDS)) as store:
        try:
            messenger = Messenger.open(store)
        except AccountNotFoundError:
            return False
        if messenger.registration.is_registered():
            raise UsageError(f"there is a device in {home} already: use it, or name another --home")
        if messenger.address.user_id != user:
            raise UsageError(
                f"in {home} there is an unfinished device of {messenger.address.user_id}: name another --home"
            )
    return True


async def _register(home: Path, settings: Settings, secret: str, printer: Printer, transport: str) -> int:
    # Asked for once before anything is written: most mistakes show here.
    await token_provider(settings)()
    settings.save(home)
    printer.progress(f"making keys and registering {settings.user} at {settings.server}")
    line = Line(settings, printer, transport)
    try:
        async with await line.open(store_path(home), secret, settings.user) as client:
            address = client.address
    except KeyServerRefusedError as refusal:
        if refusal.code not in _HAS_A_DEVICE:
            raise
        raise UsageError(
            f"{settings.user} has a device at {settings.server} already: delete {home}, and let this one in "
            f"with 'e2ee link {settings.user} --server {settings.server} ...'. If all its devices are lost, see "
            "'e2ee recover' and 'e2ee reset-account'"
        ) from None
    printer.result(
        f"{address.user_id} can be reached now; this device is {address.device_id}",
        user=address.user_id,
        device=str(address.device_id),
        server=settings.server,
    )
    return DONE
