"""Logins, and the device tokens that signed assertions bring within them.

Owns: the rules of a login and of an assertion.
Does not know about: HTTP, SQL, the form of a token (auth.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection

from e2ee.errors import InvalidSignatureError
from e2ee.wire.identifiers import DeviceAddress
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
from keyserver.tables import DeviceStatus

MAX_LOGINS: Final = 10
"""Logins of one device at a time; the oldest ends."""


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
            DeviceNotRegisteredProblem, DeviceRevokedProblem: there is no such device (any more).
        """
        login_id, now = LoginId(self.random(LoginId.LENGTH)), self.now()
        login = logins.NewLogin(login_id, address, host_issued_at, now + self.lifetime_ms)

        def add(connection: Connection) -> None:
            device = devices.find_device(connection, address)
            if device is None:
                raise DeviceNotRegisteredProblem
            if device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            logins.add(connection, login, now)
            logins.keep_newest(connection, address, MAX_LOGINS)

        await self.database.write(add)
        return login_id

    async def token(self, address: DeviceAddress, login_id: LoginId, counter: int, signature: bytes) -> IssuedToken:
        """Give a token for an assertion, and use up its counter.

        Raises:
            LoginEndedProblem, DeviceRevokedProblem: the device must log in again, or has left.
            AssertionRefusedProblem: not signed by this device for this server and login.
            AssertionReplayedProblem: the counter was used before.
        """

        def check(connection: Connection) -> tuple[DeviceSigningKey, int]:
            device = devices.find_device(connection, address)
            expires_at = logins.expiry(connection, login_id, address)
            if device is not None and device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            if device is None or expires_at is None or expires_at <= self.now():
                raise LoginEndedProblem
            return device.device_signing_key, expires_at

        key, expires_at = await self.database.read(check)
        self._verify(key, address, login_id, counter, signature)

        def use(connection: Connection) -> int:
            used = devices.advance_login_counter(connection, address, counter)
            device = devices.find_device(connection, address)
            if device is None or device.status is DeviceStatus.RETIRED:
                raise DeviceRevokedProblem
            if not used:
                raise AssertionReplayedProblem(device.login_counter)
            return device.token_version

        return self.tokens.issue(address, await self.database.write(use), login_id, expires_at)

    def _verify(
        self, key: DeviceSigningKey, address: DeviceAddress, login_id: LoginId, counter: int, signature: bytes
    ) -> None:
        for origin in self.origins:
            try:
                LoginAssertion(origin, address, login_id, counter).verify(key, signature)
            except InvalidSignatureError:
                continue
            return
        raise AssertionRefusedProblem
