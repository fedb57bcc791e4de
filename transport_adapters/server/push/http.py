"""One request to a push service, and what its status means.

Owns: timeouts, no redirects, no cookies, a bounded answer, Retry-After.
Does not know about: any particular service.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from typing import Any, Final, NamedTuple, final

from transport_adapters.server.push.ports import GONE, TAKEN, Verdict

try:
    import h2  # noqa: F401 - for httpx
    import httpx
except ImportError as missing:
    raise ImportError("push needs httpx and h2: install 'e2ee-layer[push]'") from missing

_logger = logging.getLogger(__name__)

_TIMEOUT: Final = httpx.Timeout(10.0)
ANSWER_SECONDS: Final = 30.0
"""For the whole of a request; httpx bounds each read, and an answer of a byte now and then would never end."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are kept."""


class Answer(NamedTuple):
    """Status 0: the service did not answer. The body is as it came: one that is compressed stays so."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@final
class _NoCookies(CookieJar):
    """Keeps none: a service that gave one would know again whom it was about, and each could fill our memory."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Called for every answer."""


def client(*, http2: bool = False, verify: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    """Make a client that follows no redirect, keeps no cookie and takes no settings from the environment."""
    return httpx.AsyncClient(
        http2=http2,
        verify=verify,
        timeout=_TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        cookies=_NoCookies(),
        headers={"Accept-Encoding": "identity"},
    )


async def post(by: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """POST, and read as much of the answer as one needs to know. Never raises."""
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            by.stream("POST", url, headers=dict(headers), content=body) as response,
        ):
            answer = b""
            async for piece in response.aiter_raw():  # compressed bytes would be unpacked before they are counted
                answer += piece
                if len(answer) > MAX_ANSWER:
                    break
            return Answer(response.status_code, response.headers, answer[:MAX_ANSWER])
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnicodeError):  # the last: a host that is no name
        return Answer(0, {}, b"")


def judge(service: str, answer: Answer, *, gone: bool = False) -> Verdict:
    """Say what follows from an answer; `gone`: its body says that the subscription is dead."""
    if gone or answer.status in (404, 410):
        return GONE
    if answer.status in (0, 429) or answer.status >= 500:
        return Verdict(retry_after=_seconds(answer.headers.get("retry-after", "")))
    if answer.status >= 300:
        _logger.warning("%s refused a push with status %s: look at the keys in the settings", service, answer.status)
    return TAKEN


def _seconds(text: str) -> float:
    if text.isascii() and text.isdecimal():
        return float(text[:6])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
