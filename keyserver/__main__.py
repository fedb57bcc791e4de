"""The `keyserver` command.

Owns: arguments, exit codes (0 done, 1 failed, 2 wrong use or configuration), messages for people.
Does not know about: the server (serve.py), which is imported only when it is started.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keyserver import admin_command

_INSTALL = "install 'e2ee-layer["
_MISSING_EXTRA = f"this command needs more packages: {_INSTALL}server]'"
_MAX_PORT = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ImportError as error:
        if _INSTALL in str(error):
            return _fail(str(error))
        if error.name is None or error.name.split(".")[0] in ("e2ee", "keyserver", "transport_adapters"):
            raise
        return _fail(_MISSING_EXTRA)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keyserver",
        description="Key server and relay for end-to-end encrypted chat. Settings: environment variables E2EE_...",
        epilog="exit codes: 0 done, 1 no (admin: no such user or device; check-config --url: something is wrong), "
        "2 wrong use, settings or database. To try it: keyserver serve --dev",
    )
    parser.add_argument("--version", action="version", version=f"e2ee-layer {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=8000, help="0 picks a free one (default: %(default)s)")
    serve.add_argument("--database", help="path of an SQLite file, or a postgresql:// URL (default: E2EE_DATABASE)")
    serve.add_argument("--dev", action="store_true", help="with a built-in login for everybody; loopback only")
    serve.add_argument("--behind-tls-proxy", action="store_true", help="a proxy in front terminates TLS")
    serve.add_argument("--tls-certificate", type=Path, metavar="FILE", help="speak TLS: certificate chain, PEM")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="and its private key, PEM")
    serve.add_argument("--metrics-port", type=_port, help="serve GET /metrics for Prometheus there, on loopback")
    serve.add_argument("--json-log", action="store_true", help="log one JSON object per line")
    serve.set_defaults(run=_serve)

    bridge = commands.add_parser("mqtt-bridge", help="run one more bridge to the MQTT broker, and nothing else")
    bridge.add_argument("--database", help="as for serve")
    bridge.add_argument("--json-log", action="store_true", help="log one JSON object per line")
    bridge.set_defaults(run=_bridge)

    migrate = commands.add_parser("migrate", help="bring the database's tables up to date")
    migrate.add_argument("--database", help="as for serve")
    migrate.set_defaults(run=_migrate)

    check = commands.add_parser("check-config", help="say whether the settings are complete and consistent")
    check.add_argument("--url", metavar="https://HOST[:PORT]", help="look at a running server from outside instead")
    check.add_argument("--ca", type=Path, metavar="FILE", help="with --url: trust this certificate authority, PEM")
    check.add_argument(
        "--plain-port", type=_port, default=80, help="with --url: where plaintext may listen (default: 80)"
    )
    check.set_defaults(run=_check_config)

    admin = commands.add_parser(
        "admin", help="look at users and devices, revoke them; finish a restore (exit code 1: no such)"
    )
    admin_command.add_commands(admin)
    return parser


def _version() -> str:
    try:
        return version("e2ee-layer")
    except PackageNotFoundError:
        return "(not installed)"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to {_MAX_PORT}")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from keyserver import logs
    from keyserver.commands import by_variable
    from keyserver.serve import ServeError, ServeOptions, serve

    logs.configure(as_json=options.json_log)
    try:
        serve(
            ServeOptions(
                options.host,
                options.port,
                options.database,
                options.dev,
                options.behind_tls_proxy,
                options.tls_certificate,
                options.tls_key,
                options.metrics_port,
            )
        )
    except (ServeError, ValueError) as error:
        return _fail(by_variable(str(error)))
    return 0


def _bridge(options: argparse.Namespace) -> int:
    from keyserver import logs
    from keyserver.bridge import run_bridge
    from keyserver.commands import by_variable

    logs.configure(as_json=options.json_log)
    try:
        run_bridge(options.database)
    except ValueError as error:
        return _fail(by_variable(str(error)))
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from keyserver.commands import migrate

    try:
        migrate(options.database)
    except ValueError as error:
        return _fail(str(error))
    print("the tables are those of this release")
    return 0


def _check_config(options: argparse.Namespace) -> int:
    from keyserver.commands import by_variable, check_config

    try:
        if options.url is not None:
            return _probe(options)
        hints = check_config()
    except ValueError as error:
        return _fail(by_variable(str(error)))
    for hint in hints:
        print(f"note: {hint}")
    print("the settings are complete")
    return 0


def _probe(options: argparse.Namespace) -> int:
    from keyserver.probe import ProbeOptions, probe

    findings = probe(options.url, ProbeOptions(options.ca, options.plain_port))
    for finding in findings:
        print(f"{'wrong' if finding.is_wrong else 'note'}: {finding.text}")
    if any(finding.is_wrong for finding in findings):
        return 1
    print(f"nothing is wrong with {options.url} as seen from here")
    return 0


def _fail(message: str) -> int:
    print(f"keyserver: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
