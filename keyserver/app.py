"""The composition root of the server side: joins the key service, the mailbox's relay, and the host application.

Owns: who gets what. The one module that knows both the key service and the relay.
Does not know about: rules, SQL, frames.

    services = build_services(settings, verify_host_token, may_contact=...)     # inside an existing application
    app = create_app(settings)                                                  # a server of its own
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

import socketio
from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import Connection
from starlette.types import ASGIApp, Receive, Scope, Send

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId, parse_user_id
from keyserver.allowances import Allowances
from keyserver.auth import Clock, DeviceAuthenticator, DeviceTokens
from keyserver.buckets import make_buckets
from keyserver.carriers import make_bridge, make_bus, make_xmpp
from keyserver.database import Database, database_url
from keyserver.deps import Context
from keyserver.front import make_front
from keyserver.host_token import VerifyHostToken, host_token_verifier
from keyserver.housekeeping import keep_house
from keyserver.metrics import Metrics, Numbers, keep_surveying
from keyserver.migrations.runner import check_current, upgrade
from keyserver.peers import Peers
from keyserver.push_services import endpoint_rule, make_providers
from keyserver.relay_ports import Directory, Subscriptions, TokenVerifier
from keyserver.repository import devices, surveys
from keyserver.routes import api, dev, health
from keyserver.routes.guarded import guarded_route, problem_response, to_problem
from keyserver.routes.shortcut import Shortcut
from keyserver.service.claims import ClaimService
from keyserver.service.device_lists import DeviceListService
from keyserver.service.devices import DeviceService
from keyserver.service.links import LinkService
from keyserver.service.logins import LoginService
from keyserver.service.policy import ContactPolicy, ContactRule, everybody, nobody
from keyserver.service.prekeys import PreKeyService
from keyserver.service.push import PushService
from keyserver.service.recovery import RecoveryService
from keyserver.settings import Settings
from keyserver.sole_process import sole_process
from keyserver.tables import metadata
from transport_adapters.server.guard import guard
from transport_adapters.server.inbox_sizes import inbox_sizes
from transport_adapters.server.mailbox import Mailbox
from transport_adapters.server.mount import endpoints
from transport_adapters.server.push.gateway import Around, PushGateway, PushSettings
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import DEFAULT_MAILBOX
from transport_adapters.server.socketio import attach
from transport_adapters.server.tables import define_tables

if TYPE_CHECKING:
    from transport_adapters.server.mqtt_bridge import MqttBridge
    from transport_adapters.server.xmpp import XmppComponent

MAILBOX_TABLES: Final = define_tables(metadata)


def remove_inboxes(connection: Connection, leaving: Collection[DeviceAddress]) -> None:
    """Delete the mailboxes of devices that leave, with what waits in them."""
    Mailbox(MAILBOX_TABLES, DEFAULT_MAILBOX).remove_inboxes(connection, leaving)


def survey(connection: Connection) -> Numbers:
    """Count users, devices, and what waits for them."""
    sizes = inbox_sizes(connection, MAILBOX_TABLES, DEFAULT_MAILBOX)._asdict()
    named = {name if name == "inboxes" else f"inbox_{name}": value for name, value in sizes.items()}
    return surveys.survey(connection)._asdict() | named


def restart_mailboxes(connection: Connection, now: int) -> int:
    """Give every mailbox a new epoch, after the database was restored from a backup; return how many there are."""
    return Mailbox(MAILBOX_TABLES).restart(connection, now)


def system_clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@final
@dataclass(frozen=True, slots=True)
class Services:
    """What an application mounts: `include_router(services.router)`, and `services.lifespan` around its life."""

    router: APIRouter
    relay: Relay
    database: Database
    context: Context
    lifespan: Callable[[object], AbstractAsyncContextManager[None]]

    def metrics(self) -> bytes:
        """Return what this process counted, in Prometheus' text format, for an endpoint that is not public."""
        return self.context.metrics.render()

    async def has_device(self, user: str) -> bool:
        """Say whether a user has a device that can be written to."""
        user_id = _application_user(user)
        return bool(await self.database.read(lambda connection: devices.active(connection, user_id)))

    async def log_out(self, user: str) -> None:
        """End all logins of a user's devices: their tokens count no more, their connections here are cut at once.

        Other processes on the same database notice within 10 s. A device that is still open asks for the host's token
        when it wants back in: from the moment of this call on, `verify_host_token` must refuse the old ones. The
        devices and what waits for them stay.
        """
        user_id = _application_user(user)
        await self.context.logins.close_all(user_id)
        self.relay.log_out(user_id)

    async def revoke(self, user: str) -> None:
        """Log a user out, and refuse every token of the host that was issued until now.

        For a token that may be stolen: beyond `log_out`, this server remembers. A host token that does not say when it
        was issued counts as issued at the beginning of time, and so opens nothing for this user any more.
        """
        user_id = _application_user(user)
        await self.context.logins.revoke_all(user_id)
        self.relay.log_out(user_id)

    async def revoke_device(self, user: str, device: str) -> bool:
        """Retire one device for good, as for one that is lost; `device` is 32 hex digits. False if there is none.

        It cannot come back under its id, and its mailbox goes with what waits in it. The user's other devices still
        list it until they sign a list without it; those who write to the user skip it.
        """
        address = DeviceAddress(_application_user(user), _application_device(device))
        retired = await self.context.devices.revoke(address)
        self.relay.cut(address)
        return retired


def build_services(
    settings: Settings,
    verify_host_token: VerifyHostToken,
    *,
    may_contact: ContactRule = everybody,
    may_see: ContactRule = nobody,
    now: Clock = system_clock,
) -> Services:
    """Build the server side without an application around it. Nothing is opened before `lifespan`."""
    database = Database(database_url(settings.database))
    tokens = DeviceTokens(settings.token_secret.get_secret_value(), settings.origin, settings.token_ms, now)
    authenticator = DeviceAuthenticator(database, tokens, now)
    policy = ContactPolicy(may_contact, may_see)
    verifier = TokenVerifier(authenticator)
    relay = Relay(database, MAILBOX_TABLES, Directory(), verifier, policy, now=now, bus=make_bus(settings))

    relay.meter = metrics = Metrics(lambda: relay.live_connections)

    providers, vapid = make_providers(settings, now)
    gateway = None
    if providers:
        around = Around(database, Subscriptions(), relay.mailbox.is_waiting, relay.is_live, now)
        gateway = PushGateway(around, providers, PushSettings(delay=settings.push_delay_seconds))
        relay.waker = gateway

    mailbox = relay.mailbox

    def cut(retired: Sequence[DeviceAddress]) -> None:
        for address in retired:
            relay.cut(address)

    allowances = Allowances(make_buckets(settings, database, now), settings.requests, now)
    context = Context(
        database=database,
        now=now,
        verify_host_token=verify_host_token,
        authenticator=authenticator,
        devices=DeviceService(database, now, settings.registrations, mailbox.create_inbox, mailbox.remove_inboxes),
        device_lists=DeviceListService(database, now, policy, settings.lists, cut, mailbox.remove_inboxes),
        logins=LoginService(database, now, tokens, settings.origins, settings.login_ms, secrets.token_bytes),
        prekeys=PreKeyService(database, now, settings.uploads),
        claims=ClaimService(database, now, policy, settings.claims),
        links=LinkService(database, now, settings.links),
        recovery=RecoveryService(database, now, settings.links),
        push=PushService(database, now, frozenset(map(str, providers)), endpoint_rule(settings), vapid),
        allowances=allowances,
        peers=Peers(settings.trusted_proxies, hidden=settings.proxy_is_unknown),
        metrics=metrics,
    )
    bridge = make_bridge(settings, relay)
    router = api.build_router(context, settings.request_limit, settings.prekey_upload_limit)
    router.routes.extend(endpoints(relay, mqtt=bridge))
    parts = Parts(database, relay, gateway, bridge, make_xmpp(settings, relay), allowances, metrics)
    return Services(router, relay, database, context, _lifespan(parts, settings, now))


@final
class StandaloneApp:
    """The whole server as one ASGI application: key service, and the relay on every transport."""

    def __init__(self, fastapi: FastAPI, services: Services, asgi: ASGIApp) -> None:
        self.fastapi = fastapi
        self.services = services
        self._asgi = asgi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, connection or lifespan."""
        # Socket.IO's own handling of the lifespan would hide ours.
        await (self.fastapi if scope["type"] == "lifespan" else self._asgi)(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    may_contact: ContactRule = everybody,
    may_see: ContactRule = nobody,
    dev_issuer: bool = False,
    now: Clock = system_clock,
) -> StandaloneApp:
    """Build a server of its own. `dev_issuer` adds POST /dev/token, which gives anybody a token for any user.

    Raises:
        ValueError: the settings do not say how the host application's tokens are verified.
    """
    verifier = host_token_verifier(settings, now)
    services = build_services(settings, verifier, may_contact=may_contact, may_see=may_see, now=now)
    fastapi = FastAPI(
        title="e2ee-layer",
        version="1",
        lifespan=services.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    fastapi.include_router(services.router)
    extra = APIRouter(route_class=guarded_route(services.context, settings.request_limit))
    health.add_routes(extra)
    if dev_issuer and settings.host_jwt_secret is not None:
        dev.add_routes(extra, settings.host_jwt_secret.get_secret_value(), now)
    fastapi.include_router(extra)
    for kind in (404, 405, Exception):
        fastapi.add_exception_handler(kind, _refuse)
    sio = socketio.AsyncServer(
        async_mode="asgi",
        # Not "none": the library takes [] for "look at no origin". `Front` has looked, here as everywhere else.
        cors_allowed_origins=[],
        ping_interval=15,
        ping_timeout=25,
        max_http_buffer_size=2 * MAX_ENVELOPE,
    )
    attach(sio, services.relay)
    guarded = guard(socketio.ASGIApp(sio, fastapi), services.relay)
    whole = Shortcut(guarded, services.context, settings.request_limit)
    return StandaloneApp(fastapi, services, make_front(whole, settings, services.context))


def _application_user(text: str) -> UserId:
    """Parse a user id given by the host application: a bad one is its mistake, not hostile input."""
    try:
        return parse_user_id(text)
    except MalformedMessageError as error:
        raise ValueError(error.args[0]) from None


def _application_device(text: str) -> DeviceId:
    try:
        return DeviceId.from_hex(text)
    except MalformedMessageError as error:
        raise ValueError(error.args[0]) from None


class Parts(NamedTuple):
    """What has a life of its own."""

    database: Database
    relay: Relay
    gateway: PushGateway | None
    bridge: "MqttBridge | None"
    xmpp: "XmppComponent | None"
    allowances: Allowances
    metrics: Metrics


def _lifespan(parts: Parts, settings: Settings, now: Clock) -> Callable[[object], AbstractAsyncContextManager[None]]:
    database, relay, gateway, bridge, xmpp, allowances, metrics = parts

    @asynccontextmanager
    async def lifespan(_app: object = None) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as last_first:
            await last_first.enter_async_context(sole_process(settings))
            last_first.push_async_callback(database.close)
            last_first.push_async_callback(allowances.close)
            await database.start()
            await _prepare_tables(database, settings.migrate)
            if gateway is not None:
                last_first.push_async_callback(gateway.close)
            if xmpp is not None:
                last_first.push_async_callback(xmpp.close)
            last_first.push_async_callback(relay.close)  # which says farewell over the transports
            await relay.start()
            if xmpp is not None:
                xmpp.start()
            if bridge is not None:
                last_first.push_async_callback(bridge.close)
                await bridge.start()
            await last_first.enter_async_context(_running(keep_house(database, now)))
            await last_first.enter_async_context(_running(keep_surveying(database, survey, metrics)))
            yield

    return lifespan


async def _refuse(request: Request, error: Exception) -> Response:
    return problem_response(to_problem(error, request.url.path))


async def _prepare_tables(database: Database, migrate: bool) -> None:
    try:
        if database.is_sqlite or migrate:
            await database.write(upgrade, patience=None)
        else:
            await database.read(check_current)
    except ValueError as error:
        raise RuntimeError(str(error)) from None


@asynccontextmanager
async def _running(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
