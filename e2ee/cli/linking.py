"""`e2ee link`: on the new device, and with --approve or --scan on one that belongs to the account.

Owns: what is shown and asked, and that only a typed "yes" counts as one.
Does not know about: the steps of a link (e2ee.linking), formats, what errors become.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path
from typing import Final

from e2ee.cli import qr
from e2ee.cli.credentials import passphrase, token_provider
from e2ee.cli.failures import DONE
from e2ee.cli.init import checked_settings, refuse_taken
from e2ee.cli.online import Call, Line, UnansweredError, deadline_in, online
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings, UsageError, home_directory, store_path
from e2ee.cli.typed import lines
from e2ee.errors import MalformedMessageError
from e2ee.short_authentication import Signs
from e2ee.wire.link import LinkId, link_code, link_qr_text, parse_link_code
from keyserver.client import KeyServerRefusedError
from transport_adapters.secure_client.directory import DeviceNotListedError

_GROUP: Final = 4
_YES: Final = b"yes"
_CONTACTS_SECONDS: Final = 15.0
"""For the contacts to follow, once both people have confirmed."""


def is_approval(arguments: argparse.Namespace) -> bool:
    """Say whether the command is that of a device which belongs to the account."""
    return arguments.approve is not None or arguments.scan is not None


def link(arguments: argparse.Namespace, printer: Printer) -> int:
    """Make this device a further one of an account."""
    if arguments.user is None or arguments.server is None:
        raise UsageError("on the new device: e2ee link USER --server URL; on the other one: e2ee link --approve CODE")
    if not (arguments.dev or arguments.token_command or arguments.token_file):
        raise UsageError("say where the chat's tokens come from: --dev, --token-command or --token-file")
    home, settings = home_directory(arguments.home), checked_settings(arguments)
    secret = passphrase(arguments.passphrase_file)
    unfinished = refuse_taken(home, secret, arguments.user)
    return asyncio.run(_join(arguments, home, settings, secret, unfinished))


async def _join(arguments: argparse.Namespace, home: Path, settings: Settings, secret: str, unfinished: bool) -> int:
    printer = Printer(as_json=arguments.json)
    await token_provider(settings)()
    settings.save(home)
    line, path = Line(settings, printer, arguments.transport), store_path(home)

    def show(link_id: LinkId) -> None:
        _show_code(printer, link_id, arguments)

    async def confirm(signs: Signs) -> bool:
        return await _ask(printer, signs, arguments.json)

    try:
        opening = line.open(path, secret, settings.user) if unfinished else line.join(path, secret, show, confirm)
        async with await opening as client:
            contacts = 0 if unfinished else await _contacts(line, printer)
            address = client.address
            devices = [str(each) for each in await client.devices.listed()]
    except DeviceNotListedError:
        raise UsageError(f"the other device did not put this one into the list: delete {home} and begin anew") from None
    except KeyServerRefusedError as refusal:
        if not unfinished or refusal.code != "account_key_changed":
            raise
        raise UsageError(f"in {home} there is what 'e2ee init' began: delete it and begin anew") from None
    printer.result(
        f"this is a device of {address.user_id} now: {address.device_id}. What is said from now on comes here, too; "
        f"{contacts} contacts came along",
        user=address.user_id,
        device=str(address.device_id),
        server=settings.server,
        devices=devices,
        contacts=contacts,
    )
    return DONE


async def _contacts(line: Line, printer: Printer) -> int:
    try:
        return await line.until(line.contacts_shared(), deadline_in(_CONTACTS_SECONDS), "bring the contacts")
    except UnansweredError:
        printer.remark("contacts and their verification follow when the other device is online")
        return 0


def approve(call: Call) -> int:
    """Let a new device in."""
    arguments = call.arguments
    if arguments.user is not None or arguments.server is not None:
        raise UsageError("--approve and --scan take neither USER nor --server: this device knows both")
    code = qr.from_file(Path(arguments.scan)) if arguments.scan is not None else str(arguments.approve)
    try:
        parse_link_code(code)
    except MalformedMessageError:
        raise UsageError("that is no code of 'e2ee link', or it was mistyped: 32 letters and digits") from None
    return asyncio.run(_approve(call, code))


async def _approve(call: Call, code: str) -> int:
    async def confirm(signs: Signs) -> bool:
        return await _ask(call.printer, signs, call.arguments.json)

    async with online(call) as line:
        approving = line.client.devices.approve(code, confirm)
        device_id = await line.until(approving, None, "carry the other device's messages")
        devices = [str(each) for each in await line.client.devices.listed()]
        told = line.contacts_told(device_id)
        with contextlib.suppress(UnansweredError):  # told by the next command that is online
            await line.until(told, deadline_in(_CONTACTS_SECONDS), "take the contacts")
    call.printer.result(
        f"{device_id} is a device of {call.settings.user} now; there are {len(devices)}",
        device=str(device_id),
        user=call.settings.user,
        devices=devices,
    )
    return DONE


def _show_code(printer: Printer, link_id: LinkId, arguments: argparse.Namespace) -> None:
    code, text = link_code(link_id), link_qr_text(link_id)
    grouped = "-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP))
    shown = []
    if arguments.qr is not None:
        qr.to_file(text, Path(arguments.qr))
    elif not arguments.json:
        with contextlib.suppress(ImportError):  # the code can be typed as well
            shown = [qr.on_terminal(text), ""]
    command = f"e2ee link --approve {grouped}"
    shown += ["on a device that belongs to the account, within ten minutes:", "", f"  {command}", ""]
    printer.result("\n".join(shown), code=grouped, qr=text)


async def _ask(printer: Printer, signs: Signs, as_json: bool) -> bool:
    """Show the signs, and read one line: "yes" is a yes, everything else a no."""
    pictures = "   ".join(f"{each.emoji} {each.name}" for each in signs.pictures)
    shown = ["compare with the other device; both must show:", "", f"  {pictures}", f"  {signs.digits}", ""]
    shown += ["If they are the same, type yes (anything else ends it):"]
    printer.result(
        "\n".join(shown),
        signs=[each.name for each in signs.pictures],
        emoji="".join(each.emoji for each in signs.pictures),
        digits=signs.digits,
    )
    async for line in lines():
        return line.strip().lower() == _YES
    return False
