"""Endpoints: register a device, log it in, give it tokens.

Owns: the translation between HTTP and the services.
Does not know about: the rules.
"""

from fastapi import APIRouter

from e2ee.limits import SECOND_MS
from e2ee.wire.codec import from_base64url
from e2ee.wire.device_list import ListedDevice
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from e2ee.wire.login_assertion import LoginId
from e2ee.wire.public_keys import DeviceSigningKey, IdentityKey
from keyserver.deps import CallerDep, ContextDep, HostDep, TokenDep
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import (
    AssertionIn,
    DeviceIn,
    DeviceOut,
    LoginIn,
    LoginOut,
    OwnDeviceOut,
    OwnDevicesOut,
    TokenOut,
)
from keyserver.service.logins import UnboundAssertion
from keyserver.tables import DeviceStatus


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    router.add_api_route(
        "/v1/devices",
        register_device,
        methods=["POST"],
        operation_id="registerDevice",
        responses={**problem_responses(401, 409, 422, 429)},
    )
    router.add_api_route(
        "/v1/devices",
        read_devices,
        methods=["GET"],
        operation_id="readDevices",
        responses={**problem_responses(401, 422)},
    )
    router.add_api_route(
        "/v1/logins",
        open_login,
        methods=["POST"],
        operation_id="openLogin",
        responses={**problem_responses(401, 409, 422)},
    )
    router.add_api_route(
        "/v1/tokens",
        issue_token,
        methods=["POST"],
        operation_id="issueToken",
        responses={**problem_responses(401, 409, 422)},
    )


async def register_device(body: DeviceIn, caller: HostDep, context: ContextDep) -> DeviceOut:
    """Register a device of the host token's user. The same keys again change nothing."""
    device = ListedDevice(
        DeviceId.from_hex(body.device_id),
        DeviceSigningKey.from_bytes(from_base64url(body.device_signing_key)),
        IdentityKey.from_bytes(from_base64url(body.identity_key)),
    )
    status = await context.devices.register(caller.user_id, device)
    return DeviceOut(
        user_id=caller.user_id,
        device_id=body.device_id,
        status="active" if status is DeviceStatus.ACTIVE else "pending",
    )


async def read_devices(caller: CallerDep, context: ContextDep) -> OwnDevicesOut:
    """Return the devices of the token's user: those that are listed, and those that wait to be."""
    present = await context.devices.present(caller)
    return OwnDevicesOut(
        devices=[
            OwnDeviceOut(
                device_id=str(device_id),
                status="active" if status is DeviceStatus.ACTIVE else "pending",
                registered_at=registered_at,
            )
            for device_id, status, registered_at in present
        ]
    )


async def open_login(body: LoginIn, caller: HostDep, token: TokenDep, context: ContextDep) -> LoginOut:
    """Open a login: within it the device gets tokens by assertions alone, for at most 30 days."""
    address = DeviceAddress(caller.user_id, DeviceId.from_hex(body.device_id))
    login_id = await context.logins.open(address, caller.issued_at)
    try:
        # Again: had the host logged the user out since the first look, this login would have been made too late to end.
        await context.verify_host_token(token)
    except BaseException:
        await context.logins.close(login_id)
        raise
    return LoginOut(login_id=str(login_id))


async def issue_token(body: AssertionIn, context: ContextDep) -> TokenOut:
    """Give a device token for a login assertion. The assertion is the authentication; it counts once."""
    address = DeviceAddress(parse_user_id(body.user_id), DeviceId.from_hex(body.device_id))
    assertion = UnboundAssertion(address, LoginId.from_hex(body.login_id), body.counter)
    issued = await context.logins.token(assertion, from_base64url(body.signature))
    left = max(0, issued.expires_at - context.now()) // SECOND_MS
    return TokenOut(token=issued.token, expires_at=issued.expires_at, expires_in=left)
