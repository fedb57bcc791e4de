"""Private conversations in a chat that exists: FastAPI, Socket.IO, and a login of its own.

Shows: the key service's router, `attach` and `guard` in somebody else's application, which stays as it is; how its
JWTs say who a user is; how it decides who may write to whom. What is added is marked.

    python examples/mount_in_fastapi.py 8442 chat.db

Clients use `SecureClient.open(server="http://127.0.0.1:8442", token_provider=...)` with a token of `POST /login/NAME`.
"""

import secrets
import sys
import time

import jwt
import socketio
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from e2ee.wire.identifiers import UserId
from keyserver.app import build_services
from keyserver.host_token import HostIdentity
from keyserver.problems import TokenExpiredProblem, TokenInvalidProblem
from keyserver.settings import Settings
from transport_adapters.server.guard import AsgiApp, guard
from transport_adapters.server.http_protocol import BoundedHttp
from transport_adapters.server.socketio import attach
from transport_adapters.server.websocket_protocol import BoundedWebSocket

CHAT_SECRET = secrets.token_urlsafe(32)  # in your application: from its configuration
TOKEN_SECRET = SecretStr(secrets.token_urlsafe(32))  # added: another one, which stays the same over restarts


async def who_is_it(token: str) -> HostIdentity:
    """Check a token as the chat itself does. Added."""
    try:
        claims = jwt.decode(token, CHAT_SECRET, ["HS256"], options={"require": ["sub", "iat", "exp"]})
    except jwt.ExpiredSignatureError:
        raise TokenExpiredProblem from None
    except jwt.InvalidTokenError:
        raise TokenInvalidProblem from None
    return HostIdentity(claims["sub"], claims["iat"])


async def may_contact(sender: UserId, recipient: UserId) -> bool:
    """Look into the chat's blocks and contact lists. Added."""
    return "mallory" not in (sender, recipient)


def make_chat(origin: str, database: str) -> AsgiApp:
    """Put the chat together. `origin` is how clients reach it; logins of devices are bound to it."""
    settings = Settings(origin=origin, token_secret=TOKEN_SECRET, database=database)
    services = build_services(settings, who_is_it, may_contact=may_contact)  # added

    app = FastAPI(lifespan=services.lifespan)  # the lifespan is added; within one of your own: `async with`
    app.include_router(services.router)  # added

    @app.post("/login/{name}")
    async def login(name: str) -> dict[str, str]:
        now = int(time.time())
        return {"token": jwt.encode({"sub": name, "iat": now, "exp": now + 3600}, CHAT_SECRET, "HS256")}

    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15, max_http_buffer_size=200_000)
    attach(sio, services.relay)  # added: the namespace /e2ee

    async def say(_sid: str, text: str) -> None:
        await sio.emit("said", text)

    sio.on("say", say)
    return guard(socketio.ASGIApp(sio, app), services.relay)  # added, outermost: it sees the raw sockets


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    port = int(sys.argv[1])
    chat = make_chat(f"http://127.0.0.1:{port}", sys.argv[2])
    # The access log would name who asks for whom.
    uvicorn.run(chat, port=port, access_log=False, http=BoundedHttp, ws=BoundedWebSocket)
