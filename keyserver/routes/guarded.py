"""The route class of every endpoint: limits the body, turns errors into problem+json, adds security headers.

Owns: the form of an error response, the body limit, the binding of endpoints to their server.
Does not know about: what an endpoint does.

All of it is in the route and not in middleware or handlers of the application, so that it works the same when the
router is mounted in somebody else's application.
"""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn, Protocol, final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from e2ee.errors import E2EEError
from keyserver.postgresql import DatabaseUnavailableError
from keyserver.problems import (
    BodyTimeoutProblem,
    InternalProblem,
    InvalidRequestProblem,
    MethodNotAllowedProblem,
    NotFoundProblem,
    NotReadyProblem,
    Problem,
    TooLargeProblem,
    UnacceptableBytesProblem,
    UnauthorizedProblem,
)
from keyserver.schemas import ProblemBody

PROBLEM_JSON: Final = "application/problem+json"

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # No answer is a page: nothing in it runs, loads anything, or is shown in a frame.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

_RAW_HEADERS: Final = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
_RAW_LIST: Final = list(_RAW_HEADERS)

BODY_SECONDS: Final = 10.0
"""From the first look at a body to its end."""

CONTEXT_KEY: Final = "e2ee.keyserver"
"""Where in the ASGI scope an endpoint finds its server (deps.py)."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_log = logging.getLogger("keyserver")


class Watch(Protocol):
    """Looks at every request, before and after."""

    async def admit(self, scope: Scope) -> None:
        """Count a request before anything else is done for it.

        Raises:
            Problem: it is refused.
        """

    def answered(self, operation: str, status: int, code: str | None, seconds: float) -> None:
        """A request was answered, by the problem of this code if there was one."""


class Unwatched:
    """Lets everybody in and notes nothing, for endpoints that orchestrators ask all the time."""

    async def admit(self, scope: Scope) -> None:
        pass

    def answered(self, operation: str, status: int, code: str | None, seconds: float) -> None:
        pass


UNWATCHED: Final = Unwatched()


@final
@dataclass(frozen=True, slots=True)
class Guard:
    """What every endpoint of one server has around it."""

    context: object
    limit: int
    """Bytes of the largest body."""
    watch: Watch
    operation: str
    path: str
    """As it is described, without what stands for its parameters."""

    async def answer(self, request: Request, handler: Handler) -> Response:
        """Let a handler answer a request; whatever it raises becomes an error response."""
        request.scope[CONTEXT_KEY] = self.context
        begun, code = time.perf_counter(), None
        try:
            await self.watch.admit(request.scope)
            _refuse_declared(request, self.limit)
            _refuse_repeated(request)
            response = await handler(StrictRequest(request, self.limit))
        except Exception as error:  # noqa: BLE001  # the last resort turns it into a bare 500
            problem = to_problem(error, self.path)
            response, code = problem_response(problem), problem.code
        self.watch.answered(self.operation, response.status_code, code, time.perf_counter() - begun)
        response.raw_headers = secured(response.raw_headers)
        return response


def guarded_route(context: object, limit: int, watch: Watch = UNWATCHED) -> type[APIRoute]:
    """Make the route class of one server, for endpoints that take bodies of at most `limit` bytes."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()
            guard = Guard(context, limit, watch, self.operation_id or self.name, self.path)

            async def guarded(request: Request) -> Response:
                return await guard.answer(request, handler)

            return guarded

    return GuardedRoute


def secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add the security headers to those of a response that has them not."""
    given = list(headers)
    if are_secured(given):
        return given
    present = {name for name, _ in given}
    return given + [header for header in _RAW_HEADERS if header[0] not in present]


def are_secured(headers: list[tuple[bytes, bytes]]) -> bool:
    """Say whether `secured` made this list."""
    return headers[-len(_RAW_HEADERS) :] == _RAW_LIST


def problem_response(problem: Problem) -> Response:
    """Write a problem as application/problem+json."""
    body: dict[str, int | str] = {
        "type": f"urn:e2ee-layer:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": str(problem),
        **problem.members,
    }
    headers = dict(SECURITY_HEADERS)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if isinstance(problem, UnauthorizedProblem):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, problem.status, headers, PROBLEM_JSON)


def to_problem(error: Exception, path: str) -> Problem:
    """Find the problem that stands for an error. What nobody foresaw is logged without its values."""
    if isinstance(error.__cause__, Problem):  # FastAPI wraps what reading the body raised
        return error.__cause__
    if isinstance(error, DatabaseUnavailableError):
        error = NotReadyProblem()
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return InvalidRequestProblem(places(error.errors()))
        case E2EEError():
            return UnacceptableBytesProblem(error.code, str(error))
        case HTTPException(status_code=status) if status < 500:
            return _BY_STATUS.get(status, InvalidRequestProblem)()
    # Not the error's text: a database driver may put values there.
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s in %s\n%s", type(error).__name__, path, where)
    return InternalProblem()


def problem_responses(*statuses: int) -> Mapping[int | str, dict[str, Any]]:
    """Describe error responses for OpenAPI."""
    # In full each time: a reference would need a component, which only the including application can add.
    schema = ProblemBody.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: {"schema": schema}}}
        for status in statuses
    }


_BY_STATUS: Final[Mapping[int, type[Problem]]] = {404: NotFoundProblem, 405: MethodNotAllowedProblem}


@final
class StrictRequest(Request):
    """A request whose body is read in one way only: whole, within the limits of length and time."""

    def __init__(self, request: Request, limit: int) -> None:
        """`limit` is in bytes."""
        super().__init__(request.scope, request.receive)
        self._limit = limit

    async def body(self) -> bytes:
        """Read the body.

        Raises:
            TooLargeProblem: it is longer than the limit.
            BodyTimeoutProblem: its end does not come.
            ClientDisconnect: whoever sent it has left.
        """
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    self._body = await self._whole_body()
            except TimeoutError:
                raise BodyTimeoutProblem from None
        return self._body

    async def _whole_body(self) -> bytes:
        parts, length, is_whole = [], 0, False
        while not is_whole:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            parts.append(part)
            length += len(part)
            if length > self._limit:
                raise TooLargeProblem(self._limit)
            is_whole = not message.get("more_body", False)
        return b"".join(parts)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, whole, and the end."""
        yield await self.body()
        yield b""

    async def json(self) -> Any:
        """Parse the body: UTF-8, no name twice in an object, no NaN or Infinity.

        Raises:
            json.JSONDecodeError: it is not such a text.
        """
        body = await self.body()
        try:
            return _JSON.decode(body.decode("utf-8"))
        except (UnicodeDecodeError, RecursionError, ValueError):
            # Not the error's own text: it may quote the body.
            raise json.JSONDecodeError("the body is not JSON as described", "", 0) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _no_number(_text: str) -> NoReturn:
    raise ValueError


_JSON: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_number)


def _refuse_repeated(request: Request) -> None:
    """Refuse a query in which a name comes twice: one reader takes the first, another the last."""
    if not request.scope["query_string"]:
        return
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names):
        raise InvalidRequestProblem("A name comes twice in the query.")


def _refuse_declared(request: Request, limit: int) -> None:
    """Refuse by the declared length before reading anything. What is not declared, or falsely, is counted later."""
    for name, declared in request.scope["headers"]:
        if name == b"content-length" and declared.isdigit() and int(declared[:20]) > limit:
            raise TooLargeProblem(limit)


def places(errors: Sequence[Any], *above: str) -> str:
    """Say where a request is wrong, and how; never what it held. `errors` as pydantic lists them."""
    return "; ".join(f"{'.'.join(str(part) for part in (*above, *each['loc']))}: {each['msg']}" for each in errors[:5])
