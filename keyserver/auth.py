"""Device tokens: which device asks.

Owns: issue and verification of device tokens; the times in any JWT.
Does not know about: HTTP, the host application's tokens (host_token.py), what a device may do.

The two kinds of token never stand in for each other: they have different keys, and a device token says so in its
`typ`. Times are checked here and not by the JWT library, because time comes in as a parameter.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, final

import jwt
from jwt.types import Options

from e2ee.errors import MalformedMessageError
from e2ee.limits import SECOND_MS
from e2ee.primitives.kdf import sha256
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from e2ee.wire.login_assertion import LoginId
from keyserver.database import Database
from keyserver.grouping import Grouped
from keyserver.problems import DeviceRevokedProblem, TokenExpiredProblem, TokenInvalidProblem
from keyserver.repository import logins
from keyserver.repository.logins import Bearer, Presumed, Standing
from keyserver.tables import DeviceStatus

Clock = Callable[[], int]
"""Unix milliseconds."""

DEVICE_TOKEN_TYPE: Final = "e2ee-device+jwt"  # noqa: S105  # a name, not a secret
_DEVICE_TOKEN_ALGORITHM: Final = "HS256"  # noqa: S105  # a name, not a secret
MAX_TOKEN: Final = 8 * 1024
_REMEMBERED: Final = 10_000
"""Tokens whose signatures a process remembers to have verified."""


class DevicePrincipal(NamedTuple):
    """A device that a token speaks for. `expires_at` is Unix milliseconds."""

    address: DeviceAddress
    token_version: int
    expires_at: int


class Unproven(NamedTuple):
    """A token whose signature and times are good; whether its device and its login stand is another question."""

    principal: DevicePrincipal
    login_id: LoginId

    @property
    def presumed(self) -> Presumed:
        """What has to be looked up."""
        return Presumed(self.login_id, self.principal.token_version)


@final
@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A fresh device token. `expires_at` is Unix milliseconds."""

    token: str = field(repr=False)
    expires_at: int


class _Read(NamedTuple):
    """What a token says, once its signature has been verified."""

    principal: DevicePrincipal
    login_id: LoginId
    times: Mapping[str, Any]


@final
class DeviceTokens:
    """Issues and reads device tokens. A good one may still be revoked: see `DeviceAuthenticator`.

    A signature is verified once: what a token says does not change, while what it is worth is looked up each time.
    """

    def __init__(self, secret: str, issuer: str, lifetime_ms: int, now: Clock) -> None:
        self._read: OrderedDict[bytes, _Read] = OrderedDict()
        self._secret = secret
        self._issuer = issuer
        self._lifetime_ms = lifetime_ms
        self._now = now

    def issue(
        self, address: DeviceAddress, token_version: int, login_id: LoginId, login_expires_at: int
    ) -> IssuedToken:
        """Make a token of 15 minutes, or shorter if its login ends before."""
        now = self._now()
        expires_at = min(now + self._lifetime_ms, login_expires_at) // SECOND_MS
        claims = {
            "iss": self._issuer,
            "sub": address.user_id,
            "dev": str(address.device_id),
            "ver": token_version,
            "lid": str(login_id),
            "iat": now // SECOND_MS,
            "exp": expires_at,
        }
        token = jwt.encode(claims, self._secret, _DEVICE_TOKEN_ALGORITHM, headers={"typ": DEVICE_TOKEN_TYPE})
        return IssuedToken(token, expires_at * SECOND_MS)

    def read(self, token: str) -> tuple[DevicePrincipal, LoginId]:
        """Verify signature, form and time.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem: not ours, or not any more.
        """
        if len(token) > MAX_TOKEN:
            raise TokenInvalidProblem
        # By its hash, so that no token is kept.
        name = sha256(token.encode())
        read = self._read.pop(name, None) or self._verify(token)
        self._read[name] = read
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        check_times(read.times, self._now(), 0)
        return read.principal, read.login_id

    def _verify(self, token: str) -> _Read:
        if not is_device_token(token):
            raise TokenInvalidProblem
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[_DEVICE_TOKEN_ALGORITHM],
                issuer=self._issuer,
                options=untimed("iss", "sub", "dev", "ver", "lid", "exp"),
            )
            address = DeviceAddress(parse_user_id(claims["sub"]), DeviceId.from_hex(str(claims["dev"])))
            login_id = LoginId.from_hex(str(claims["lid"]))
        except (jwt.InvalidTokenError, MalformedMessageError):
            raise TokenInvalidProblem from None
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        return _Read(
            DevicePrincipal(address, claims["ver"], seconds_claim(claims, "exp", 0) * SECOND_MS), login_id, times
        )


@final
class DeviceAuthenticator:
    """Says which device a token speaks for at this moment. Tokens that come at one moment are looked up together."""

    def __init__(self, database: Database, tokens: DeviceTokens, now: Clock) -> None:
        self._database = database
        self._tokens = tokens
        self._now = now
        self._standings = Grouped(self._together, self._alone, database.patience)
        self._stood: OrderedDict[Unproven, None] = OrderedDict()

    async def verify(self, token: str) -> DevicePrincipal:
        """Verify a token, and that its device and its login still stand.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem, DeviceRevokedProblem: it does not count (any more).
        """
        unproven = Unproven(*self._tokens.read(token))
        await self.prove(unproven)
        return unproven.principal

    def presume(self, token: str) -> Unproven | None:
        """Verify a token without looking whether it stands: for those who look by themselves before they do anything.

        None for one that did not stand when it was last looked up, or was not yet: so whoever has a token that ended
        does not get this far again and again.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem: not ours, or not any more.
        """
        unproven = Unproven(*self._tokens.read(token))
        return unproven if unproven in self._stood else None

    async def prove(self, unproven: Unproven) -> None:
        """Look whether a token stands.

        Raises:
            TokenInvalidProblem, TokenExpiredProblem, DeviceRevokedProblem: it does not.
        """
        principal, login_id = unproven
        self._stood.pop(unproven, None)
        standing = await self._standings.ask(Bearer(principal.address, login_id))
        if standing is None:
            raise TokenInvalidProblem
        if standing.status is DeviceStatus.RETIRED:
            raise DeviceRevokedProblem
        if standing.token_version != principal.token_version or standing.login_expires_at is None:
            raise TokenInvalidProblem
        if standing.login_expires_at <= self._now():
            raise TokenExpiredProblem
        self._stood[unproven] = None
        if len(self._stood) > _REMEMBERED:
            self._stood.popitem(last=False)

    async def _together(self, bearers: Sequence[Bearer], patience: float) -> Sequence[Standing | None]:
        return await self._database.read(lambda on: logins.standings(on, bearers), patience=patience)

    async def _alone(self, bearer: Bearer) -> Standing | None:
        (standing,) = await self._database.read(lambda on: logins.standings(on, [bearer]))
        return standing


def untimed(*required: str) -> Options:
    """Options for the JWT library: these claims must be there, and time is not its business."""
    return {"require": list(required), "verify_exp": False, "verify_nbf": False, "verify_iat": False}


def is_device_token(token: str) -> bool:
    """Tell by the unverified header which kind a token claims to be. Decides only which verification must succeed."""
    try:
        return jwt.get_unverified_header(token).get("typ") == DEVICE_TOKEN_TYPE
    except jwt.InvalidTokenError:
        return False


def check_times(claims: Mapping[str, Any], now: int, leeway_ms: int) -> None:
    """Check `exp`, `nbf` and `iat` (RFC 7519 section 4.1).

    Raises:
        TokenInvalidProblem: not valid yet, or a time that is none.
        TokenExpiredProblem: not valid any more.
    """
    if max(seconds_claim(claims, "nbf", 0), seconds_claim(claims, "iat", 0)) * SECOND_MS > now + leeway_ms:
        raise TokenInvalidProblem
    if seconds_claim(claims, "exp", 0) * SECOND_MS <= now - leeway_ms:
        raise TokenExpiredProblem


def seconds_claim(claims: Mapping[str, Any], name: str, default: int) -> int:
    """Return a time claim in whole Unix seconds.

    Raises:
        TokenInvalidProblem: it is no time.
    """
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise TokenInvalidProblem
    return int(value)
