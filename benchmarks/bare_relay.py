"""The reference of the relay's rows: a plain Socket.IO relay that inserts each message into SQLite, and no more.

Owns: what most chats do: one event in, one INSERT, one event out, one event back.
Does not know about: retries, acks that delete, order, tokens, limits.
"""

import socket
import sqlite3
import sys
from typing import Any

import socketio
import uvicorn

sio = socketio.AsyncServer(async_mode="asgi", max_http_buffer_size=1 << 20)
database = sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
rooms: dict[str, str] = {}


@sio.event
async def connect(_sid: str, _environ: Any, _auth: Any = None) -> None:
    """Take anybody."""


@sio.event
async def join(sid: str, name: str) -> None:
    """Remember who is who."""
    rooms[name] = sid


@sio.event
async def message(sid: str, recipient: str, number: int, body: bytes) -> None:
    """Store, then pass on."""
    database.execute("INSERT INTO messages (recipient, body) VALUES (?, ?)", (recipient, body))
    await sio.emit("stored", number, to=sid)
    await sio.emit("message", (number, body), to=rooms[recipient])


@sio.event
async def seen(_sid: str, _number: int) -> None:
    """Take the recipient's word that it has the message."""


def main() -> None:
    """Serve on a free port of loopback; print its URL."""
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, recipient TEXT, body BLOB)")
    config = uvicorn.Config(socketio.ASGIApp(sio), log_config=None, access_log=False, ws_per_message_deflate=False)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    sys.stdout.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
