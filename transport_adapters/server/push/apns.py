"""Apple Push Notification service: HTTP/2, provider tokens.

Owns: the provider token, the request.
Does not know about: when a device is woken.

Sent as an alert with mutable content and a constant text that the application translates: background pushes are
throttled, and an application that was closed gets none. The application's extension fetches, decrypts and shows.
"""

import json
import ssl
from collections.abc import Callable
from typing import Final, final

import jwt

from transport_adapters.server.push import http
from transport_adapters.server.push.ports import Subscription, Verdict
from transport_adapters.server.push.web_encryption import public_point

PRODUCTION: Final = "https://api.push.apple.com"
SANDBOX: Final = "https://api.sandbox.push.apple.com"
PAYLOAD: Final = json.dumps(
    {"aps": {"alert": {"loc-key": "E2EE_SOMETHING_NEW"}, "mutable-content": 1}}, separators=(",", ":")
).encode()
_RENEW_MS: Final = 40 * 60 * 1000
"""Apple takes tokens of 20 to 60 minutes."""


@final
class Apns:
    """Implements `Provider`. `key` is the .p8 file; `identity` its key id and the team's id.

    Raises ValueError: the key is no private key of P-256.
    """

    def __init__(
        self,
        key: bytes,
        identity: tuple[str, str],
        topic: str,
        now: Callable[[], int],
        *,
        url: str = PRODUCTION,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        public_point(key)
        self._key, (self._key_id, self._team) = key, identity
        self._topic = topic
        self._now = now
        self._url = url
        self._client = http.client(http2=True, verify=verify)
        self._token = ""
        self._made_at = 0

    async def wake(self, subscription: Subscription, *, urgent: bool) -> Verdict:
        now = self._now()
        headers = {
            "authorization": f"bearer {self._fresh_token(now)}",
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-priority": "10" if urgent else "5",
            "apns-collapse-id": "e2ee",
            "apns-expiration": str(now // 1000 + (60 if urgent else 28 * 24 * 3600)),
        }
        url = f"{self._url}/3/device/{subscription.target}"
        answer = await http.post(self._client, url, headers, PAYLOAD)
        if answer.status == 403 and _reason(answer.body) == "ExpiredProviderToken":
            self._made_at = 0
            return Verdict(retry_after=0.0)
        # Only 410 says that a token is dead: the other reasons may be a wrong topic or key, which is no fault of it.
        return http.judge("APNs", answer._replace(status=400) if answer.status == 404 else answer)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _fresh_token(self, now: int) -> str:
        if now - self._made_at >= _RENEW_MS:
            claims = {"iss": self._team, "iat": now // 1000}
            self._token = jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id})
            self._made_at = now
        return self._token


def _reason(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("reason", "")) if isinstance(said, dict) else ""
