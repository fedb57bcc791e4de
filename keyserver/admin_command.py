"""The arguments of `keyserver admin`, and how its results are shown.

Owns: names of commands and options, text and JSON.
Does not know about: what the commands do (admin.py), which is imported only when one runs.

Exit codes: 0 done, 1 there is no such user or device, 2 wrong use, or the database cannot be used.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from e2ee.errors import MalformedMessageError
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId, parse_user_id
from keyserver.secret_files import database_setting

Result = Mapping[str, Any]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Put the commands below `keyserver admin`."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    _command(commands, "stats", _stats, "count users, devices, logins, and what waits for them")

    users = _command(commands, "users", _users, "list users")
    users.add_argument("--after", default="", metavar="USER", help="those whose ids sort after this one")
    users.add_argument("--limit", type=_limit, default=100, help="at most so many (default: %(default)s)")

    devices = _command(commands, "devices", _devices, "list a user's devices, those that left included")
    devices.add_argument("user", type=_user)

    revoke = _command(
        commands,
        "revoke",
        _revoke,
        "end all logins of a user, so that old tokens of the chat open nothing; or retire one device for good",
    )
    revoke.add_argument("user", type=_user)
    revoke.add_argument("--device", type=_device, metavar="ID", help="retire this device; its id never returns")

    about = "make a database that came from a backup fit to be served; run it before the first process starts"
    _command(commands, "after-restore", _after_restore, about)


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Result], about: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    command.add_argument("--database", help="path of an SQLite file, or a postgresql:// URL (default: E2EE_DATABASE)")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output, errors included")
    command.set_defaults(run=lambda options: _run(run, options))
    return command


def _run(run: Callable[[argparse.Namespace], Result], options: argparse.Namespace) -> int:
    from keyserver.admin import AdminError, NotFoundError

    try:
        result = run(options)
    except NotFoundError as error:
        return _fail(options, str(error), 1)
    except (AdminError, ValueError) as error:
        return _fail(options, str(error), 2)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(result)))
    return 0


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    if options.json:
        sys.stdout.write(json.dumps({"error": message}) + "\n")
    sys.stderr.write(f"keyserver: {message}\n")
    return code


def _stats(options: argparse.Namespace) -> Result:
    from keyserver import admin

    return admin.stats(_database(options))


def _users(options: argparse.Namespace) -> Result:
    from keyserver import admin

    return admin.users(_database(options), options.after, options.limit)


def _devices(options: argparse.Namespace) -> Result:
    from keyserver import admin

    return admin.devices(_database(options), options.user)


def _revoke(options: argparse.Namespace) -> Result:
    from keyserver import admin

    if options.device is None:
        return admin.revoke_user(_database(options), options.user)
    return admin.revoke_device(_database(options), DeviceAddress(options.user, options.device))


def _after_restore(options: argparse.Namespace) -> Result:
    from keyserver.after_restore import restore_database

    return restore_database(_database(options))._asdict()


def _database(options: argparse.Namespace) -> str:
    return database_setting(options.database)


def _user(text: str) -> UserId:
    try:
        return parse_user_id(text)
    except MalformedMessageError:
        raise argparse.ArgumentTypeError("a user id is 1 to 128 printable ASCII characters without space") from None


def _device(text: str) -> DeviceId:
    try:
        return DeviceId.from_hex(text)
    except MalformedMessageError:
        raise argparse.ArgumentTypeError("a device id is 32 lower-case hex digits") from None


def _limit(text: str) -> int:
    from keyserver.admin import MAX_USERS

    if not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_USERS:
        raise argparse.ArgumentTypeError(f"1 to {MAX_USERS}")
    return int(text)


def _lines(result: Result) -> list[str]:
    """A line for each number, and a table for each list."""
    lines: list[str] = []
    for name, value in result.items():
        if isinstance(value, list):
            lines += _table(value) or [f"no {name}"]
        else:
            lines.append(f"{name}: {_shown(name, value)}")
    return lines


def _table(rows: list[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    cells = [list(rows[0])] + [[_shown(name, value) for name, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if name.endswith("_at") and isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)
