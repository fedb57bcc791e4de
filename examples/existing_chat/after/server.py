"""The chat as one ASGI application.

Owns: what is put together, the settings.
Does not know about: processes and ports.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import socketio
from fastapi import FastAPI

from keyserver.app import build_services
from keyserver.settings import Settings as PrivateSettings
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach

from .accounts import Accounts
from .conversations import Conversations
from .live import Live
from .private import Rules
from .push import Push
from .routes import build_router
from .tables import open_database


@dataclass(frozen=True)
class Settings:
    """What differs from one installation to the other."""

    database: Path
    jwt_secret: str = field(repr=False)
    """Signs the tokens."""
    private: PrivateSettings


def make_server(settings: Settings) -> Any:
    """Put the chat together. There is no CORS header and no other origin: only its own pages reach it."""
    engine = open_database(settings.database)
    accounts, conversations = Accounts(engine, settings.jwt_secret), Conversations(engine)
    push = Push(settings.database.with_suffix(".push"))

    rules = Rules(accounts, conversations)
    services = build_services(
        settings.private, rules.verify_host_token, may_contact=rules.may_contact, may_see=rules.may_see
    )

    app = FastAPI(title="chat", docs_url=None, redoc_url=None, openapi_url=None, lifespan=services.lifespan)
    app.include_router(build_router(accounts, conversations, services))
    app.include_router(services.router)

    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
    Live(sio, accounts, conversations, push)
    attach(sio, services.relay)

    return guard(socketio.ASGIApp(sio, app), services.relay)
