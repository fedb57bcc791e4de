"""The chat's own client: as a class for programs, and for a person at a terminal.

Shows: what the chat's users have today. It works with the chat as it was before and as it is after, unchanged.
Run the chat in one terminal, and in two others, with a password of at least 8 characters each:

    python -m examples.existing_chat.client http://127.0.0.1:8450 alice --register
    python -m examples.existing_chat.client http://127.0.0.1:8450 bob --register --with alice
"""

import argparse
import asyncio
import getpass
import os
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import socketio

ANSWER_SECONDS = 5.0
TRIES = 3


class RefusedError(Exception):
    """The chat refused. The text is its code."""


class ChatClient:
    """One user's client. `events` yields what is said to it while it is connected, and only then."""

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        self.user_id = 0
        self.events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._token = ""
        self._http = httpx.AsyncClient(base_url=server, timeout=30)
        self._sio = socketio.AsyncClient(handle_sigint=False)
        for event in ("message", "typing", "read"):
            self._sio.on(event, self._queue(event))

    async def register(self, password: str) -> None:
        """Make the account."""
        await self._ask("POST", "/register", {"name": self.name, "password": password})

    async def log_in(self, password: str) -> None:
        """Get a token."""
        self._token = (await self._ask("POST", "/login", {"name": self.name, "password": password}))["token"]
        self.user_id = (await self._ask("GET", "/me"))["id"]

    async def log_out(self) -> None:
        """End all tokens of this user, on every machine."""
        await self._ask("POST", "/logout")

    async def token(self) -> str:
        """Return the token of the login."""
        return self._token

    async def connect(self) -> None:
        """Begin to hear events."""
        await self._sio.connect(self.server, auth={"token": self._token}, transports=["websocket"])

    async def disconnect(self) -> None:
        """Hear no more."""
        await self._sio.disconnect()

    async def open_conversation(self, *names: str) -> str:
        """Begin a conversation; return its id."""
        return str((await self._ask("POST", "/conversations", {"names": names}))["id"])

    async def conversations(self) -> list[dict[str, Any]]:
        """Return the list of conversations, as the chat shows it."""
        return list(await self._ask("GET", "/conversations"))

    async def history(self, conversation: str) -> list[dict[str, Any]]:
        """Return what was said."""
        said: list[dict[str, Any]] = []
        while page := await self._ask(
            "GET", f"/conversations/{conversation}/messages", after=said[-1]["id"] if said else 0
        ):
            said += page
        return said

    async def make_private(self, conversation: str) -> None:
        """Switch a conversation to private. The chat as it was before knows no such thing."""
        await self._ask("POST", f"/conversations/{conversation}/private")

    async def say(self, conversation: str, text: str) -> int:
        """Say something, again if no answer comes: it may have arrived, and then it is there twice."""
        return int((await self.emit("message", conversation=conversation, text=text))["id"])

    async def emit(self, event: str, **fields: Any) -> dict[str, Any]:
        """Send an event and return the answer to it."""
        for _ in range(TRIES):
            try:
                answer: dict[str, Any] = await self._call(event, fields)
            except socketio.exceptions.TimeoutError:
                continue
            if "error" in answer:
                raise RefusedError(answer["error"])
            return answer
        raise RefusedError("no_answer")

    async def aclose(self) -> None:
        """Disconnect and close."""
        await self.disconnect()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def _call(self, event: str, fields: dict[str, Any]) -> Any:
        return await self._sio.call(event, fields, timeout=ANSWER_SECONDS)

    async def _ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        answer = await self._http.request(method, path, json=body, params=query, headers=headers)
        if answer.is_error:
            raise RefusedError(str(answer.json()["detail"]))
        return answer.json() if answer.content else None

    def _queue(self, event: str) -> Any:
        return lambda fields: self.events.put_nowait((event, fields))


async def converse(chat: ChatClient, conversation: str | None) -> None:
    """Print what is said, and say what is typed, until the end of the input."""
    names: dict[int, str] = {}

    async def show() -> None:
        nonlocal conversation
        while True:
            event, fields = await chat.events.get()
            if event == "message":
                conversation, sender = fields["conversation"], fields["sender"]
                if sender not in names:
                    for each in await chat.conversations():
                        names.update({person["id"]: person["name"] for person in each["members"]})
                print(f"{names[sender]}: {fields['text']}", flush=True)

    showing = asyncio.create_task(show())
    print("type a line to say it; Ctrl-D ends", flush=True)
    try:
        async for line in typed():
            if conversation is None:
                print("nobody has written yet", flush=True)
            else:
                await chat.say(conversation, line)
    finally:
        showing.cancel()


async def typed() -> AsyncIterator[str]:
    """Yield the lines of the standard input."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()

    def read() -> None:
        if some := os.read(0, 4096):
            lines.feed_data(some)
        else:
            loop.remove_reader(0)
            lines.feed_eof()

    loop.add_reader(0, read)
    while line := await lines.readline():
        yield line.decode(errors="replace").rstrip("\r\n")


async def main() -> None:
    """Log in and converse."""
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("server")
    parser.add_argument("name")
    parser.add_argument("--register", action="store_true", help="make the account first")
    parser.add_argument("--with", dest="other", metavar="NAME", help="begin a conversation")
    options = parser.parse_args()
    password = await asyncio.to_thread(getpass.getpass)
    async with ChatClient(options.server, options.name) as chat:
        if options.register:
            await chat.register(password)
        await chat.log_in(password)
        await chat.connect()
        await converse(chat, await chat.open_conversation(options.other) if options.other else None)


if __name__ == "__main__":
    asyncio.run(main())
