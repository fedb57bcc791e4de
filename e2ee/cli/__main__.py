"""The `e2ee` command: arguments, and what happens when everything else fails.

Owns: the command line's grammar; that no failure ends in a traceback.
Does not know about: what the commands do (commands.py, demo/).
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Final

from e2ee.cli.vectors.arguments import add_vectors_arguments
from e2ee.errors import MalformedMessageError
from e2ee.limits import DAY_MS, MAX_TIMESTAMP, MAX_TTL_SECONDS
from e2ee.wire.identifiers import parse_conversation_id, parse_user_id

WRONG_USE: Final = 2
INTERRUPTED: Final = 130

_OUR_PACKAGES = ("e2ee", "keyserver", "transport_adapters")
_TRANSPORTS: Final = ("socketio", "websocket", "sse", "longpoll", "mqtt", "xmpp")
_EXTRAS: Final = {
    "segno": "qr",
    "zxingcpp": "qr",
    "PIL": "qr",
    "websockets": "websocket",
    "paho": "mqtt",
    "slixmpp": "xmpp",
}
"""Which extra brings a package; "client" brings what is not named here."""
_DESCRIPTION = "Private messages, end to end, over the chat server you already have."
_EPILOG = """\
exit codes:
    0  done
    1  refused: a peer, the server or a human decision stands against it
    2  wrong use: arguments, settings, passphrase, store, a missing extra
    3  the network or the server is not available; what was queued stays queued
   70  a bug in this program
  130  interrupted by Ctrl-C
  141  whoever read the output has gone away

environment:
  E2EE_HOME        where the device lives (default: ~/.e2ee)
  E2EE_PASSPHRASE  opens the store, if --passphrase-file is not given

Results go to standard output, everything else to standard error.

Start with:  e2ee init alice --server http://127.0.0.1:8440 --dev
"""


_LOST: Final = (
    "All other devices are out and must be linked anew; contacts are told, and have to accept the new key and compare "
    "safety numbers again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        arguments = _parse(argv)
        if arguments.command == "vectors":
            # Before the others, because it needs none of the extras.
            from e2ee.cli.vectors.command import run_vectors

            return run_vectors(arguments)
        try:
            # Here and not above: the parser and its help work without the extras.
            from e2ee.cli.commands import run

            return run(arguments)
        except ImportError as missing:
            return _explain_missing(missing)
    except KeyboardInterrupt:
        return INTERRUPTED


def _explain_missing(missing: ImportError) -> int:
    # Our adapters raise an ImportError of their own from the library's.
    first = missing.__cause__ if isinstance(missing.__cause__, ImportError) else missing
    package = (first.name or "").partition(".")[0]
    if not package or package in _OUR_PACKAGES:
        raise missing
    extra = _EXTRAS.get(package, "client")
    print(f"e2ee: this command needs {first.name}: install 'e2ee-layer[{extra}]'", file=sys.stderr)
    return WRONG_USE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes an optional positional only beside the others: `send bob --home alice hi` would be refused.
    if arguments.command == "send" and arguments.text is None and len(rest) == 1 and not rest[0].startswith("-"):
        arguments.text, rest = rest[0], []
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e2ee", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"e2ee-layer {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = [_common()]

    def add(name: str, purpose: str, parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=list(parents), help=purpose, description=f"{purpose.capitalize()}.")

    online = [*common, _online()]
    _add_init(add("init", "make a device for a user and register it", online))
    _add_send(add("send", "send one message", online))
    _add_receive(add("receive", "fetch, decrypt and print messages", online))
    _add_chat(add("chat", "talk with one user, line by line", online))
    add("contacts", "list the contacts, and who of them was verified; works offline", common)
    _add_verify(add("verify", "compare safety numbers with a contact and record it; works offline", common))
    _add_history(add("history", "show past messages, or begin to keep them; works offline", common))
    _add_link(add("link", "make this device a further one of an account, or let one in with --approve", online))
    _add_devices(add("devices", "list the devices of the account (works offline), or retire one", online))
    _add_export(add("export", "write the account into a file that a code on paper opens", online))
    _add_import(add("import", "take an export of the account in, beside what this device has; works offline", common))
    _add_recover(add("recover", "all devices are lost: make this one the device of an exported account", online))
    _add_reset(
        add("reset-account", "all devices and the code are lost: give the account a new key, on this one", online)
    )
    add("status", "show this device and its counts; works offline", common)
    add_vectors_arguments(add("vectors", "check an implementation against the test vectors, or write them again"))
    _add_demo(add("demo", "see it work: a real server, three clients, and a look at its database"))
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", metavar="DIR", help="where the device lives (default: $E2EE_HOME or ~/.e2ee)")
    common.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="file whose first line opens the store; init remembers it (default: $E2EE_PASSPHRASE, or ask)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON object per line")
    common.add_argument("-v", "--verbose", action="store_true", help="say what goes on, on standard error")
    return common


def _online() -> argparse.ArgumentParser:
    online = argparse.ArgumentParser(add_help=False)
    online.add_argument(
        "--transport",
        choices=_TRANSPORTS,
        default="socketio",
        help="how to reach the relay (default: socketio)",  # no %(default)s: an action's copy of this has none
    )
    return online


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, metavar="USER", help="user id, as the chat's login names it")
    parser.add_argument("--server", required=True, metavar="URL", help="key server and relay, for example https://...")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--dev", action="store_true", help="take tokens from a development server on this machine")
    token.add_argument("--token-command", metavar="CMD", help="command that prints the chat's JWT for this user")
    token.add_argument("--token-file", metavar="FILE", help="file that holds the chat's JWT for this user")


def _add_export(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="a new file: the account's key, contacts, messages that are kept",
    )
    where.add_argument(
        "--on-server", action="store_true", help="leave the account's key, without contacts, with the server"
    )
    parser.add_argument(
        "--code-file", metavar="FILE", help="file that holds the code (default: make one, and print it)"
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the export")
    parser.add_argument("--code-file", metavar="FILE", help="file that holds its code (default: ask)")


def _add_recover(parser: argparse.ArgumentParser) -> None:
    _add_init(parser)
    parser.add_argument("--file", metavar="FILE", help="the export (default: what was left with the server)")
    parser.add_argument("--code-file", metavar="FILE", help="file that holds the code (default: ask)")


def _add_reset(parser: argparse.ArgumentParser) -> None:
    _add_init(parser)
    parser.add_argument("--yes", action="store_true", help="do it; without, say what it means and do nothing")


def _add_link(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", nargs="?", type=_user, metavar="USER", help="on the new device: whose account it is")
    parser.add_argument("--server", metavar="URL", help="on the new device: key server and relay")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--dev", action="store_true", help="take tokens from a development server on this machine")
    token.add_argument("--token-command", metavar="CMD", help="command that prints the chat's JWT for this user")
    token.add_argument("--token-file", metavar="FILE", help="file that holds the chat's JWT for this user")
    parser.add_argument("--qr", metavar="FILE", help="on the new device: write the code as FILE.png or FILE.svg")
    approval = parser.add_mutually_exclusive_group()
    approval.add_argument(
        "--approve", metavar="CODE", help="on a device of the account: the code that the new one shows"
    )
    approval.add_argument("--scan", metavar="FILE", help="on a device of the account: the code in a picture")


def _add_devices(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    purpose = "take a device that was wiped, or is not used any more, out of the list"
    timeout = argparse.ArgumentParser(add_help=False)
    timeout.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="wait so long for the server (default: 30)"
    )
    again = [_common(), _online(), timeout]
    for option in (each for parent in again for each in parent._actions):
        option.default = argparse.SUPPRESS  # else it would undo what stands before the action
    retire = actions.add_parser("retire", parents=again, help=purpose, description=f"{purpose.capitalize()}.")
    retire.add_argument("device", type=_device, metavar="DEVICE", help="its id, or how the id begins")
    purpose = "a device was lost or stolen: give the account a new key, which this device alone holds"
    lost = actions.add_parser("lost", parents=again, help=purpose, description=f"{purpose.capitalize()}. {_LOST}")
    lost.add_argument("--yes", action="store_true", help="do it; without, say what it means and do nothing")
    parser.set_defaults(timeout=30.0)


def _add_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, metavar="USER", help="who shall read it")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the message (default: standard input, UTF-8)")
    parser.add_argument("--binary", action="store_true", help="send standard input as bytes, not as text")
    parser.add_argument(
        "--conversation", type=_conversation, metavar="ID", help="conversation id (default: the default conversation)"
    )
    parser.add_argument("--ttl", type=_ttl, metavar="SECONDS", help="let it expire if undelivered (default: 28 days)")
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="wait so long for the server (default: 30)"
    )


def _add_receive(parser: argparse.ArgumentParser) -> None:
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--follow", action="store_true", help="go on until interrupted, also while the server is away")
    until.add_argument("--count", type=_count, metavar="N", help="go on until N messages were printed")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="wait so long for the server, and with --count for each message (default: 30, and for ever)",
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, metavar="USER", help="whom to talk with")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, metavar="USER", help="whose keys to look at")
    parser.add_argument("--qr", metavar="FILE", help="write our QR code as FILE.png or FILE.svg, for USER to scan")
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument("--scan", metavar="FILE", help="compare with USER's QR code in a picture; record if it fits")
    decision.add_argument("--number", metavar="DIGITS", help="compare with the 60 digits USER sees; record if they fit")
    decision.add_argument("--withdraw", action="store_true", help="USER counts as verified no longer")
    decision.add_argument(
        "--accept-change", metavar="DIGITS", help="USER's key has changed: accept the one with this safety number"
    )
    decision.add_argument("--decline-change", action="store_true", help="stay with the key that USER had before")


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", nargs="?", type=_user, metavar="USER", help="whose messages (default: list all users)")
    parser.add_argument(
        "--conversation",
        type=_conversation,
        default="",
        metavar="ID",
        help="conversation id (default: none)",
    )
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="show the newest N (default: 50)")
    parser.add_argument(
        "--before", type=_count, metavar="POSITION", help="show those before a message, by its position"
    )
    parser.add_argument("--delete", action="store_true", help="delete the conversation, on this device alone")
    parser.add_argument(
        "--keep",
        type=_retention,
        metavar="DAYS",
        help="keep messages from now on for so many days, or 'forever'; 'off' deletes all and keeps none (default)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interactive", action="store_true", help="leave the server running for a chat of your own")
    parser.add_argument("--transport", choices=_TRANSPORTS, default="socketio", help="default: %(default)s")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR (empty or new) and keep what was written there")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def _user(text: str) -> str:
    try:
        return parse_user_id(text)
    except MalformedMessageError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no user id: 1 to 128 printable ASCII characters without space"
        ) from None


def _device(text: str) -> str:
    if not 4 <= len(text) <= 32 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device id, nor how one begins: 4 to 32 hex digits")
    return text


def _conversation(text: str) -> str:
    try:
        return parse_conversation_id(text)
    except MalformedMessageError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no conversation id: up to 128 printable ASCII characters without space"
        ) from None


def _ttl(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_TTL_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to {MAX_TTL_SECONDS} seconds")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _retention(text: str) -> int:
    if text in ("forever", "off"):
        return MAX_TIMESTAMP if text == "forever" else 0
    if not text.isdecimal() or not 1 <= int(text) <= MAX_TIMESTAMP // DAY_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of days nor 'forever' nor 'off'")
    return int(text) * DAY_MS


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0.0:  # true for NaN, too
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _version() -> str:
    try:
        return metadata.version("e2ee-layer")
    except metadata.PackageNotFoundError:  # run from a directory, not installed
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
