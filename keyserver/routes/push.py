"""Endpoints: where the token's device is woken.

Owns: the translation between HTTP and the service.
Does not know about: the rules.
"""

from fastapi import APIRouter, Response

from e2ee.wire.codec import from_base64url, to_base64url
from keyserver.deps import ContextDep, DeviceDep
from keyserver.repository.push import PushRow
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import PushIn, PushOut


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    refusals = {**problem_responses(401, 422)}
    path, done = "/v1/push-subscription", 204
    router.add_api_route("/v1/push", offered, methods=["GET"], operation_id="pushServices", responses=refusals)
    router.add_api_route(
        path, subscribe, methods=["PUT"], operation_id="subscribePush", status_code=done, responses=refusals
    )
    router.add_api_route(
        path, unsubscribe, methods=["DELETE"], operation_id="unsubscribePush", status_code=done, responses=refusals
    )


async def offered(_device: DeviceDep, context: ContextDep) -> PushOut:
    """Say which push services this server serves, and the key that browsers subscribe with."""
    key = context.push.vapid_public_key
    return PushOut(kinds=sorted(context.push.kinds), vapid_public_key=to_base64url(key) if key else None)


async def subscribe(body: PushIn, device: DeviceDep, context: ContextDep) -> Response:
    """Keep where the token's device is woken, in place of what was kept before."""
    row = PushRow(body.kind, body.target, from_base64url(body.public_key), from_base64url(body.auth))
    await context.push.subscribe(device, row)
    return Response(status_code=204)


async def unsubscribe(device: DeviceDep, context: ContextDep) -> Response:
    """Forget where the token's device is woken."""
    await context.push.unsubscribe(device)
    return Response(status_code=204)
