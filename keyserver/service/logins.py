"""Logins, and the device tokens that signed assertions bring within them.

Owns: the rules of a login and of an assertion.
Does not know about: HTTP, SQL, the form of a token (auth.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from sqlalchemy import Connection

from e2ee.errors import InvalidSignatureError
from e2ee.wire.identifiers import DeviceAddress, UserId
from e2ee.wire.login_assertion import LoginAssertion, LoginId
from e2ee.wire.public_keys import DeviceSigningKey
from keyserver.auth import Clock, DeviceTokens, IssuedToken
from keyserver.database import Database
from keyserver.problems import (
    AssertionRefusedProblem,
    AssertionReplayedProblem,
    DeviceNotRegisteredProblem,
    DeviceRevokedProblem,
    LoginEndedProblem,
)
from keyserver.repository import devices, logins
from keyserver.service.revocation import refuse_revoked, revoke_user
from keyserver.tables import DeviceStatus

MAX_LOGINS: Final = 10
"""Logins of one device at a time; the oldest ends."""


class UnboundAssertion(NamedTuple):
    """What a device claims to have signed, but for the origin: that is ours to say."""

    address: DeviceAddress
    login_id: LoginId
    counter: int


@final
@dataclass(frozen=True, slots=True)
class LoginService:
    """Opens logins and gives tokens within them. `random` returns that many random bytes."""

    database: Database
    now: Clock
    tokens: DeviceTokens
    origins: tuple[str, ...]
    lifetime_ms: int
    random: Callable[[int], bytes]

    async def open(self, address: DeviceAddress, host_issued_at: int) -> LoginId:
        """Open a login for a device, after the host's token was verified.

        Raises:
            TokenRevokedProblem: the host's token is older than the user's revocation.
            DeviceNotRegisteredProblem, DeviceRevokedProblem: there is no such device (any more).
        """
        login_id, now = LoginId(self.random(LoginId.LENGTH)), self.now()
        login = logins.NewLogin(login_id, address, host_issued_at, now + self.lifetime_ms)

        def add(connection: Connection) -> None:
            devices.find_user(connection, address.user_id, lock=True)  # a revocation comes before or after, not between
            refuse_revoked(connection, address.user_id, host_issued_at)
            device = devices.find_device(connection, address)
            if device is None:
                raise DeviceNotRegisteredProblem
            if device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            logins.add(connection, login, now)
            logins.keep_newest(connection, address, MAX_LOGINS)

        await self.database.write(add)
        return login_id

    async def close(self, login_id: LoginId) -> None:
        """End a login; its tokens count no more."""
        await self.database.write(lambda connection: logins.end_one(connection, login_id))

    async def close_all(self, user_id: UserId) -> None:
        """End every login of a user's devices; their tokens count no more."""
        await self.database.write(lambda connection: logins.end_all(connection, user_id))

    async def revoke_all(self, user_id: UserId) -> None:
        """End every login of a user's devices; the next needs a host token that is issued later."""
        await self.database.write(lambda connection: revoke_user(connection, user_id, self.now()))

    async def refuse_revoked(self, user_id: UserId, host_issued_at: int) -> None:
        """Let a host token pass unless its user was revoked since.

        Raises:
            TokenRevokedProblem: that is so.
        """
        await self.database.read(lambda connection: refuse_revoked(connection, user_id, host_issued_at))

    async def token(self, assertion: UnboundAssertion, signature: bytes) -> IssuedToken:
        """Give a token for an assertion, and use up its counter.

        Raises:
            LoginEndedProblem, DeviceRevokedProblem: the device must log in again, or has left.
            AssertionRefusedProblem: not signed by this device for this server and login.
            AssertionReplayedProblem: the counter was used before.
        """
        address, counter = assertion.address, assertion.counter

        def check(connection: Connection) -> int:
            device = devices.find_device(connection, address)
            # The signature comes first: a stranger learns nothing about a device that it names.
            if device is None or not self._signed(device.device_signing_key, assertion, signature):
                raise AssertionRefusedProblem
            if device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            expires_at = logins.expiry(connection, assertion.login_id, address)
            if expires_at is None or expires_at <= self.now():
                raise LoginEndedProblem
            return expires_at

        expires_at = await self.database.read(check)

        def use(connection: Connection) -> int:
            used = devices.advance_login_counter(connection, address, counter)
            device = devices.find_device(connection, address)
            if device is None or device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            if not used:
                raise AssertionReplayedProblem(device.login_counter)
            return device.token_version

        return self.tokens.issue(address, await self.database.write(use), assertion.login_id, expires_at)

    def _signed(self, key: DeviceSigningKey, assertion: UnboundAssertion, signature: bytes) -> bool:
        return any(_verifies(LoginAssertion(origin, *assertion), key, signature) for origin in self.origins)


def _verifies(assertion: LoginAssertion, key: DeviceSigningKey, signature: bytes) -> bool:
    try:
        assertion.verify(key, signature)
    except InvalidSignatureError:
        return False
    return True
