"""GET /metrics, on a port of its own: whoever may reach the server need not reach it.

Owns: that listener.
Does not know about: what is counted.

It runs in a thread of its own, with what was counted so far: a scrape never waits for the event loop, nor holds it up.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST

_SECONDS: Final = 10.0
"""For a request of whoever scrapes."""

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""


@contextmanager
def metrics_server(host: str, port: int, render: Callable[[], bytes]) -> Iterator[int]:
    """Serve GET /metrics while the context lasts; gives the port.

    Raises:
        OSError: the address cannot be listened on.
    """

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"GET /metrics\n"]
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST), ("Cache-Control", "no-store")])
        return [render()]

    with make_server(host, port, app, _Server, _Handler) as server:
        thread = Thread(target=server.serve_forever, name="e2ee-metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
