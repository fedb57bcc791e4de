"""The short way of a claim: past the framework, whose work would be most of it.

Owns: which requests go that way, and their bytes.
Does not know about: what a claim is answered (prekeys.py); every other request, which passes through.

A claim is what a server is asked most, by everybody who writes to somebody for the first time. What goes this way is
answered as it would be the other way, byte by byte, errors included (a test compares them); what is written in an
unusual way goes the other. Inside another application there is the other way alone.
"""

import json
from typing import Final, final

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from keyserver.deps import Context, token_device, token_of
from keyserver.problems import InvalidRequestProblem
from keyserver.routes.api import Watching
from keyserver.routes.guarded import Guard, places
from keyserver.routes.prekeys import CLAIMS_OPERATION, CLAIMS_PATH, answer_claim
from keyserver.schemas import ClaimIn

_JSON: Final = b"application/json"
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


@final
class Shortcut:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, context: Context, request_limit: int) -> None:
        self._app = app
        self._context = context
        self._guard = Guard(context, request_limit, Watching(context), CLAIMS_OPERATION, CLAIMS_PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] != "http" or scope["path"] != CLAIMS_PATH or not _is_usual(scope):
            await self._app(scope, receive, send)
            return
        response = await self._guard.answer(Request(scope, receive), self._claim)
        await response(scope, receive, send)

    async def _claim(self, request: Request) -> Response:
        try:
            read = await request.json()
        except json.JSONDecodeError as error:
            raise InvalidRequestProblem(f"body.{error.pos}: JSON decode error") from None
        except ClientDisconnect:  # who asked has left: no fault of ours, to be logged and counted as one
            raise InvalidRequestProblem from None
        device = await token_device(self._context, token_of(request))
        try:
            claim = ClaimIn.model_validate(read, from_attributes=True)
        except ValidationError as error:
            raise InvalidRequestProblem(places(error.errors(), "body")) from None
        answer = await answer_claim(self._context, device, claim)
        return Response(_ENCODE(answer), media_type="application/json")


def _is_usual(scope: Scope) -> bool:
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return (
        scope["method"] == "POST"
        and not scope["query_string"]
        and types == [_JSON]
        and len(lengths) == 1
        and lengths[0] not in (b"", b"0")  # no body at all is not the same as an empty one
    )
