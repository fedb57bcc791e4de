"""A telephone without a voice: shows who is there, rings them, and answers whoever rings.

Shows: presence and calls with SecureClient.
Run a server in one terminal, a phone that waits in a second one, and one that calls in a third:

    keyserver serve --dev --port 8440
    export E2EE_PASSPHRASE='correct horse battery staple'
    python examples/phone.py http://127.0.0.1:8440 bob
    python examples/phone.py http://127.0.0.1:8440 alice bob

On that server nobody may see anybody: pass `may_see=` to `create_app` or `build_services` to change it.
"""

import asyncio
import contextlib
import os
import sys

import httpx

from transport_adapters import SecureClient
from transport_adapters.events import CallChanged, CallMissed, CallRinging, Event, PresenceChanged


async def open_phone(server: str, user: str, events: "asyncio.Queue[Event]") -> SecureClient:
    async def host_token() -> str:
        """In your application: the JWT of the user's login."""
        async with httpx.AsyncClient(base_url=server) as http:
            response = await http.post("/dev/token", json={"user": user})
            return str(response.raise_for_status().json()["token"])

    return await SecureClient.open(
        store=f"{user}.db",
        passphrase=os.environ["E2EE_PASSPHRASE"],
        user=user,
        server=server,
        token_provider=host_token,
        on_event=events.put_nowait,  # called in the event loop, and must not wait: hand over what takes time
    )


async def react(events: "asyncio.Queue[Event]") -> None:
    """Show what happens, and take whatever call comes."""
    while True:
        match await events.get():
            case CallRinging(call):
                print(f"{call.user_id} rings with {call.data!r}", flush=True)
                await call.accept(b"an answer of the media library")
            case CallChanged(call):
                print(f"call with {call.user_id}: {call.end or call.state}", flush=True)
            case CallMissed(user_id):
                print(f"{user_id} called in vain", flush=True)
            case PresenceChanged(user_id, state):
                print(f"{user_id} is {state}", flush=True)
            case _:
                pass


async def show_messages(phone: SecureClient) -> None:
    """Ask for messages: missed calls come among them."""
    async for message in phone:
        print(f"{message.sender}: {message.data!r}", flush=True)


async def use(server: str, user: str, peer: str | None) -> None:
    """Ring `peer` and hang up when they answered; without a peer wait for calls until stopped."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    async with await open_phone(server, user, events) as phone, asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(react(events)), tasks.create_task(show_messages(phone))]
        await phone.presence.announce("online")
        if peer is None:
            await phone.online()
            print(f"{user} waits for calls", flush=True)
            return  # and the tasks go on
        await phone.presence.watch([peer])
        call = await phone.call(peer, b"an offer of the media library")
        if await call.answered():
            print(f"{peer} answers with {call.data!r}", flush=True)
            await call.hang_up()  # nothing to say without a voice
        await phone.flushed()
        for task in background:
            task.cancel()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(use(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
