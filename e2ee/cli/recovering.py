"""`e2ee export`, `e2ee import` and `e2ee recover`: an account in a file, under a code on paper, and back.

Owns: where code and file come from and go to; that a file is never written over another one.
Does not know about: what is in the file (e2ee.account_export), how it is sealed (e2ee.recovery).
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from e2ee.cli.credentials import passphrase, secret_of, token_provider
from e2ee.cli.failures import DONE
from e2ee.cli.init import checked_settings, refuse_taken
from e2ee.cli.online import LOCK_SECONDS, Call, Line, deadline_in, online
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, home_directory, store_path
from e2ee.errors import AccountKeyChangedError, MalformedMessageError, UnsupportedVersionError
from e2ee.export_file import ExportReader, owner_of
from e2ee.messenger import Messenger
from e2ee.primitives.rng import system_rng
from e2ee.recovery import Purpose, RecoveryCode
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import parse_user_id
from keyserver.client import KeyServerRefusedError
from transport_adapters.secure_client.client import SecureClient
from transport_adapters.secure_client.recovering import left_with_server

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
        _write(path, Messenger.open(store).backup.export(code))


def take_in(call: Call) -> int:
    """Take an export of the account in, beside what this device has."""
    code = _code(call.arguments.code_file)
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store), _open(Path(call.arguments.file)) as file:
        messenger = Messenger.open(store)
        keeps = messenger.history.retention() > 0
        try:
            steps = list(messenger.backup.merge(file, code))
        except AccountKeyChangedError:
            raise UsageError("that is an export of another user, or of before the account got a new key") from None
    for user in (user for step in steps for user in step.waiting):
        call.printer.remark(f"the account key of {user} is another one in the export: see 'e2ee verify {user}'")
    for user in (user for step in steps for user in step.forked):
        call.printer.remark(f"the device lists of {user} contradict each other: nothing more is sent there")
    contacts, messages = sum(len(step.contacts) for step in steps), sum(step.messages for step in steps)
    if not keeps:
        call.printer.remark("no messages were taken in, because none are kept: see 'e2ee history --keep'")
    call.printer.result(f"{messages} messages and {contacts} contacts were new", messages=messages, contacts=contacts)
    return DONE


async def _leave(call: Call, code: RecoveryCode) -> None:
    deadline = deadline_in(_SERVER_SECONDS)
    async with online(call) as line:
        await line.until(line.client.devices.set_recovery(code), deadline, "keep it")


def recover(arguments: argparse.Namespace, printer: Printer) -> int:
    """Make this device the one of an account whose devices are lost."""
    home, settings = home_directory(arguments.home), checked_settings(arguments)
    secret = passphrase(arguments.passphrase_file)
    if refuse_taken(home, secret, arguments.user):
        # Whoever was interrupted in the history has a part of it, and nothing else would say so.
        raise UsageError(
            f"in {home} there is an unfinished device: 'e2ee init' with the same arguments finishes it, and then "
            "'e2ee import' takes in what lacks of the messages"
        )
    return asyncio.run(_recover(home, settings, secret, printer, arguments))


async def _recover(home: Path, settings: Settings, secret: str, printer: Printer, arguments: argparse.Namespace) -> int:
    # Asked for once before anything is written: most mistakes show here.
    await token_provider(settings)()
    with await _sealed(settings, arguments.file) as file:
        owner, _ = owner_of(file)
        if owner != settings.user:
            raise UsageError(f"that is an export of {owner}, not of {settings.user}")
        code, purpose = _code(arguments.code_file), Purpose.EXPORT if arguments.file else Purpose.RECOVERY
        messages = ExportReader(file, code, purpose).check_history()  # a mistyped code shows before anything is written
        settings.save(home)
        line = Line(settings, printer, arguments.transport)
        client = await _recovered(line, home, secret, (file if arguments.file else None, code))
    async with client:
        address, contacts = client.address, len(await client.contacts.users())
    printer.result(
        f"{address.user_id} is back, with {contacts} contacts and {messages} messages; this device, "
        f"{address.device_id}, is the only one now",
        user=address.user_id,
        device=str(address.device_id),
        server=settings.server,
        contacts=contacts,
        messages=messages,
    )
    return DONE


async def _recovered(line: Line, home: Path, secret: str, given: tuple[BinaryIO | None, RecoveryCode]) -> SecureClient:
    try:
        return await line.recover(store_path(home), secret, *given)
    except KeyServerRefusedError as refusal:
        if refusal.code != "account_key_changed":
            raise
        raise UsageError(
            "the account was given another account key since this export was made: it is worth nothing any more"
        ) from None


async def _sealed(settings: Settings, file: str | None) -> BinaryIO:
    """Return the export in a file, or what the server keeps."""
    if file is not None:
        return _open(Path(file))
    try:
        return BytesIO(await left_with_server(parse_user_id(settings.user), settings.server, token_provider(settings)))
    except ValueError as nothing:
        raise UsageError(f"{nothing}: name an export with --file") from None


def _code(file: str | None) -> RecoveryCode:
    try:
        return RecoveryCode.parse(secret_of(file, "Recovery code: ", "--code-file"))
    except MalformedMessageError:
        raise UsageError("that is no recovery code, or it was mistyped: 40 letters and digits are expected") from None


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file that nobody else may read. Its name appears once all of it is on the disk, or never."""
    exists = UsageError(f"{path} exists already: name another file")
    if path.exists():
        raise exists
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with contextlib.ExitStack() as stack:
            stack.callback(Path(draft).unlink, missing_ok=True)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(descriptor)
            _name(draft, path)
        _sync_directory(path.parent)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _name(draft: str, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:  # meanwhile; a renaming would replace it
        raise
    except OSError:  # a stick's file system, say, knows no second names
        os.rename(draft, path)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    with contextlib.ExitStack() as refused:
        refused.callback(file.close)
        if not file.seekable():
            raise UsageError(f"{path} is no file that can be read twice")
        try:
            owner_of(file)
        except (MalformedMessageError, UnsupportedVersionError):
            raise UsageError(f"{path} is no export, or one of a newer release") from None
        refused.pop_all()
    return file
