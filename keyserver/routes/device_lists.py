"""Endpoints: change a device list, read lists with their history.

Owns: the translation between HTTP and the service.
Does not know about: the rules of the chain.
"""

from typing import Annotated

from fastapi import APIRouter, Query

from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import parse_user_id
from keyserver.deps import CallerDep, ContextDep, HostDep
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import AccountResetIn, DeviceListIn, DeviceListsOut, ListPositionOut, Seq, UserIdText


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    router.add_api_route(
        "/v1/device-lists",
        publish_device_list,
        methods=["PUT"],
        operation_id="publishDeviceList",
        responses={**problem_responses(401, 403, 409, 422, 429)},
    )
    router.add_api_route(
        "/v1/account-resets",
        reset_account,
        methods=["POST"],
        operation_id="resetAccount",
        responses={**problem_responses(401, 409, 422, 429)},
    )
    router.add_api_route(
        "/v1/device-lists",
        read_device_lists,
        methods=["GET"],
        operation_id="readDeviceLists",
        responses={**problem_responses(401, 422)},
    )


async def reset_account(body: AccountResetIn, caller: HostDep, context: ContextDep) -> ListPositionOut:
    """Give the token's user a new account key. All devices but those in its first list leave."""
    closing = None if body.closing_list is None else SignedDeviceList.decode(from_base64url(body.closing_list))
    first = SignedDeviceList.decode(from_base64url(body.device_list))
    position = await context.device_lists.reset(caller.user_id, closing, first)
    return ListPositionOut(seq=position.seq, hash=str(position.hash))


async def publish_device_list(body: DeviceListIn, caller: CallerDep, context: ContextDep) -> ListPositionOut:
    """Accept the list if it follows the newest one of its user. A list accepted before changes nothing."""
    signed = SignedDeviceList.decode(from_base64url(body.device_list))
    position = await context.device_lists.publish(caller, signed)
    return ListPositionOut(seq=position.seq, hash=str(position.hash))


async def read_device_lists(
    user_id: Annotated[UserIdText, Query()],
    caller: CallerDep,
    context: ContextDep,
    from_seq: Annotated[Seq, Query()] = 1,
) -> DeviceListsOut:
    """Return a user's lists from a number on. Unknown users, and those out of reach, have none."""
    history = await context.device_lists.history(caller, parse_user_id(user_id), from_seq)
    return DeviceListsOut(device_lists=[to_base64url(each) for each in history.lists], newest_seq=history.newest_seq)
