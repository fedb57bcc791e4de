"""`keyserver serve`: the server as a process.

Owns: the listening socket, what may be bound in plaintext, uvicorn's settings.
Does not know about: how arguments are written (__main__.py).
"""

import gc
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, final

import uvicorn

from keyserver.app import create_app
from keyserver.commands import load_settings, prepare
from keyserver.database import database_url
from keyserver.logs import event
from keyserver.loopback import is_loopback
from keyserver.metrics_server import metrics_server
from keyserver.settings import Settings
from keyserver.tls import ServerTls
from transport_adapters.server.http_protocol import BoundedHttp
from transport_adapters.server.websocket_protocol import BoundedWebSocket

_MAX_WEBSOCKET_FRAME = 256 * 1024
_COLLECTOR = 10_000, 2, 2
"""Thresholds of the garbage collector: young objects are looked at in larger lots than Python's 700, and all of them
about as often (each 90,000 objects), because connections that have ended leave cycles among the old ones."""

_SWITCH_SECONDS = 0.001
"""For how long a thread that has its answer from the database waits at most for the event loop to let it go on. With
Python's 5 ms the database waits as long between two statements of a transaction, and others for the rows it holds."""

_log = logging.getLogger("keyserver")


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
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    metrics_port: int | None = None


def serve(options: ServeOptions) -> None:
    """Run until a signal says stop.

    Raises:
        ServeError: the combination of options is refused, or the address is taken.
        ValueError: the settings are incomplete.
    """
    if options.dev and not is_loopback(options.host):
        raise ServeError("--dev gives anybody a token for any user: it listens on loopback only")
    if not options.dev:
        # Before the port is bound: nobody is let in, not even to wait.
        _check_plaintext(options.host, _settings(options, options.port))
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(options))
        port = listener.getsockname()[1]
        settings = _settings(options, port)
        tls = _tls(settings)
        prepare(settings)
        app = create_app(settings, dev_issuer=options.dev)
        metrics_port = stack.enter_context(_metrics(settings, app.services.metrics))
        sys.stdout.write(f"keyserver listening on {_url(options.host, port, 'http' if tls is None else 'https')}\n")
        if metrics_port is not None:
            sys.stdout.write(f"metrics on {_url(settings.metrics_host, metrics_port)}/metrics\n")
        sys.stdout.flush()
        _log.info(
            "starting",
            extra=event(
                "starting", port=port, tls=tls is not None, database=database_url(settings.database).get_backend_name()
            ),
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # user ids are in query strings
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            # uvloop where there is one for the platform (pyproject.toml), which takes a tenth less processor time for
            # a request; asyncio's own elsewhere. Bounds hold on both: tests/conftest.py says which are tested where.
            loop="auto",
            http=BoundedHttp,
            ws=BoundedWebSocket,
            ws_max_size=_MAX_WEBSOCKET_FRAME,
            ws_per_message_deflate=False,  # ciphertext does not compress
            timeout_graceful_shutdown=10,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
        )
        server = uvicorn.Server(config)
        _spare_the_collector()
        sys.setswitchinterval(_SWITCH_SECONDS)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)  # uvicorn passes the signal on to this when it has shut down
        if not options.dev and hasattr(signal, "SIGHUP"):
            # Also without a certificate: `systemctl reload` must not end what has nothing to reload.
            signal.signal(signal.SIGHUP, lambda _number, _frame: None if tls is None else tls.reload())
        try:
            server.run(sockets=[listener])
        finally:
            _log.info("stopped", extra=event("stopped", in_order=server.started))
    if not server.started:
        raise ServeError("the server did not start; the log says why")


def _check_plaintext(host: str, settings: Settings) -> None:
    if is_loopback(host) or settings.behind_tls_proxy or settings.tls_certificate is not None:
        return
    raise ServeError(
        f"{host} is not loopback, and this server would speak plaintext there: give it a certificate "
        "(--tls-certificate, --tls-key), or put a proxy that terminates TLS in front and say so with --behind-tls-proxy"
    )


@contextmanager
def _metrics(settings: Settings, render: Callable[[], bytes]) -> Iterator[int | None]:
    """Serve the metrics, if the settings say where; gives the port."""
    if settings.metrics_port is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            port = stack.enter_context(metrics_server(settings.metrics_host, settings.metrics_port, render))
        except OSError as error:
            place = f"{settings.metrics_host} port {settings.metrics_port}"
            raise ServeError(f"cannot serve metrics on {place}: {error.strerror}") from None
        yield port


def _tls(settings: Settings) -> ServerTls | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_certificate, settings.tls_key)


def _spare_the_collector() -> None:
    """Let the garbage collector look at what connections and requests leave behind, and not at what the start made.

    The start makes 150,000 objects that stay. To go through them again and again took a twelfth of the processor time
    of a claim.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


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
    given: dict[str, Any] = {
        name: value
        for name, value in (
            ("database", options.database),
            ("behind_tls_proxy", options.behind_tls_proxy or None),
            ("tls_certificate", options.tls_certificate),
            ("tls_key", options.tls_key),
            ("metrics_port", options.metrics_port),
        )
        if value is not None
    }
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


def _url(host: str, port: int, scheme: str = "http") -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port == {"http": 80, "https": 443}[scheme] else f"{scheme}://{shown}:{port}"
