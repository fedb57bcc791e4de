"""The host application's tokens: which user asks.

Owns: verification of the host's JWT as configured, the form of a user id in it.
Does not know about: device tokens' content (auth.py), what a user may do.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import jwt

from e2ee.errors import MalformedMessageError
from e2ee.limits import SECOND_MS
from e2ee.wire.identifiers import UserId, parse_user_id
from keyserver.auth import MAX_TOKEN, Clock, check_times, is_device_token, seconds_claim, untimed
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
    """Verifies the host application's JWT: one algorithm, one key, both pinned by configuration."""

    def __init__(
        self, algorithm: str, key: str, now: Clock, claims: Claims = NO_CLAIMS, leeway_seconds: int = 0
    ) -> None:
        """Take the key: a secret for HS256, a PEM public key for EdDSA.

        Raises:
            ValueError: not a public key of the algorithm.
        """
        self._algorithm = algorithm
        self._key = _prepared(algorithm, key)
        self._now = now
        self._claims = claims
        self._leeway_ms = leeway_seconds * SECOND_MS

    async def __call__(self, token: str) -> HostIdentity:
        """Verify a token.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem: it is not the host's, or not any more.
        """
        if len(token) > MAX_TOKEN or is_device_token(token):
            raise TokenInvalidProblem
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                issuer=self._claims.issuer,
                audience=self._claims.audience,
                options=untimed("exp", "sub"),
            )
        except jwt.InvalidTokenError:
            raise TokenInvalidProblem from None
        check_times(claims, self._now(), self._leeway_ms)
        return HostIdentity(claims["sub"], seconds_claim(claims, "iat", 0))


def host_token_verifier(settings: Settings, now: Clock) -> HostJwtVerifier:
    """Make the verifier that the settings describe.

    Raises:
        ValueError: the settings name no algorithm, or no key that fits it.
    """
    if settings.host_jwt_algorithm is None:
        raise ValueError("host_jwt_algorithm is missing: HS256 or EdDSA, as the host application signs its tokens")
    claims = Claims(settings.host_jwt_issuer, settings.host_jwt_audience)
    key = _configured_key(settings)
    return HostJwtVerifier(settings.host_jwt_algorithm, key, now, claims, settings.host_jwt_leeway_seconds)


def host_user(identity: HostIdentity) -> UserId:
    """Take the host's user id for one of ours.

    Raises:
        TokenInvalidProblem: it is not 1 to 128 printable ASCII characters without space.
    """
    try:
        return parse_user_id(identity.user_id)
    except MalformedMessageError:
        raise TokenInvalidProblem("The token's user id is not 1 to 128 printable ASCII characters.") from None


def _configured_key(settings: Settings) -> str:
    if settings.host_jwt_algorithm == "HS256":
        if settings.host_jwt_secret is None:
            raise ValueError("host_jwt_secret is missing: the secret that the host application signs its tokens with")
        return settings.host_jwt_secret.get_secret_value()
    if settings.host_jwt_public_key is not None:
        return settings.host_jwt_public_key
    if settings.host_jwt_public_key_file is None:
        raise ValueError("host_jwt_public_key or host_jwt_public_key_file is missing: an Ed25519 public key, PEM")
    return _text_of(settings.host_jwt_public_key_file)


def _text_of(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"host_jwt_public_key_file cannot be read: {path}") from None


def _prepared(algorithm: str, key: str) -> Any:
    if algorithm != "HS256" and "PRIVATE KEY" in key:
        raise ValueError("host_jwt_public_key holds a private key; this server needs the public half only")
    try:
        return jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except (jwt.InvalidKeyError, ValueError, TypeError):
        raise ValueError(f"the host application's key is not a key for {algorithm}") from None
