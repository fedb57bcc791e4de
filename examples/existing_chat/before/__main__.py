"""A chat as many teams have one: FastAPI, Socket.IO, JWT, messages in a database.

Shows: where private conversations are about to be added; `../after` is the same chat with them.

    python -m examples.existing_chat.before --dev --port 8450 --database chat.db

Without --dev the environment holds CHAT_JWT_SECRET, 32 random bytes or more, and a proxy in front terminates TLS.
"""

import argparse
import os
import secrets
from pathlib import Path

import uvicorn

from .server import Settings, make_server

MIN_SECRET_BYTES = 32


def main() -> None:
    """Serve on loopback until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="chat")
    parser.add_argument("--port", type=int, default=8450)
    parser.add_argument("--database", type=Path, default=Path("chat.db"))
    parser.add_argument("--dev", action="store_true", help="a fresh secret at each start, no TLS proxy")
    options = parser.parse_args()
    uvicorn.run(
        make_server(_settings(parser, options)),
        port=options.port,
        access_log=False,
        proxy_headers=False,
    )


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    jwt_secret = secrets.token_urlsafe(MIN_SECRET_BYTES) if options.dev else os.environ.get("CHAT_JWT_SECRET", "")
    if len(jwt_secret.encode()) < MIN_SECRET_BYTES:
        # There is no default: an example's secret would end up in production.
        parser.error(f"CHAT_JWT_SECRET: {MIN_SECRET_BYTES} random bytes or more are needed")
    return Settings(
        database=options.database,
        jwt_secret=jwt_secret,
    )


if __name__ == "__main__":
    main()
