"""Where a device asks for its account at the broker: `POST /e2ee/mqtt`.

Owns: the request and its reply.
Does not know about: brokers; what the account may do (mqtt_accounts.py).
"""

from typing import Final, final

from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.server.http_requests import (
    Receive,
    RequestRefusedError,
    Scope,
    Send,
    bearer_token,
    refuse,
    refused,
    reply,
)
from transport_adapters.server.mqtt_bridge import BrokerUnavailableError, MqttBridge, TooManyAsksError
from transport_adapters.server.ports import TokenRefusedError

_ANEW: Final = b"again=1"


@final
class AccessEndpoint:
    """Gives out accounts. The request has no body; `?again=1` says that the account given out before did not serve."""

    def __init__(self, bridge: MqttBridge) -> None:
        self._bridge = bridge

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            members = await self._access(scope)
        except RequestRefusedError as refusal:
            await refuse(send, refusal)
        else:
            await reply(send, 200, [], access=members)

    async def _access(self, scope: Scope) -> dict[str, str]:
        token = bearer_token(scope)
        try:
            url, account, topics = await self._bridge.access(token, anew=scope.get("query_string") == _ANEW)
        except TokenRefusedError as refusal:
            code = ErrorCode(refusal.code)
            close_code = CloseCode.REVOKED if code is ErrorCode.DEVICE_REVOKED else CloseCode.TOKEN_EXPIRED
            raise refused(code, close_code, "the token is refused") from None
        except TooManyAsksError:
            detail = "this device asks too often for its account"
            raise refused(ErrorCode.FLOODING, CloseCode.TOO_FAST_OR_SLOW, detail) from None
        except BrokerUnavailableError:
            raise refused(ErrorCode.INTERNAL, CloseCode.DRAINING, "the broker cannot be reached") from None
        return {
            "broker": url,
            "client_id": account.client_id,
            "username": account.username,
            "password": account.password,
            "up": topics.up,
            "down": topics.down,
            "news": topics.news,
        }
