"""JSON over HTTPS to one key server, for `keyserver.client`.

Owns: the errors, which URLs are safe, repeating after network faults, limits and form of answers.
Does not know about: endpoints, tokens, keys.

    KeyServerError
    ├─ KeyServerUnavailableError      no answer, or none that is about the request
    ├─ MalformedAnswerError           the server's answer is not of the described form
    ├─ InsecureServerUrlError         plaintext beyond this machine
    └─ KeyServerRefusedError          the server refused the request (status, code)
       ├─ RateLimitedError            ├─ DeviceListConflictError
       ├─ PreKeyConflictError         └─ CounterBehindError
"""

import asyncio
import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import httpx

from e2ee.errors import MalformedMessageError
from e2ee.wire.login_assertion import parse_origin
from keyserver.loopback import is_loopback

MAX_ANSWER: Final = 1024 * 1024
"""Largest answer that is read, in bytes: ten bundles with a list take 30 KiB, a page of history 100 KiB."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_GATEWAY_FAULTS: Final = frozenset({502, 503, 504})
_FAULTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ssl.SSLCertVerificationError, "its certificate is not valid for this address, or not trusted here"),
    (ssl.SSLError, "it speaks no TLS that we do"),
    (socket.gaierror, "nobody knows its name"),
    (ConnectionRefusedError, "nothing listens at its address"),
)
"""What a person has to know to put a wrong address or certificate right; the first that fits."""
_random: Final = secrets.SystemRandom()


class KeyServerError(Exception):
    """Base of all errors. `code` is stable and may be matched by programs; the text may change."""

    code: str = "key_server_error"
    remedy: ClassVar[str] = ""

    def __new__(cls, *_args: object) -> "KeyServerError":
        if cls is KeyServerError:
            raise TypeError("KeyServerError is abstract: raise one of its subclasses")
        return super().__new__(cls)

    def __str__(self) -> str:
        cause = super().__str__()
        return f"{cause}. {self.remedy}" if self.remedy else cause


@final
class KeyServerUnavailableError(KeyServerError):
    """The server cannot be reached, or failed."""

    code = "key_server_unavailable"
    remedy = "Try again later; repeating a request changes nothing twice"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The key server does not answer: {reason}")


@final
class MalformedAnswerError(KeyServerError):
    """The server's answer is not of the described form: another program answers, or a hostile one."""

    code = "malformed_answer"
    remedy = "Check the server's address"

    def __init__(self, what: str) -> None:
        super().__init__(f"The key server's answer is malformed: {what}")


@final
class InsecureServerUrlError(KeyServerError):
    """A plaintext URL that leads beyond this machine, or no URL of a server at all."""

    code = "insecure_url"
    remedy = "Use https://host[:port][/path]; plaintext is for loopback only"

    def __init__(self) -> None:
        super().__init__("Refusing the key server's URL")


class KeyServerRefusedError(KeyServerError):
    """The server refused the request. `code` is the server's, see keyserver-api.md."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(f"The key server refused the request: {code} ({status}){': ' if detail else ''}{detail}")
        self.status = status
        self.code = code


@final
class RateLimitedError(KeyServerRefusedError):
    """Too many requests of this kind; `retry_after` seconds from now there is room again."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(429, "rate_limited", f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@final
class DeviceListConflictError(KeyServerRefusedError):
    """The list does not follow the newest accepted one, which is number `seq` with `list_hash` (32 bytes)."""

    def __init__(self, seq: int, list_hash: bytes) -> None:
        super().__init__(409, "device_list_conflict", f"the server is at {seq}")
        self.seq = seq
        self.list_hash = list_hash


@final
class PreKeyConflictError(KeyServerRefusedError):
    """The id was published before with bytes whose SHA-256 is `stored_hash`."""

    def __init__(self, prekey_id: int, stored_hash: bytes) -> None:
        super().__init__(409, "prekey_conflict", f"prekey {prekey_id}")
        self.prekey_id = prekey_id
        self.stored_hash = stored_hash


@final
class CounterBehindError(KeyServerRefusedError):
    """The device's counter is not above `highest_counter`, which it used before: the store is older than the device."""

    def __init__(self, highest_counter: int) -> None:
        super().__init__(409, "assertion_replayed", f"the highest counter was {highest_counter}")
        self.highest_counter = highest_counter


@final
@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How patient the client is. Waits between attempts are random, up to a doubling limit (full jitter)."""

    timeout_seconds: float = 15.0
    attempts: int = 4
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 4.0
    clock: Callable[[], float] = time.monotonic
    """Seconds from any start."""


class Answer:
    """The fields of an answer, each checked when it is read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        value: str = self._field(name, str)
        return value

    def number(self, name: str) -> int:
        """Return an integer of 0 or more, below 2^63."""
        value: int = self._field(name, int)
        if isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise MalformedAnswerError(name)
        return value

    def optional_number(self, name: str) -> int | None:
        return None if self._fields.get(name) is None else self.number(name)

    def optional_text(self, name: str) -> str | None:
        return None if self._fields.get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        values: list[str] = self._field(name, list)
        if not all(isinstance(each, str) for each in values):
            raise MalformedAnswerError(name)
        return values

    def records(self, name: str) -> "list[Answer]":
        """Return a list of objects, each read like an answer."""
        values: list[Any] = self._field(name, list)
        if not all(isinstance(each, dict) for each in values):
            raise MalformedAnswerError(name)
        return [Answer(each) for each in values]

    def hash(self, name: str) -> bytes:
        """Return 32 bytes given as hex."""
        try:
            value = bytes.fromhex(self.text(name))
        except ValueError:
            raise MalformedAnswerError(name) from None
        if len(value) != 32:
            raise MalformedAnswerError(name)
        return value

    def _field(self, name: str, kind: type[Any]) -> Any:
        value = self._fields.get(name)
        if not isinstance(value, kind):
            raise MalformedAnswerError(name)
        return value


@final
class JsonApi:
    """Requests to one server. Sends nothing to a plaintext address that is not loopback."""

    def __init__(self, server: str, http: httpx.AsyncClient | None, options: ClientOptions) -> None:
        """Take the server's URL, with a path if it is mounted below one.

        Raises:
            InsecureServerUrlError: http:// beyond loopback, or no usable URL.
        """
        url, self.origin = _checked(server)
        self._base = str(url).rstrip("/")
        self._owned = http is None
        self._http = http or httpx.AsyncClient(follow_redirects=False)
        self._options = options

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client was handed in."""
        if self._owned:
            await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        repeat: bool = True,
    ) -> Answer:
        """Send a request and return the fields of its answer. With `repeat`, network faults are tried again.

        Raises:
            KeyServerUnavailableError, MalformedAnswerError, KeyServerRefusedError: there is no good answer.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        attempts = self._options.attempts if repeat else 1
        for attempt in range(attempts):
            try:
                return await self._once(
                    self._http.build_request(
                        method,
                        self._base + path,
                        headers=headers,
                        json=body,
                        params=query,
                        timeout=self._options.timeout_seconds,
                    )
                )
            except KeyServerUnavailableError:
                if attempt + 1 == attempts:
                    raise
            await self._wait(attempt)
        raise AssertionError("unreachable")

    async def _once(self, request: httpx.Request) -> Answer:
        try:
            response = await self._http.send(request, stream=True)
            try:
                content = await _content(response)
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise KeyServerUnavailableError(_fault(error)) from None
        if response.is_success:
            return Answer({} if response.status_code == httpx.codes.NO_CONTENT else _json(content))
        if response.status_code in _GATEWAY_FAULTS or response.status_code >= 500:
            raise KeyServerUnavailableError(f"status {response.status_code}")
        raise _refusal(response, Answer(_json(content)))

    async def _wait(self, attempt: int) -> None:
        limit = min(self._options.longest_wait_seconds, self._options.first_wait_seconds * 2**attempt)
        await asyncio.sleep(_random.uniform(0, limit))


def _fault(error: httpx.RequestError) -> str:
    """Name what went wrong, in words of ours: some of the library's hold addresses, some nothing."""
    name, cause = type(error).__name__, error.__cause__
    while cause is not None:
        for kind, meaning in _FAULTS:
            if isinstance(cause, kind):
                return f"{name}, {meaning}"
        cause = cause.__cause__ or cause.__context__
    return name


def _checked(server: str) -> tuple[httpx.URL, str]:
    try:
        url = httpx.URL(server)
        host = url.raw_host.decode("ascii")
        shown = f"[{host}]" if ":" in host else host
        port = "" if url.port in (None, _DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
        origin = parse_origin(f"{url.scheme}://{shown}{port}")
    except (httpx.InvalidURL, MalformedMessageError, UnicodeDecodeError):
        raise InsecureServerUrlError from None
    if url.query or url.fragment or url.userinfo or (url.scheme == "http" and not is_loopback(host)):
        raise InsecureServerUrlError
    return url, origin


async def _content(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise MalformedAnswerError("it is compressed, which was not asked for")
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise MalformedAnswerError(f"more than {MAX_ANSWER} bytes")
        parts.append(part)
    return b"".join(parts)


def _json(content: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise MalformedAnswerError("not JSON") from None
    if not isinstance(fields, dict):
        raise MalformedAnswerError("not a JSON object")
    return fields


def _refusal(response: httpx.Response, answer: Answer) -> KeyServerRefusedError:
    code = answer.text("code")
    match code:
        case "rate_limited":
            retry_after = response.headers.get("retry-after", "")
            return RateLimitedError(float(retry_after) if retry_after.isdecimal() else 60.0)
        case "device_list_conflict":
            return DeviceListConflictError(answer.number("seq"), answer.hash("hash"))
        case "prekey_conflict":
            return PreKeyConflictError(answer.number("prekey_id"), answer.hash("stored_hash"))
        case "assertion_replayed":
            return CounterBehindError(answer.number("highest_counter"))
        case _:
            # What a server says may end up on a terminal: nothing that controls one.
            code, detail = (each if each.isprintable() else "" for each in (code[:64], answer.text("detail")[:300]))
            return KeyServerRefusedError(response.status_code, code, detail)
