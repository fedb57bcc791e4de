"""HTTP requests that carry frames, as an ASGI application sees them.

Owns: the headers and bodies of requests and replies, how large and how slow a body may be, which status says what.
Does not know about: connections (http_connections.py), what frames mean.

Every reply, whatever its status, has the body `{"frames": [...]}`: a client reads them all the same way. The status is
for what stands in between, and for programs that look no further.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, final

from e2ee.errors import MalformedMessageError
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error
from transport_adapters.text import encode_frame, load_json

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELD: Final = 80 * 1024
"""Bytes that a server may hold of a response: what makes uvicorn's writes wait (64 KiB), and one piece."""
PIECE: Final = 16 * 1024
MAX_BODY: Final = 256 * 1024
MAX_FRAMES: Final = 64
"""In one request."""
BODY_TIMEOUT: Final = 10.0
MAX_HOLD: Final = 15.0
"""Seconds that a poll is held at most."""
RETRY_AFTER: Final = b"2"
"""Seconds, with 503."""
END_TIMEOUT: Final = 1.0
"""For the end of a response, held up by a peer that does not read."""
HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # a proxy that collects responses would hold frames back
]

_STATUS: Final = {
    CloseCode.TOKEN_EXPIRED: 401,
    CloseCode.REVOKED: 401,
    CloseCode.TIMEOUT: 408,
    CloseCode.REPLACED: 409,
    CloseCode.TOO_LARGE: 413,
    CloseCode.TOO_FAST_OR_SLOW: 429,
    CloseCode.DRAINING: 503,
}


@final
class RequestRefusedError(Exception):
    """A request that is answered by an error and does nothing."""

    def __init__(self, error: Error, status: int | None = None) -> None:
        super().__init__(error.code.value)
        self.error = error
        self.status = status or status_of(error)


class Posted(NamedTuple):
    """The body of a request: names and fields of frames, still to be parsed; and how long to wait for an answer."""

    frames: list[object]
    wait: float


def status_of(error: Error) -> int:
    """Say which status a reply has whose last frame is this error."""
    return 400 if error.close_code is None else _STATUS[error.close_code]


def header(scope: Scope, name: bytes) -> str:
    """Return a request's header, or nothing if it is missing or there are several."""
    values = [value for key, value in scope["headers"] if key == name]
    return str(values[0].decode("latin-1")) if len(values) == 1 else ""


def bearer_token(scope: Scope) -> str:
    """Take the device token from the Authorization header.

    Raises:
        RequestRefusedError: there is none.
    """
    scheme, _, token = header(scope, b"authorization").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise refused(ErrorCode.TOKEN_INVALID, CloseCode.TOKEN_EXPIRED, "the request needs 'Authorization: Bearer ...'")
    return token


async def read_posted(scope: Scope, receive: Receive) -> Posted:
    """Read the body of a request, as far as it is not too large and not too slow.

    Raises:
        RequestRefusedError: too large, too slow, or not of the form.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            more = _is_acceptable(header(scope, b"content-length"))
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise refused(ErrorCode.BODY_TIMEOUT, CloseCode.TIMEOUT, "the request was broken off")
                body += message.get("body", b"")
                more = message.get("more_body", False) and _is_acceptable(str(len(body)))
    except TimeoutError:
        raise refused(ErrorCode.BODY_TIMEOUT, CloseCode.TIMEOUT, "the body did not come in time") from None
    _is_acceptable(str(len(body)))
    return _parsed(bytes(body))


async def reply(send: Send, status: int, pairs: Sequence[str], **members: object) -> None:
    """Send a whole response. `pairs` are frames as text, put into the body as they are."""
    head = "".join(f"{json.dumps(name)}:{json.dumps(value)}," for name, value in members.items())
    body = f'{{{head}"frames":[{",".join(pairs)}]}}'.encode()
    headers = [*HEADERS, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status >= 400:
        headers.append((b"connection", b"close"))  # what is left of the request need not be read
    if status == 503:
        headers.append((b"retry-after", RETRY_AFTER))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await write(send, body)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def write(send: Send, body: bytes) -> None:
    """Write a part of a response. Each piece waits until little is left of those before it."""
    for at in range(0, len(body), PIECE):
        await send({"type": "http.response.body", "body": body[at : at + PIECE], "more_body": True})


async def refuse(send: Send, refusal: RequestRefusedError) -> None:
    """Answer a request that was refused."""
    await reply(send, refusal.status, [encode_frame(refusal.error)])


def refused(code: ErrorCode, close_code: CloseCode, detail: str, status: int | None = None) -> RequestRefusedError:
    """Make a refusal that ends the connection, if there is one."""
    return RequestRefusedError(Error(code, detail, close_code=close_code), status)


def _is_acceptable(length: str) -> bool:
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise refused(ErrorCode.TOO_LARGE, CloseCode.TOO_LARGE, f"a request's body has at most {MAX_BODY} bytes")
    return True


def _parsed(body: bytes) -> Posted:
    try:
        value = load_json(body)
    except MalformedMessageError:
        value = None
    if isinstance(value, dict) and value.keys() <= {"frames", "wait"}:
        frames, wait = value.get("frames", []), value.get("wait", MAX_HOLD)
        is_wait = type(wait) in (int, float) and 0 <= wait <= MAX_HOLD
        if isinstance(frames, list) and len(frames) <= MAX_FRAMES and is_wait:
            return Posted(frames, float(wait))
    raise RequestRefusedError(Error(ErrorCode.MALFORMED_FRAME, "the body is not of the described form"))
