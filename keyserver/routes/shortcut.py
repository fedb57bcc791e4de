"""The short way of a claim: past the framework, whose work would be most of it.

Owns: which requests go that way, and their bytes.
Does not know about: what a claim is answered (prekeys.py); every other request, which passes through.

A claim is what a server is asked most, by everybody who writes to somebody for the first time. What goes this way is
answered as it would be the other way, byte by byte, errors included (a test compares them); what is written in an
unusual way goes the other. Inside another application there is the other way alone.
"""

import json
from functools import partial
from typing import Final, final

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from e2ee.errors import MalformedMessageError
from keyserver.deps import Context, token_device, token_of
from keyserver.problems import InvalidRequestProblem
from keyserver.routes.api import Watching
from keyserver.routes.guarded import Guard, places
from keyserver.routes.prekeys import CLAIMS_OPERATION, CLAIMS_PATH, Claim, ClaimAnswer, answer_claim, read_claim
from keyserver.schemas import ClaimIn
from keyserver.service.claims import Doubt

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
        token = token_of(request)
        try:
            claim = read_claim(ClaimIn.model_validate(read, from_attributes=True))
        except (ValidationError, MalformedMessageError) as error:
            await token_device(self._context, token)  # what is wrong with a token is said first
            if isinstance(error, ValidationError):
                raise InvalidRequestProblem(places(error.errors(), "body")) from None
            raise
        answer = await self._answer(token, claim)
        return Response(_ENCODE(answer), media_type="application/json")

    async def _answer(self, token: str, claim: Claim) -> ClaimAnswer:
        context = self._context
        unproven = context.authenticator.presume(token)
        if unproven is None or not context.allowances.has_request_of_user(unproven.principal.address.user_id):
            return await answer_claim(context, await token_device(context, token), claim)
        # Nothing can be wrong any more but the token: whether it stands is looked up by the claim's own statement.
        doubt = Doubt(unproven.presumed, partial(context.authenticator.prove, unproven))
        return await answer_claim(context, unproven.principal.address, claim, doubt)


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
