"""Where a device wants to be woken.

Owns: which subscriptions are taken.
Does not know about: HTTP, SQL, push services.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from e2ee.wire.identifiers import DeviceAddress
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import PushRefusedProblem
from keyserver.repository import push
from keyserver.repository.push import PushRow

WEB: Final = "web"
_TOKENS: Final = {"fcm": re.compile(r"[A-Za-z0-9_:-]{1,1024}"), "apns": re.compile(r"[0-9a-fA-F]{64,200}")}
_POINT = 65
_AUTH = 16


@final
@dataclass(frozen=True, slots=True)
class PushService:
    """Keeps subscriptions. `kinds` are those the server can serve; `is_allowed` judges the endpoints of Web Push."""

    database: Database
    now: Clock
    kinds: frozenset[str]
    is_allowed: Callable[[str], bool]
    vapid_public_key: bytes = b""
    """What user agents subscribe with, 65 bytes; empty without Web Push."""

    async def subscribe(self, address: DeviceAddress, row: PushRow) -> None:
        """Keep a device's subscription, in place of the one before.

        Raises:
            PushRefusedProblem: a kind that this server does not serve, or not of that kind's form.
        """
        if row.kind not in self.kinds or not self._is_formed(row):
            raise PushRefusedProblem
        await self.database.write(lambda connection: push.subscribe(connection, address, row, self.now()))

    async def unsubscribe(self, address: DeviceAddress) -> None:
        """Forget a device's subscription."""
        ids = [address.device_id]
        await self.database.write(lambda connection: push.unsubscribe(connection, address.user_id, ids))

    def _is_formed(self, row: PushRow) -> bool:
        if row.kind == WEB:
            lengths = len(row.public_key), len(row.auth)
            return lengths == (_POINT, _AUTH) and self.is_allowed(row.target)
        return not row.public_key and not row.auth and _TOKENS[row.kind].fullmatch(row.target) is not None
