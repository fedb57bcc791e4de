"""The chat as one ASGI application.

Owns: what is put together, the settings.
Does not know about: processes and ports.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import socketio
from fastapi import FastAPI

from .accounts import Accounts
from .conversations import Conversations
from .live import Live
from .push import Push
from .routes import build_router
from .tables import open_database


@dataclass(frozen=True)
class Settings:
    """What differs from one installation to the other."""

    database: Path
    jwt_secret: str = field(repr=False)
    """Signs the tokens."""


def make_server(settings: Settings) -> Any:
    """Put the chat together. There is no CORS header and no other origin: only its own pages reach it."""
    engine = open_database(settings.database)
    accounts, conversations = Accounts(engine, settings.jwt_secret), Conversations(engine)
    push = Push(settings.database.with_suffix(".push"))

    app = FastAPI(title="chat", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(build_router(accounts, conversations))

    sio = socketio.AsyncServer(async_mode="asgi")
    Live(sio, accounts, conversations, push)

    return socketio.ASGIApp(sio, app)
