"""The host application's tokens: which user asks.

Owns: verification of the host's JWT as configured, the form of a user id in it.
Does not know about: device tokens' content (auth.py), what a user may do.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import jwt

from e2ee.errors import MalformedMessageError
from e2ee.limits import SECOND_MS
from e2ee.wire.identifiers import UserId, parse_user_id
from keyserver.auth import MAX_TOKEN, Clock, check_times, is_device_token, seconds_claim, untimed
from keyserver.host_keys import ASYMMETRIC, HostKeys, KeySet, OneKey
from keyserver.key_set_fetch import fetch_key_set
from keyserver.problems import TokenInvalidProblem
from keyserver.settings import Settings


class HostIdentity(NamedTuple):
    """What the host application's token says: the user, and when it was issued (Unix seconds; 0 if it does not say)."""

    user_id: str
    issued_at: int = 0


VerifyHostToken = Callable[[str], Awaitable[HostIdentity]]
"""Turns the host application's token into a user; raises `TokenInvalidProblem` or `TokenExpiredProblem`."""


class Claims(NamedTuple):
    """What the token must claim besides its times. None: not asked; but a token with an audience needs one here."""

    issuer: str | None = None
    audience: str | None = None


NO_CLAIMS: Final = Claims()


@final
class HostJwtVerifier:
    """Verifies the host application's JWT: the algorithm and where keys come from are pinned by configuration."""

    def __init__(
        self, algorithm: str, key: str | HostKeys, now: Clock, claims: Claims = NO_CLAIMS, leeway_seconds: int = 0
    ) -> None:
        """Take the key: a secret for HS256, a PEM public key for RS256, ES256 and EdDSA; or a source of keys.

        Raises:
            ValueError: not a public key of the algorithm.
        """
        self._algorithm = algorithm
        self._keys: HostKeys = OneKey(algorithm, key) if isinstance(key, str) else key
        self._now = now
        self._claims = claims
        self._leeway_ms = leeway_seconds * SECOND_MS

    async def __call__(self, token: str) -> HostIdentity:
        """Verify a token.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem: it is not the host's, or not any more.
            HostKeysUnavailableProblem: the host's keys cannot be fetched now.
        """
        if len(token) > MAX_TOKEN or is_device_token(token):
            raise TokenInvalidProblem
        key = await self._keys.find(self._kid(token))
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[self._algorithm],
                issuer=self._claims.issuer,
                audience=self._claims.audience,
                options=untimed("exp", "sub"),
            )
        except jwt.InvalidTokenError:
            raise TokenInvalidProblem from None
        check_times(claims, self._now(), self._leeway_ms)
        return HostIdentity(claims["sub"], seconds_claim(claims, "iat", 0))

    def _kid(self, token: str) -> object:
        """Read the unverified `kid`, before any key is looked for: another algorithm causes no fetch."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise TokenInvalidProblem from None
        if header.get("alg") != self._algorithm:
            raise TokenInvalidProblem
        return header.get("kid")


def host_token_verifier(settings: Settings, now: Clock) -> HostJwtVerifier:
    """Make the verifier that the settings describe.

    Raises:
        ValueError: the settings name no algorithm, no key that fits it, or more than one.
    """
    algorithm = settings.host_jwt_algorithm
    if algorithm is None:
        raise ValueError(
            "host_jwt_algorithm is missing: HS256, RS256, ES256 or EdDSA, as the host application signs its tokens"
        )
    claims = Claims(settings.host_jwt_issuer, settings.host_jwt_audience)
    keys = _configured_keys(algorithm, settings, now)
    return HostJwtVerifier(algorithm, keys, now, claims, settings.host_jwt_leeway_seconds)


def host_user(identity: HostIdentity) -> UserId:
    """Take the host's user id for one of ours.

    Raises:
        TokenInvalidProblem: it is not 1 to 128 printable ASCII characters without space.
    """
    try:
        return parse_user_id(identity.user_id)
    except MalformedMessageError:
        raise TokenInvalidProblem("The token's user id is not 1 to 128 printable ASCII characters.") from None


def _configured_keys(algorithm: str, settings: Settings, now: Clock) -> HostKeys:
    public = {
        "host_jwt_public_key": settings.host_jwt_public_key,
        "host_jwt_public_key_file": settings.host_jwt_public_key_file,
        "host_jwt_jwks_url": settings.host_jwt_jwks_url,
    }
    given = [name for name, value in public.items() if value is not None]
    if algorithm not in ASYMMETRIC:
        if given:
            # A public key beside a secret is how the one gets taken for the other.
            raise ValueError(f"{given[0]} has no use with {algorithm}, which signs with a secret")
        if settings.host_jwt_secret is None:
            raise ValueError("host_jwt_secret is missing: the secret that the host application signs its tokens with")
        return OneKey(algorithm, settings.host_jwt_secret.get_secret_value())
    if settings.host_jwt_secret is not None:
        raise ValueError(f"host_jwt_secret has no use with {algorithm}, which signs with a private key")
    if len(given) != 1:
        raise ValueError(
            "host_jwt_public_key (PEM), host_jwt_public_key_file and host_jwt_jwks_url: exactly one of them says "
            f"where the public key for {algorithm} is, and there are {len(given)}"
        )
    if settings.host_jwt_jwks_url is not None:
        return KeySet(algorithm, partial(fetch_key_set, settings.host_jwt_jwks_url), now)
    if settings.host_jwt_public_key is not None:
        return OneKey(algorithm, settings.host_jwt_public_key)
    assert settings.host_jwt_public_key_file is not None  # noqa: S101  # for the type checker
    return OneKey(algorithm, _text_of(settings.host_jwt_public_key_file))


def _text_of(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"host_jwt_public_key_file cannot be read: {path}") from None
