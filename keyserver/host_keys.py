"""The keys that the host application's tokens are verified with: one from the settings, or a set behind a URL.

Owns: which key fits the pinned algorithm; how long a fetched set is used and how often it is fetched (RFC 7517).
Does not know about: HTTP (key_set_fetch.py), what a token claims (host_token.py).

A token's `kid` chooses among the keys of the set and nothing else: it is never a path, a URL or a key, and the token's
`jku`, `jwk` and `x5u` are not looked at. The algorithm comes from the settings; keys for another one are passed over.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, final

import jwt

from e2ee.limits import HOUR_MS, MINUTE_MS, SECOND_MS
from keyserver.auth import Clock
from keyserver.problems import HostKeysUnavailableProblem, TokenInvalidProblem

ASYMMETRIC: Final = ("RS256", "ES256", "EdDSA")

FRESH_MS: Final = 10 * MINUTE_MS
"""How old a set may be before it is fetched again beside the requests that use it."""
USABLE_MS: Final = HOUR_MS
"""How old a set may be before nothing is verified with it: so long a withdrawn key counts while the URL is away."""
RETRY_MS: Final = 10 * SECOND_MS
"""Between two fetches, whatever tokens ask for: a made-up `kid` costs the host's login no more than that."""
MAX_KEYS: Final = 64
MAX_KID: Final = 256

MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
MAX_RSA_BITS: Final = 8192
"""Verification takes time that grows with the square of it."""

_log = logging.getLogger("keyserver")


class FetchError(Exception):
    """The key set could not be fetched. The text names no secret."""


class HostKeys(Protocol):
    """Says which key a token has to verify with."""

    async def find(self, kid: object) -> Any:
        """Return a key of the pinned algorithm for a token whose header names `kid` (None: it names none).

        Raises:
            TokenInvalidProblem: there is no such key.
            HostKeysUnavailableProblem: it cannot be known now.
        """


@final
class OneKey:
    """The key from the settings, whatever `kid` says."""

    def __init__(self, algorithm: str, key: str) -> None:
        """Take the key: a secret for HS256, a PEM public key else.

        Raises:
            ValueError: not a public key of the algorithm.
        """
        if algorithm != "HS256" and "PRIVATE KEY" in key:
            raise ValueError("host_jwt_public_key holds a private key; this server needs the public half only")
        try:
            self._key = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
        except (jwt.InvalidKeyError, ValueError, TypeError):
            self._key = None
        if self._key is None or (algorithm != "HS256" and not fits(algorithm, self._key)):
            raise ValueError(f"the host application's key is not a key for {algorithm}")

    async def find(self, kid: object) -> Any:
        """Return the key."""
        return self._key


@final
class KeySet:
    """A JSON Web Key Set behind a URL, kept for a while. `fetch` returns its bytes or raises `FetchError`."""

    def __init__(self, algorithm: str, fetch: Callable[[], Awaitable[bytes]], now: Clock) -> None:
        self._algorithm = algorithm
        self._fetch = fetch
        self._now = now
        self._keys: Mapping[str | None, Any] = {}
        self._fetched_at: int | None = None
        self._tried_at: int | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, kid: object) -> Any:
        """Return the key that `kid` names; without a `kid`, the only key there is."""
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
            raise TokenInvalidProblem
        if not self._younger_than(USABLE_MS) or kid not in self._keys:
            # The host may have begun to sign with a new key a moment ago.
            await self._refreshed()
        elif not self._younger_than(FRESH_MS):
            self._refresh()
        if not self._younger_than(USABLE_MS):
            raise HostKeysUnavailableProblem
        if kid not in self._keys:
            raise TokenInvalidProblem
        return self._keys[kid]

    def _younger_than(self, age: int) -> bool:
        return self._fetched_at is not None and self._now() - self._fetched_at < age

    async def _refreshed(self) -> None:
        """Wait for the refresh that runs, or for a new one if one may begin."""
        task = self._refresh()
        if task is not None:
            await asyncio.shield(task)  # others wait for it, too

    def _refresh(self) -> "asyncio.Task[None] | None":
        now = self._now()
        # Not `>=`: a clock that was set back must not keep new keys away until it has caught up.
        if self._refreshing is None and not (self._tried_at is not None and 0 <= now - self._tried_at < RETRY_MS):
            self._tried_at = now
            self._refreshing = asyncio.create_task(self._fetch_and_keep())
        return self._refreshing

    async def _fetch_and_keep(self) -> None:
        try:
            self._keys = read_key_set(self._algorithm, await self._fetch())
            self._fetched_at = self._tried_at
            if not self._keys:
                _log.warning("the host application's key set holds no key for %s", self._algorithm)
        except (FetchError, ValueError) as error:
            _log.warning("the host application's keys were not fetched: %s", error)
        finally:
            self._refreshing = None


def read_key_set(algorithm: str, body: bytes) -> Mapping[str | None, Any]:
    """Return the keys for an algorithm by their ids; under None the only one, if there is only one.

    What is for another use or algorithm is passed over, and so are secrets, broken keys, and ids that occur twice. A
    set without any key of use is a set, too: the host withdrew them all.

    Raises:
        ValueError: not a key set.
    """
    try:
        entries = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("what came is not a key set") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"what came is not a key set of at most {MAX_KEYS} keys")
    found = [(entry.get("kid"), _read_key(algorithm, entry)) for entry in entries if isinstance(entry, dict)]
    usable = [(kid, key) for kid, key in found if key is not None and (kid is None or isinstance(kid, str))]
    ids = [kid for kid, _ in usable]
    keys: dict[str | None, Any] = {kid: key for kid, key in usable if kid is not None and ids.count(kid) == 1}
    if len(usable) == 1:
        keys[None] = usable[0][1]
    return keys


def fits(algorithm: str, key: Any) -> bool:
    """Say whether a public key is of the kind and size that an asymmetric algorithm takes."""
    match algorithm:
        case "RS256":
            return hasattr(key, "public_numbers") and MIN_RSA_BITS <= getattr(key, "key_size", 0) <= MAX_RSA_BITS
        case "ES256":
            return getattr(getattr(key, "curve", None), "name", "") == "secp256r1"
        case "EdDSA":
            # Ed448 has keys of 57 bytes, and its own size of signature.
            return hasattr(key, "public_bytes_raw") and len(key.public_bytes_raw()) == 32
        case _:
            return False


def _read_key(algorithm: str, entry: Mapping[str, Any]) -> Any:
    """Return the public key of an entry, None if it is not one for the algorithm."""
    if entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    if "d" in entry or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None  # a private key, or a secret: published by mistake, and not to be trusted
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(dict(entry))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if fits(algorithm, key) else None
