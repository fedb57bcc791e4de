"""What endpoints depend on: the server they belong to, and who asks.

Owns: how a token comes in, which kind of token an endpoint takes.
Does not know about: verification (auth.py), what the caller may do (service/).
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.allowances import Allowances
from keyserver.auth import Clock, DeviceAuthenticator, is_device_token
from keyserver.database import Database
from keyserver.host_token import VerifyHostToken, host_user
from keyserver.metrics import Metrics
from keyserver.peers import Peers
from keyserver.problems import TokenMissingProblem
from keyserver.routes.guarded import CONTEXT_KEY
from keyserver.service.claims import ClaimService
from keyserver.service.device_lists import DeviceListService
from keyserver.service.devices import DeviceService
from keyserver.service.links import LinkService
from keyserver.service.logins import LoginService
from keyserver.service.prekeys import PreKeyService
from keyserver.service.push import PushService
from keyserver.service.recovery import RecoveryService


@dataclass(frozen=True, slots=True)
class Context:
    """One server: everything its endpoints use."""

    database: Database
    now: Clock
    verify_host_token: VerifyHostToken
    authenticator: DeviceAuthenticator
    devices: DeviceService
    device_lists: DeviceListService
    logins: LoginService
    prekeys: PreKeyService
    claims: ClaimService
    links: LinkService
    recovery: RecoveryService
    push: PushService
    allowances: Allowances
    peers: Peers
    metrics: Metrics


class HostUser(NamedTuple):
    """A user whom the host application vouches for; `issued_at` is Unix seconds."""

    user_id: UserId
    issued_at: int


_host_bearer = HTTPBearer(scheme_name="HostToken", description="The host application's JWT", auto_error=False)
_device_bearer = HTTPBearer(scheme_name="DeviceToken", description="From POST /v1/tokens", auto_error=False)


# These two wait for nothing, and are coroutines all the same: a plain function would be run in a thread, each time.
async def context(request: Request) -> Context:
    """Return the server that the endpoint belongs to."""
    return cast(Context, request.scope[CONTEXT_KEY])


ContextDep = Annotated[Context, Depends(context)]


async def bearer_token(request: Request) -> str:
    """Take the token from the Authorization header, as `token_of` does."""
    return token_of(request)


def token_of(request: Request) -> str:
    """Take the token from the Authorization header.

    Raises:
        TokenMissingProblem: none, another scheme, or several headers: whoever stands before us may have read another.
    """
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    scheme, _, token = (given[0].decode("latin-1") if len(given) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenMissingProblem
    return token


TokenDep = Annotated[str, Depends(bearer_token)]


async def host_caller(
    context: ContextDep, token: TokenDep, _described: Annotated[object, Depends(_host_bearer)]
) -> HostUser:
    """Let only the host application's token in."""
    return await _host(context, token)


async def device_caller(
    context: ContextDep, token: TokenDep, _described: Annotated[object, Depends(_device_bearer)]
) -> DeviceAddress:
    """Let only a device token in."""
    return await token_device(context, token)


async def either_caller(
    context: ContextDep,
    token: TokenDep,
    _host_described: Annotated[object, Depends(_host_bearer)],
    _device_described: Annotated[object, Depends(_device_bearer)],
) -> UserId:
    """Let both kinds of token in, each verified as its own kind."""
    if is_device_token(token):
        return (await token_device(context, token)).user_id
    return (await _host(context, token)).user_id


HostDep = Annotated[HostUser, Depends(host_caller)]
DeviceDep = Annotated[DeviceAddress, Depends(device_caller)]
CallerDep = Annotated[UserId, Depends(either_caller)]


async def _host(context: Context, token: str) -> HostUser:
    identity = await context.verify_host_token(token)
    user = HostUser(host_user(identity), identity.issued_at)
    await context.logins.refuse_revoked(user.user_id, user.issued_at)
    await context.allowances.request_of_user(user.user_id)
    return user


async def token_device(context: Context, token: str) -> DeviceAddress:
    """Return the device that a token speaks for, and count a request of its user."""
    address = (await context.authenticator.verify(token)).address
    await context.allowances.request_of_user(address.user_id)
    return address
