"""Which function a command is, and how each of them ends. And `e2ee status`, which needs no server.

Owns: the way from parsed arguments to an exit code.
Does not know about: the grammar (__main__.py), formats (output.py), what errors become (failures.py).
"""

import argparse
import contextlib
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Final

from e2ee.cli.credentials import passphrase
from e2ee.cli.failures import DONE, explain
from e2ee.cli.init import init
from e2ee.cli.linking import approve, is_approval, link
from e2ee.cli.online import LOCK_SECONDS, Call
from e2ee.cli.output import Printer
from e2ee.cli.recovering import export, recover, take_in
from e2ee.cli.settings import Settings, home_directory, store_path
from e2ee.cli.starting_over import reset_account
from e2ee.cli.talking import chat, receive, send
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command; return the exit code. Errors become one line on standard error, never a traceback."""
    if arguments.command == "demo":
        from e2ee.cli.demo.command import run_demo

        return run_demo(arguments)
    printer = Printer(as_json=arguments.json)
    _set_up_log(verbose=arguments.verbose)
    try:
        makes_device = _WITHOUT_DEVICE.get(arguments.command)
        if makes_device is not None and not (arguments.command == "link" and is_approval(arguments)):
            return makes_device(arguments, printer)
        home = home_directory(arguments.home)
        settings = Settings.load(home)
        secret = passphrase(arguments.passphrase_file, settings)
        return _COMMANDS[arguments.command](Call(arguments, printer, home, settings, secret))
    except ImportError:
        raise  # a transport's extra is looked for when the transport is made; main() names it
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a bug is reported in one line, too
        if arguments.verbose:
            traceback.print_exc(file=sys.stderr)
        failure = explain(error)
        if failure.text:
            printer.failure(failure.text, failure.code)
        return failure.exit_code


def status(call: Call) -> int:
    """Show the device and its counts."""
    store = SqliteStore.open(store_path(call.home), passphrase=call.secret, wait=LOCK_SECONDS)
    with contextlib.closing(store):
        messenger = Messenger.open(store)
        counted, registered = messenger.status(), messenger.registration.is_registered()
    counts = {
        "contacts": counted.contacts,
        "sessions": counted.sessions,
        "skipped_keys": counted.skipped_keys,
        "outbox": counted.outbox,
        "inbound": counted.inbound,
        "unreadable": counted.unreadable,
    }
    lines = [f"{counted.address.user_id} on {call.settings.server}, device {counted.address.device_id}"]
    if not registered:
        lines.append("  not registered yet: run 'e2ee init' again")
    lines += [f"  {name.replace('_', ' '):13} {count}" for name, count in counts.items()]
    call.printer.result(
        "\n".join(lines),
        user=counted.address.user_id,
        device=str(counted.address.device_id),
        server=call.settings.server,
        registered=registered,
        **counts,
    )
    return DONE


def _verify(call: Call) -> int:
    from e2ee.cli.verifying import verify

    return verify(call)


def _contacts(call: Call) -> int:
    from e2ee.cli.verifying import contacts

    return contacts(call)


def _history(call: Call) -> int:
    from e2ee.cli.past import history

    return history(call)


def _devices(call: Call) -> int:
    from e2ee.cli.devices import devices

    return devices(call)


_WITHOUT_DEVICE: Final[dict[str, Callable[[argparse.Namespace, Printer], int]]] = {
    "init": init,
    "link": link,
    "recover": recover,
    "reset-account": reset_account,
}
"""Commands that make the device of a home directory."""

_COMMANDS: Final[dict[str, Callable[[Call], int]]] = {
    "send": send,
    "receive": receive,
    "chat": chat,
    "status": status,
    "contacts": _contacts,
    "verify": _verify,
    "history": _history,
    "link": approve,
    "devices": _devices,
    "export": export,
    "import": take_in,
}


def _set_up_log(*, verbose: bool) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="e2ee: %(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # its news are URLs, and those hold names
    else:
        logging.disable(logging.CRITICAL)  # what a person needs to know is remarked
