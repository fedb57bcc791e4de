"""The `e2ee` command: arguments, exit codes, and nothing else.

Owns: the command line's grammar.
Does not know about: what the commands do (commands.py, demo/).
"""

import argparse
import sys
from collections.abc import Sequence

_DESCRIPTION = "Private messages, end to end, over the chat server you already have."
_EPILOG = """\
exit codes:
  0  done
  1  refused: a peer, the server or a human decision stands against it
  2  wrong use: arguments, settings, passphrase, a missing extra
  3  the network or the server is not available; what was queued stays queued

environment:
  E2EE_HOME        where the device lives (default: ~/.e2ee)
  E2EE_PASSPHRASE  opens the store, if neither --passphrase-file nor a terminal does

Start with:  e2ee init alice --server http://127.0.0.1:8440 --dev
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        # Here and not above: the parser and its help work without the extras.
        from e2ee.cli.commands import run
    except ModuleNotFoundError as missing:
        return _explain_missing(missing)
    return run(arguments)


def _explain_missing(missing: ModuleNotFoundError) -> int:
    if missing.name is None or missing.name.partition(".")[0] in ("e2ee", "keyserver", "transport_adapters"):
        raise missing
    print(f"e2ee: this command needs {missing.name}: install 'e2ee-layer[client]'", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e2ee", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init(commands.add_parser("init", parents=[_common()], help="make a device for a user and register it"))
    _add_send(commands.add_parser("send", parents=[_common()], help="send one message"))
    _add_receive(commands.add_parser("receive", parents=[_common()], help="fetch, decrypt and print messages"))
    _add_chat(commands.add_parser("chat", parents=[_common()], help="talk with one user, line by line"))
    commands.add_parser("status", parents=[_common()], help="show this device and its counts; works offline")
    _add_demo(commands.add_parser("demo", help="see it work: a real server, three clients, and a look at its database"))
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", metavar="DIR", help="where the device lives (default: $E2EE_HOME or ~/.e2ee)")
    common.add_argument("--passphrase-file", metavar="FILE", help="file whose first line opens the store")
    common.add_argument("--json", action="store_true", help="print one JSON object per line")
    return common


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", help="user id, as the chat's login names it")
    parser.add_argument("--server", required=True, metavar="URL", help="key server and relay, for example https://...")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--dev", action="store_true", help="take tokens from a development server on this machine")
    token.add_argument("--token-command", metavar="CMD", help="command that prints the chat's JWT for this user")
    token.add_argument("--token-file", metavar="FILE", help="file that holds the chat's JWT for this user")


def _add_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", help="who shall read it")
    parser.add_argument("text", nargs="?", help="the message (default: standard input, as UTF-8 text)")
    parser.add_argument("--binary", action="store_true", help="send standard input as bytes, not as text")
    parser.add_argument("--conversation", metavar="ID", help="conversation id (default: the default conversation)")
    parser.add_argument("--ttl", type=int, metavar="SECONDS", help="let it expire if undelivered (default: 28 days)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="wait so long for the server")


def _add_receive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", action="store_true", help="go on until interrupted")
    parser.add_argument("--count", type=int, metavar="N", help="go on until N messages were printed")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="wait so long for the server")


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", help="whom to talk with")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interactive", action="store_true", help="leave the server running for a chat of your own")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR and keep what was written there")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


if __name__ == "__main__":
    sys.exit(main())
