"""All endpoints of one server, as a router that any FastAPI application can include.

Owns: which endpoint has which body limit.
Does not know about: what the endpoints do.
"""

from typing import final

from fastapi import APIRouter
from starlette.types import Scope

from keyserver.deps import Context
from keyserver.routes import device_lists, devices, links, prekeys, push, recovery
from keyserver.routes.guarded import guarded_route, problem_responses


def build_router(context: Context, request_limit: int, upload_limit: int) -> APIRouter:
    """Make the router. It needs no middleware, state or handlers of the application that includes it."""

    watch = Watching(context)
    responses = {**problem_responses(408, 413, 429, 500)}
    ordinary = APIRouter(route_class=guarded_route(context, request_limit, watch), responses=responses, tags=["e2ee"])
    devices.add_routes(ordinary)
    device_lists.add_routes(ordinary)
    prekeys.add_routes(ordinary)
    links.add_routes(ordinary)
    recovery.add_routes(ordinary)
    push.add_routes(ordinary)
    large = APIRouter(route_class=guarded_route(context, upload_limit, watch), responses=responses, tags=["e2ee"])
    prekeys.add_upload_route(large)
    router = APIRouter()
    router.include_router(ordinary)
    router.include_router(large)
    return router


@final
class Watching:
    """Counts requests and what became of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.answered = context.metrics.answered

    async def admit(self, scope: Scope) -> None:
        await self._context.allowances.request_of_address(self._context.peers.find(scope))
