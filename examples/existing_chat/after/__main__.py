"""The chat of `../before` with private conversations.

Shows: what is added to a chat that exists, and that it goes on with the database it has.

    python -m examples.existing_chat.after --dev --port 8450 --database chat.db

Without --dev the environment holds CHAT_JWT_SECRET, 32 random bytes or more, and a proxy in front terminates TLS. It
also holds E2EE_TOKEN_SECRET, 32 other random bytes, and E2EE_ORIGIN, the https:// address that clients use.
"""

import argparse
import os
import secrets
from pathlib import Path

import uvicorn

from keyserver.commands import load_settings
from transport_adapters.server.websocket_protocol import BoundedWebSocket

from .server import Settings, make_server

MIN_SECRET_BYTES = 32


def main() -> None:
    """Serve on loopback until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="chat")
    parser.add_argument("--port", type=int, default=8450)
    parser.add_argument("--database", type=Path, default=Path("chat.db"))
    parser.add_argument("--dev", action="store_true", help="fresh secrets at each start, no TLS proxy")
    options = parser.parse_args()
    uvicorn.run(
        make_server(_settings(parser, options)),
        port=options.port,
        access_log=False,
        ws=BoundedWebSocket,
        ws_per_message_deflate=False,
        proxy_headers=False,
    )


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    jwt_secret = secrets.token_urlsafe(MIN_SECRET_BYTES) if options.dev else os.environ.get("CHAT_JWT_SECRET", "")
    if len(jwt_secret.encode()) < MIN_SECRET_BYTES:
        # There is no default: an example's secret would end up in production.
        parser.error(f"CHAT_JWT_SECRET: {MIN_SECRET_BYTES} random bytes or more are needed")
    private = {"database": str(options.database), "host_jwt_algorithm": "HS256", "host_jwt_secret": jwt_secret}
    if options.dev:
        origin, token_secret = f"http://127.0.0.1:{options.port}", secrets.token_urlsafe(MIN_SECRET_BYTES)
        private |= {"origin": origin, "token_secret": token_secret}
    try:
        return Settings(
            database=options.database,
            jwt_secret=jwt_secret,
            private=load_settings(**private),
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
