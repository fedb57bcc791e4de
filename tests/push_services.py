"""The push services of browsers, Google and Apple as one server on loopback: HTTPS, HTTP/2, a certificate of its own.

Owns: what was asked of it, what it answers.
Does not know about: what a test asserts. Checks nothing by itself but hands over what came.
"""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from tests.certificates import make_certificate


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    http_version: str


@dataclass(frozen=True)
class Answer:
    """What the server says: to a path, or to the next request of any path."""

    status: int = 201
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass
class PushServer:
    """`answers` are given in turn, then `otherwise` for ever; `fixed` goes before both."""

    url: str
    certificate: Path
    otherwise: Answer = Answer()
    answers: deque[Answer] = field(default_factory=deque)
    fixed: dict[str, Answer] = field(default_factory=dict)
    asked: "asyncio.Queue[Asked]" = field(default_factory=asyncio.Queue)

    @property
    def host(self) -> str:
        return self.url.removeprefix("https://")

    async def next(self) -> Asked:
        async with asyncio.timeout(20):
            return await self.asked.get()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body, more = body + message["body"], message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.put_nowait(Asked(scope["path"], headers, body, scope["http_version"]))
        answer = self.fixed.get(scope["path"]) or (self.answers.popleft() if self.answers else self.otherwise)
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def json_answer(status: int, **fields: object) -> Answer:
    return Answer(status, json.dumps(fields).encode())


@asynccontextmanager
async def push_server(directory: Path) -> AsyncIterator[PushServer]:
    """Run the server on a free port of loopback until the block ends."""
    certificate, key, _ = make_certificate(directory, "push")
    config = Config()
    config.certfile, config.keyfile = str(certificate), str(key)
    config.graceful_timeout = 0.5
    config.errorlog = None
    ended = asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    server = PushServer(f"https://localhost:{listener.getsockname()[1]}", certificate)
    config.bind = [f"fd://{listener.detach()}"]  # which closes it
    serving = asyncio.create_task(serve(server, config, shutdown_trigger=_waiter(ended)))
    try:
        yield server
    finally:
        ended.set()
        await serving


def p256_key(path: Path) -> bytes:
    """Write a fresh private key of P-256, and return it as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    return pem


def _waiter(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await event.wait()

    return wait
