"""Fetches the host application's key set.

Owns: from where it may come, how long it may take, how large it may be.
Does not know about: keys, how often one may fetch (host_keys.py).
"""

import asyncio
from typing import Final
from urllib.parse import urlsplit

import httpx

from keyserver.host_keys import FetchError
from keyserver.loopback import is_loopback

MAX_BYTES: Final = 256 * 1024
TIMEOUT_SECONDS: Final = 5.0
"""For all of it, from the look-up of the name to the last byte."""

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FORM: Final = "the URL of the key set is https://host[:port]/path"


def check_key_set_url(url: str) -> str:
    """Return the URL, if keys may come from there.

    Raises:
        ValueError: it is neither https nor on this machine, or holds what has no place in it.
    """
    try:
        parts = urlsplit(url)
        host, odd = parts.hostname, parts.port == 0 or parts.username is not None or parts.fragment
    except ValueError:
        raise ValueError(_FORM) from None
    if not host or odd or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(_FORM)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        # Whoever answers in the host's place signs for every user.
        raise ValueError("the key set comes over https, except from this machine")
    return url


async def fetch_key_set(url: str) -> bytes:
    """Fetch the set. Redirects are not followed: where they lead was not checked.

    Raises:
        FetchError: no answer in time, another status than 200, too large.
    """
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            if response.status_code != 200:
                raise FetchError(f"status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():  # compressed, it would be unpacked before it is counted
                body += piece
                if len(body) > MAX_BYTES:
                    raise FetchError(f"more than {MAX_BYTES} bytes")
            return bytes(body)
    except (httpx.HTTPError, TimeoutError, OSError) as error:
        raise FetchError(type(error).__name__) from None
