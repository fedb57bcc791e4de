"""`keyserver serve`: the server as a process.

Owns: the listening socket, what may be bound in plaintext, uvicorn's settings.
Does not know about: how arguments are written (__main__.py).
"""

import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn, final

import uvicorn

from keyserver.app import create_app
from keyserver.commands import load_settings, prepare
from keyserver.loopback import is_loopback
from keyserver.settings import Settings
from transport_adapters.server.http_protocol import BoundedHttp
from transport_adapters.server.websocket_protocol import BoundedWebSocket

_MAX_WEBSOCKET_FRAME = 256 * 1024


class ServeError(Exception):
    """The server cannot start; the text says why and what to do."""


@final
@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line of `serve`."""

    host: str
    port: int
    database: str | None
    dev: bool
    behind_tls_proxy: bool


def serve(options: ServeOptions) -> None:
    """Run until a signal says stop.

    Raises:
        ServeError: the combination of options is refused, or the address is taken.
        ValueError: the settings are incomplete.
    """
    if not is_loopback(options.host):
        if options.dev:
            raise ServeError("--dev gives anybody a token for any user: it listens on loopback only")
        if not options.behind_tls_proxy:
            raise ServeError(
                f"{options.host} is not loopback, and this server speaks plaintext: put a proxy that terminates TLS "
                "in front and say so with --behind-tls-proxy"
            )
    with _listen(options) as listener:
        port = listener.getsockname()[1]
        settings = _settings(options, port)
        prepare(settings)
        app = create_app(settings, dev_issuer=options.dev)
        sys.stdout.write(f"keyserver listening on {_url(options.host, port)}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # user ids are in query strings
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            http=BoundedHttp,
            ws=BoundedWebSocket,
            ws_max_size=_MAX_WEBSOCKET_FRAME,
            ws_per_message_deflate=False,  # ciphertext does not compress
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)  # uvicorn passes the signal on to this when it has shut down
        server.run(sockets=[listener])
    if not server.started:
        raise ServeError("the server did not start; the log says why")


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _listen(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Named, because asyncio sets TCP_NODELAY only where it reads IPPROTO_TCP: else small frames wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ServeError(f"cannot listen on {options.host} port {options.port}: {error.strerror}") from None
    return listener


def _settings(options: ServeOptions, port: int) -> Settings:
    given: dict[str, Any] = {} if options.database is None else {"database": options.database}
    if options.dev:
        hosts = dict.fromkeys((options.host, "127.0.0.1", "localhost", "::1"))
        origins = [_url(host, port) for host in hosts]
        given |= {
            "origin": origins[0],
            "other_origins": tuple(origins[1:]),
            "token_secret": secrets.token_urlsafe(32),
            "host_jwt_algorithm": "HS256",
            "host_jwt_secret": secrets.token_urlsafe(32),
            "host_jwt_public_key": None,
            "host_jwt_public_key_file": None,
            "host_jwt_jwks_url": None,
            "host_jwt_issuer": None,
            "host_jwt_audience": None,
        }
    return load_settings(**given)


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}" if port == 80 else f"http://{shown}:{port}"
