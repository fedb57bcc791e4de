"""The built-in issuer of `keyserver serve --dev`: stands in for the host application's login.

Owns: POST /dev/token.
Does not know about: whether it may exist; the command line allows it on loopback only.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import jwt
from fastapi import APIRouter

from e2ee.limits import HOUR_MS, SECOND_MS
from keyserver.auth import Clock
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import DevTokenOut, DevUserIn

_LIFETIME_MS: Final = HOUR_MS


def add_routes(router: APIRouter, secret: str, now: Clock) -> None:
    """Put the issuer on a router. It signs with the secret that the server verifies host tokens with."""
    router.add_api_route(
        "/dev/token",
        _issuer(secret, now),
        methods=["POST"],
        operation_id="issueDevToken",
        responses={**problem_responses(413, 422)},
    )


def _issuer(secret: str, now: Clock) -> Callable[[DevUserIn], Awaitable[DevTokenOut]]:
    async def issue_dev_token(body: DevUserIn) -> DevTokenOut:
        """Say that whoever asks is this user. For trying things out on one machine."""
        issued_at = now() // SECOND_MS
        expires_at = issued_at + _LIFETIME_MS // SECOND_MS
        token = jwt.encode({"sub": body.user, "iat": issued_at, "exp": expires_at}, secret, "HS256")
        return DevTokenOut(token=token, expires_at=expires_at * SECOND_MS)

    return issue_dev_token
