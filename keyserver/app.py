"""The composition root of the server side: joins the key service, the mailbox's relay, and the host application.

Owns: who gets what. The one module that knows both the key service and the relay.
Does not know about: rules, SQL, frames.

    services = build_services(settings, verify_host_token, may_contact=...)     # inside an existing application
    app = create_app(settings)                                                  # a server of its own
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

import socketio
from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import Connection
from starlette.types import ASGIApp, Receive, Scope, Send

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId, parse_user_id
from keyserver.auth import Clock, DeviceAuthenticator, DeviceTokens
from keyserver.database import Database, database_url
from keyserver.deps import Context
from keyserver.host_token import VerifyHostToken, host_token_verifier
from keyserver.housekeeping import keep_house
from keyserver.migrations.runner import NOT_CURRENT, is_current, upgrade
from keyserver.problems import UnauthorizedProblem
from keyserver.push_services import endpoint_rule, make_providers
from keyserver.repository import device_lists, devices, push
from keyserver.repository.push import PushRow
from keyserver.routes import api, dev, health
from keyserver.routes.guarded import guarded_route, problem_response, to_problem
from keyserver.service.claims import ClaimService
from keyserver.service.device_lists import DeviceListService
from keyserver.service.devices import DeviceService
from keyserver.service.links import LinkService
from keyserver.service.logins import LoginService
from keyserver.service.policy import ContactPolicy, ContactRule, everybody, nobody
from keyserver.service.prekeys import PreKeyService
from keyserver.service.push import PushService
from keyserver.service.recovery import RecoveryService
from keyserver.settings import LOCAL_BUS, POSTGRESQL_BUS, Settings
from keyserver.sole_process import sole_process
from keyserver.tables import DeviceStatus, metadata
from transport_adapters.server.bus import Bus, LocalBus
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.nodes import NodesBus
from transport_adapters.server.ports import (
    OK,
    ListClaim,
    Principal,
    SendCheck,
    StaleList,
    TokenRefusedError,
    Unavailable,
)
from transport_adapters.server.push.gateway import Around, PushGateway, PushSettings
from transport_adapters.server.push.ports import Paused, PushKind, Subscription
from transport_adapters.server.relay import Relay
from transport_adapters.server.socketio import attach
from transport_adapters.server.tables import define_tables

if TYPE_CHECKING:
    from transport_adapters.server.mqtt_bridge import MqttBridge
    from transport_adapters.server.xmpp import XmppComponent

MAILBOX_TABLES: Final = define_tables(metadata)


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
    verifier = _TokenVerifier(authenticator)
    relay = Relay(database, MAILBOX_TABLES, _Directory(), verifier, policy, now=now, bus=_make_bus(settings))

    providers, vapid = make_providers(settings, now)
    gateway = None
    if providers:
        around = Around(database, _Subscriptions(), relay.mailbox.is_waiting, relay.is_live, now)
        gateway = PushGateway(around, providers, PushSettings(delay=settings.push_delay_seconds))
        relay.waker = gateway

    mailbox = relay.mailbox

    def cut(retired: Sequence[DeviceAddress]) -> None:
        for address in retired:
            relay.cut(address)

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
    )
    bridge = _make_bridge(settings, relay)
    router = api.build_router(context, settings.request_limit, settings.prekey_upload_limit)
    router.routes.extend(endpoints(relay, mqtt=bridge))
    parts = Parts(database, relay, gateway, bridge, _make_xmpp(settings, relay))
    return Services(router, relay, database, context, _lifespan(parts, settings, now))


def _make_xmpp(settings: Settings, relay: Relay) -> "XmppComponent | None":
    if settings.xmpp_component is None or settings.xmpp_secret is None:
        return None
    # Imported where it is wanted: it needs an extra.
    from transport_adapters.server.xmpp import XmppComponent, XmppSettings

    secret = settings.xmpp_secret.get_secret_value()
    where = settings.xmpp_host, settings.xmpp_port
    return XmppComponent(relay, XmppSettings(settings.xmpp_component, secret, settings.xmpp_domains, *where))


def _make_bus(settings: Settings) -> Bus:
    """Make the bus that the settings name. The libraries come with the extras `postgres` and `redis`."""
    if settings.bus == LOCAL_BUS:
        return LocalBus()
    # So that two servers on one Redis do not hear each other.
    channel = "e2ee_bus_" + hashlib.sha256(settings.origin.encode()).hexdigest()[:16]
    if settings.bus == POSTGRESQL_BUS:
        from transport_adapters.server.bus_postgresql import PostgreSqlWire

        url = database_url(settings.database).set(drivername="postgresql")
        return NodesBus(PostgreSqlWire(url.render_as_string(hide_password=False), channel))
    from transport_adapters.server.bus_redis import RedisWire

    return NodesBus(RedisWire(settings.bus, channel))


def _make_bridge(settings: Settings, relay: Relay) -> "MqttBridge | None":
    """Make the bridge to the broker that the settings name. The library comes with the extra `mqtt`."""
    if settings.mqtt_broker is None or settings.mqtt_password is None:
        return None
    from transport_adapters.server.mqtt_bridge import MqttBridge, MqttSettings

    chosen = MqttSettings(
        settings.mqtt_broker,
        settings.mqtt_user,
        settings.mqtt_password.get_secret_value(),
        settings.mqtt_public_url or settings.mqtt_broker,
        hmac.digest(settings.token_secret.get_secret_value().encode(), b"E2EE/1 mqtt accounts", "sha256"),
        broker_trust(settings),
        is_only=settings.bus == LOCAL_BUS,
    )
    return MqttBridge(relay, chosen)


def broker_trust(settings: Settings) -> ssl.SSLContext | None:
    """Return by what the broker is known; None: by the system's certificate store.

    Raises:
        ValueError: the file of certificates cannot be read.
    """
    if settings.mqtt_ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.mqtt_ca_file))
    except OSError as error:
        raise ValueError(f"E2EE_MQTT_CA_FILE: no certificates can be read: {error.strerror or error}") from None


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
        cors_allowed_origins=[],  # browsers reach the server through the host application's own page, or not at all
        ping_interval=15,
        ping_timeout=25,
        max_http_buffer_size=2 * MAX_ENVELOPE,
    )
    attach(sio, services.relay)
    return StandaloneApp(fastapi, services, guard(socketio.ASGIApp(sio, fastapi), services.relay))


def _application_user(text: str) -> UserId:
    """Parse a user id given by the host application: a bad one is its mistake, not hostile input."""
    try:
        return parse_user_id(text)
    except MalformedMessageError as error:
        raise ValueError(error.args[0]) from None


@final
class _Directory:
    """Tells the relay how devices stand (`DeviceDirectory`)."""

    def check_send(
        self,
        connection: Connection,
        sender: DeviceAddress,
        recipient: DeviceAddress,
        sender_list: ListClaim,
        recipient_list: ListClaim,
    ) -> SendCheck:
        for address, claim in ((recipient, recipient_list), (sender, sender_list)):
            standing = devices.standing(connection, address)
            if standing is None:
                return StaleList(address.user_id, 0, ())
            if (standing.list_seq, standing.list_hash) != claim:
                return StaleList(address.user_id, standing.list_seq, _listed(connection, address.user_id))
            if standing.status is not DeviceStatus.ACTIVE:
                return Unavailable()
        return OK


def _listed(connection: Connection, user_id: UserId) -> tuple[DeviceId, ...]:
    newest = device_lists.newest(connection, user_id)
    if newest is None:
        return ()
    return tuple(device.device_id for device in SignedDeviceList.decode(newest).unverified.devices)


@final
class _Subscriptions:
    """Tells the push gateway where devices are woken (`Subscriptions`)."""

    def claim(
        self, connection: Connection, address: DeviceAddress, now: int, pause_ms: int
    ) -> Subscription | Paused | None:
        claimed = push.claim(connection, address, now, pause_ms)
        if isinstance(claimed, PushRow):
            return Subscription(address, PushKind(claimed.kind), *claimed[1:])
        return None if claimed is None else Paused(claimed)

    def remove(self, connection: Connection, subscription: Subscription) -> None:
        push.remove(connection, subscription.address, subscription.target)


@final
class _TokenVerifier:
    """Tells the relay whom a token speaks for (`TokenVerifier`)."""

    def __init__(self, authenticator: DeviceAuthenticator) -> None:
        self._authenticator = authenticator

    async def verify(self, token: str) -> Principal:
        try:
            principal = await self._authenticator.verify(token)
        except UnauthorizedProblem as problem:
            raise TokenRefusedError(problem.code) from None
        return Principal(principal.address, principal.token_version, principal.expires_at)


class Parts(NamedTuple):
    """What has a life of its own."""

    database: Database
    relay: Relay
    gateway: PushGateway | None
    bridge: "MqttBridge | None"
    xmpp: "XmppComponent | None"


def _lifespan(parts: Parts, settings: Settings, now: Clock) -> Callable[[object], AbstractAsyncContextManager[None]]:
    database, relay, gateway, bridge, xmpp = parts

    @asynccontextmanager
    async def lifespan(_app: object = None) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as last_first:
            await last_first.enter_async_context(sole_process(settings))
            last_first.push_async_callback(database.close)
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
            yield

    return lifespan


async def _refuse(request: Request, error: Exception) -> Response:
    return problem_response(to_problem(error, request.url.path))


async def _prepare_tables(database: Database, migrate: bool) -> None:
    if database.is_sqlite or migrate:
        await database.write(upgrade, patience=None)
    elif not await database.read(is_current):
        raise RuntimeError(NOT_CURRENT)


@asynccontextmanager
async def _running(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
