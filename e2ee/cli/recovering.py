"""`e2ee export` and `e2ee recover`: an account in a file, under a code on paper, and back.

Owns: where code and file come from and go to; that a file is never written over another one.
Does not know about: what is in the file (e2ee.account_export), how it is sealed (e2ee.recovery).
"""

import argparse
import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

from e2ee.cli.credentials import passphrase, secret_of, token_provider
from e2ee.cli.failures import DONE
from e2ee.cli.init import checked_settings, refuse_taken
from e2ee.cli.online import LOCK_SECONDS, Call, Line, deadline_in, online
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, home_directory, store_path
from e2ee.errors import MalformedMessageError
from e2ee.messenger import Messenger
from e2ee.primitives.rng import system_rng
from e2ee.recovery import ExportFile, Purpose, RecoveryCode
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import parse_user_id
from keyserver.client import KeyServerRefusedError
from transport_adapters.secure_client.recovering import left_with_server

_MAX_EXPORT: Final = 64 * 1024 * 1024
"""A longer file is not the one that was meant."""
_SERVER_SECONDS: Final = 30.0


def export(call: Call) -> int:
    """Write the account into a file, or leave its key with the server, and print the code that opens it."""
    arguments = call.arguments
    code = _code(arguments.code_file) if arguments.code_file is not None else RecoveryCode.generate(system_rng)
    if arguments.on_server:
        where, what = "what the server keeps", None
        asyncio.run(_leave(call, code))
    else:
        where = what = arguments.file
        _export(call, Path(arguments.file), code)
    if arguments.code_file is not None:
        call.printer.result(f"{where} opens with the code in {arguments.code_file}", file=what, code=None)
        return DONE
    lines = [f"{where} opens with this code, which is shown once. Write it down, and keep it apart:"]
    call.printer.result("\n".join([*lines, "", f"  {code.text()}"]), file=what, code=code.text())
    return DONE


def _export(call: Call, path: Path, code: RecoveryCode) -> None:
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        sealed = Messenger.open(store).export_account(code)
    _write(path, sealed)


async def _leave(call: Call, code: RecoveryCode) -> None:
    deadline = deadline_in(_SERVER_SECONDS)
    async with online(call) as line:
        await line.until(line.client.devices.set_recovery(code), deadline, "keep it")


def recover(arguments: argparse.Namespace, printer: Printer) -> int:
    """Make this device the one of an account whose devices are lost."""
    home, settings = home_directory(arguments.home), checked_settings(arguments)
    secret = passphrase(arguments.passphrase_file)
    if refuse_taken(home, secret, arguments.user):
        raise UsageError(f"in {home} there is an unfinished device: 'e2ee init' with the same arguments finishes it")
    return asyncio.run(_recover(home, settings, secret, printer, arguments))


async def _recover(home: Path, settings: Settings, secret: str, printer: Printer, arguments: argparse.Namespace) -> int:
    sealed, purpose = await _sealed(settings, arguments.file)
    file = ExportFile.decode(sealed)
    if file.user_id != settings.user:
        raise UsageError(f"that is an export of {file.user_id}, not of {settings.user}")
    code = _code(arguments.code_file)
    file.open(code, purpose)  # a mistyped code shows before anything is written
    settings.save(home)
    line = Line(settings, printer, arguments.transport)
    given = sealed if purpose is Purpose.EXPORT else None
    try:
        async with await line.recover(store_path(home), secret, given, code) as client:
            address, contacts = client.address, len(await client.contacts.users())
    except KeyServerRefusedError as refusal:
        if refusal.code != "account_key_changed":
            raise
        raise UsageError(
            f"{settings.user} was given another account key since this export was made: it is worth nothing any more"
        ) from None
    printer.result(
        f"{address.user_id} is back, with {contacts} contacts; this device, {address.device_id}, is the only one now",
        user=address.user_id,
        device=str(address.device_id),
        server=settings.server,
        contacts=contacts,
    )
    return DONE


async def _sealed(settings: Settings, file: str | None) -> tuple[bytes, Purpose]:
    """Return the export in a file, or what the server keeps."""
    # Asked for once before anything is written: most mistakes show here.
    await token_provider(settings)()
    if file is not None:
        return _read(Path(file)), Purpose.EXPORT
    try:
        left = await left_with_server(parse_user_id(settings.user), settings.server, token_provider(settings))
    except ValueError as nothing:
        raise UsageError(f"{nothing}: name an export with --file") from None
    return left, Purpose.RECOVERY


def _code(file: str | None) -> RecoveryCode:
    try:
        return RecoveryCode.parse(secret_of(file, "Recovery code: ", "--code-file"))
    except MalformedMessageError:
        raise UsageError("that is no recovery code, or it was mistyped: 40 letters and digits are expected") from None


def _write(path: Path, data: bytes) -> None:
    """Write a new file that nobody else may read."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"{path} exists already: name another file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_EXPORT + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_EXPORT:
        raise UsageError(f"{path} is too long to be an export")
    return data
