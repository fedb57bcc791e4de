"""Endpoints: carry the messages of two devices of one user, one of which is being linked.

Owns: the translation between HTTP and the service.
Does not know about: the rules.
"""

from typing import Annotated

from fastapi import APIRouter, Path

from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.link import LinkId, LinkSlot
from keyserver.deps import ContextDep, HostDep
from keyserver.repository.links import Place
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import Hex16, LinkMessageIn, LinkMessageOut

SlotNumber = Annotated[
    int,
    Path(ge=1, le=4, description="1 commit, 2 answer, 3 reveal, 4 bundle", examples=[slot.value for slot in LinkSlot]),
]


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    router.add_api_route(
        "/v1/links/{link_id}/{slot}",
        put_link_message,
        methods=["PUT"],
        operation_id="putLinkMessage",
        responses={**problem_responses(401, 404, 409, 422, 429)},
    )
    router.add_api_route(
        "/v1/links/{link_id}/{slot}",
        read_link_message,
        methods=["GET"],
        operation_id="readLinkMessage",
        responses={**problem_responses(401, 404, 422)},
    )


async def put_link_message(
    link_id: Hex16, slot: SlotNumber, body: LinkMessageIn, caller: HostDep, context: ContextDep
) -> LinkMessageOut:
    """Write one of the four messages of a link, once and in order. The same bytes again change nothing."""
    place = Place(caller.user_id, LinkId.from_hex(link_id), LinkSlot(slot))
    await context.links.put(place, from_base64url(body.message))
    return LinkMessageOut(message=body.message)


async def read_link_message(link_id: Hex16, slot: SlotNumber, caller: HostDep, context: ContextDep) -> LinkMessageOut:
    """Return a message of a link of the token's user; null while it is not written."""
    found = await context.links.message(Place(caller.user_id, LinkId.from_hex(link_id), LinkSlot(slot)))
    return LinkMessageOut(message=None if found is None else to_base64url(found))
