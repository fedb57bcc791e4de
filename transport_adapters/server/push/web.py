"""Web Push (RFC 8030) with VAPID (RFC 8292); UnifiedPush servers speak it, too.

Owns: the request, its headers.
Does not know about: encryption (web_encryption.py), which endpoints are acceptable (endpoints.py).
"""

import base64
import ssl
from collections.abc import Callable
from typing import Final, final
from urllib.parse import urlsplit

import jwt

from transport_adapters.server.push import http
from transport_adapters.server.push.ports import GONE, Subscription, Verdict
from transport_adapters.server.push.web_encryption import encrypt, public_point

PAYLOAD: Final = b'{"e2ee":1}'
"""The same for every push. Something must be there: some user agents give a push without a body to nobody."""
TOPIC: Final = "e2ee"
_TTL: Final = 28 * 24 * 3600
_URGENT_TTL: Final = 60
_VALID_SECONDS: Final = 12 * 3600


@final
class WebPush:
    """Implements `Provider`. `private_key` is a PEM of P-256, `subject` a mailto: or https: URL of the operator.

    `may_speak_to` judges endpoints once more: those that were taken under other settings are given up.
    """

    def __init__(
        self,
        private_key: bytes,
        subject: str,
        now: Callable[[], int],
        *,
        may_speak_to: Callable[[str], bool],
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._private_key = private_key
        self.public_key = public_point(private_key)
        """What a user agent subscribes with: `applicationServerKey`, 65 bytes."""
        self._subject = subject
        self._now = now
        self._may_speak_to = may_speak_to
        self._client = http.client(verify=verify)

    async def wake(self, subscription: Subscription, *, urgent: bool) -> Verdict:
        if not self._may_speak_to(subscription.target):
            return GONE
        try:
            body = encrypt(PAYLOAD, subscription.public_key, subscription.auth)
        except ValueError:
            return GONE
        headers = {
            "Authorization": f"vapid t={self._token(subscription.target)}, k={_base64url(self.public_key)}",
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_URGENT_TTL if urgent else _TTL),
            "Urgency": "high" if urgent else "normal",
            "Topic": TOPIC,
        }
        return http.judge("Web Push", await http.post(self._client, subscription.target, headers, body))

    async def aclose(self) -> None:
        await self._client.aclose()

    def _token(self, url: str) -> str:
        parts = urlsplit(url)
        claims = {
            "aud": f"{parts.scheme}://{parts.netloc.removesuffix(':443')}",
            "exp": self._now() // 1000 + _VALID_SECONDS,
            "sub": self._subject,
        }
        return jwt.encode(claims, self._private_key, "ES256")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
