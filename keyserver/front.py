"""The outermost layer of a server of its own: what holds for every request, whoever answers it.

Owns: from where a browser may ask, that nobody speaks plaintext past the proxy, security headers, how many connections
one address may open.
Does not know about: endpoints. Inside another application that one's own rules hold instead.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import parse_qs

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyserver.allowances import Admit
from keyserver.deps import Context
from keyserver.peers import Peer, Peers
from keyserver.problems import (
    InvalidRequestProblem,
    OriginRefusedProblem,
    PlaintextRefusedProblem,
    Problem,
    RateLimitedProblem,
)
from keyserver.routes.guarded import are_secured, problem_response, secured
from keyserver.settings import Settings

FOR_PROBES: Final = ("/healthz", "/readyz")
"""What an orchestrator asks from inside, without the proxy. It says nothing about anybody."""

STRICT_TRANSPORT: Final = "max-age=63072000; includeSubDomains"
"""Two years. Only over TLS (RFC 6797 section 7.2)."""

_STRICT_TRANSPORT: Final = (b"strict-transport-security", STRICT_TRANSPORT.encode())

_log = logging.getLogger("keyserver")


def make_front(app: ASGIApp, settings: Settings, context: Context) -> ASGIApp:
    """Wrap the whole application as the settings say."""
    if settings.browser_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.browser_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("Authorization", "Content-Type"),
            expose_headers=("Retry-After",),
        )
    if settings.proxy_is_unknown:
        _log.warning("E2EE_TRUSTED_PROXIES is not set: clients' addresses are not known, so none of them is limited")
    rules = Rules(
        origins=frozenset((*settings.origins, *settings.browser_origins)),
        only_through_proxy=settings.behind_tls_proxy and not settings.proxy_is_unknown,
    )
    return Front(app, context.peers, rules, context.allowances.request_of_address, context.metrics.turned_away)


@final
@dataclass(frozen=True, slots=True)
class Rules:
    """What is let in."""

    origins: Collection[str]
    """Pages whose scripts may ask; the server's own origins among them."""
    only_through_proxy: bool
    """Plaintext comes from declared proxies alone, and they say that their side is encrypted."""


@final
class Front:
    """Wraps the whole application."""

    def __init__(
        self, app: ASGIApp, peers: Peers, rules: Rules, admit: Admit, turned_away: Callable[[str], None]
    ) -> None:
        self._app = app
        self._turned_away = turned_away
        self._peers = peers
        self._rules = rules
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        peer = self._peers.find(scope)
        problem = await self._judge(scope, peer)
        if scope["type"] == "http":
            send = _with_headers(send, peer)
        if problem is None:
            await self._app(scope, receive, send)
            return
        self._turned_away(problem.code)
        if scope["type"] == "http":
            response = problem_response(problem)
            # What is left of the request is not read, and must not be taken for the next one.
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # before accept: the handshake gets 403

    async def _judge(self, scope: Scope, peer: Peer) -> Problem | None:
        if not _is_plainly_written(scope):
            return InvalidRequestProblem("The request can be read in two ways.")
        if self._rules.only_through_proxy and scope["path"] not in FOR_PROBES and _is_plain(peer):
            return PlaintextRefusedProblem()
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if any(origin not in self._rules.origins for origin in origins):
            return OriginRefusedProblem()
        if _opens_connection(scope):
            try:
                await self._admit(peer)
            except RateLimitedProblem as problem:
                return problem
        return None


def _is_plainly_written(scope: Scope) -> bool:
    """Say whether a proxy, and we, see the same request.

    Our paths need no escapes: `/v1%2Ftokens` is the path of an endpoint to us and none to a proxy's rule. Two framings
    of one body (RFC 9112 section 6.1) end it in two places.
    """
    raw = scope.get("raw_path") or scope["path"].encode()
    segments = raw.split(b"/")[1:]
    if b"%" in raw or b"\\" in raw or any(each in (b"", b".", b"..") for each in segments[:-1]):
        return False
    framings = [name for name, _ in scope["headers"] if name in (b"content-length", b"transfer-encoding")]
    return segments[-1] not in (b".", b"..") and len(framings) <= 1


def _is_plain(peer: Peer) -> bool:
    # What comes over loopback did not cross a network unencrypted on its last hop, whoever brought it.
    is_local = peer.address is not None and peer.address.is_loopback and not peer.through_proxy
    return not peer.is_encrypted and not is_local


def _opens_connection(scope: Scope) -> bool:
    """Say whether a request opens a WebSocket or a Socket.IO session. The key service's endpoints count for themselves.

    The relay's endpoints for frames over HTTP verify a token before they do anything, and limit its device.
    """
    if scope["type"] == "websocket":
        return True
    if not scope.get("query_string"):
        return False
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return "EIO" in query and "sid" not in query


def _with_headers(send: Send, peer: Peer) -> Callable[[Any], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not are_secured(headers):
                headers = secured((name.lower(), value) for name, value in headers)
            if peer.is_encrypted and all(name != _STRICT_TRANSPORT[0] for name, _ in headers):
                headers.append(_STRICT_TRANSPORT)
            message["headers"] = headers
        await send(message)

    return sending
