"""Firebase Cloud Messaging, HTTP v1: data messages without data.

Owns: the OAuth 2 token of the service account, the message.
Does not know about: when a device is woken.
"""

import json
import ssl
from collections.abc import Callable
from typing import Any, Final, final
from urllib.parse import quote, urlencode

import jwt

from transport_adapters.server.push import http
from transport_adapters.server.push.ports import Subscription, Verdict

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
SEND_URL: Final = "https://fcm.googleapis.com"
_SPARE_MS: Final = 5 * 60 * 1000
_HOUR: Final = 3600


@final
class Fcm:
    """Implements `Provider`. `account` is the service account's JSON file, parsed.

    Raises KeyError, TypeError, ValueError: it is no such file, or its key no private key of RSA.
    """

    def __init__(
        self,
        account: dict[str, Any],
        now: Callable[[], int],
        *,
        send_url: str = SEND_URL,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._email, self._key = str(account["client_email"]), str(account["private_key"])
        try:
            jwt.encode({}, self._key, "RS256")
        except jwt.PyJWTError:
            raise ValueError("the key is not one of RSA") from None
        self._token_url = str(account["token_uri"])
        self._url = f"{send_url}/v1/projects/{quote(str(account['project_id']), safe='')}/messages:send"
        self._now = now
        self._client = http.client(verify=verify)
        self._token = ""
        self._token_until = 0

    async def wake(self, subscription: Subscription, *, urgent: bool) -> Verdict:
        token = await self._fresh_token()
        if not token:
            return Verdict(retry_after=0.0)
        android = {
            "priority": "HIGH" if urgent else "NORMAL",
            "collapse_key": "e2ee",
            "ttl": "60s" if urgent else "2419200s",
        }
        message = {"message": {"token": subscription.target, "data": {"e2ee": "1"}, "android": android}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        answer = await http.post(self._client, self._url, headers, json.dumps(message).encode())
        if answer.status == 401:
            self._token_until = 0
            return Verdict(retry_after=0.0)
        if answer.status == 404 and b"UNREGISTERED" not in answer.body:
            answer = answer._replace(status=400)  # there is no such project: no fault of the device
        return http.judge("FCM", answer)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _fresh_token(self) -> str:
        now = self._now()
        if now < self._token_until - _SPARE_MS:
            return self._token
        seconds = now // 1000
        claims = {"iss": self._email, "scope": SCOPE, "aud": self._token_url, "iat": seconds, "exp": seconds + _HOUR}
        grant = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": jwt.encode(claims, self._key, "RS256"),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await http.post(self._client, self._token_url, headers, urlencode(grant).encode())
        try:
            given = json.loads(answer.body)
            token, lifetime = str(given["access_token"]), int(given["expires_in"])
        except (ValueError, KeyError, TypeError):
            return ""
        self._token, self._token_until = token, now + lifetime * 1000
        return token
