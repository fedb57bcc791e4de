"""A bot that answers: whoever writes to it gets an answer that only the two of them can read.

Shows: SecureClient, from opening a device to confirming a message.
Run a server in one terminal, the bot in a second one, and write to it in a third:

    keyserver serve --dev --port 8440
    E2EE_PASSPHRASE='correct horse battery staple' python examples/bot.py http://127.0.0.1:8440 bot.db

    export E2EE_PASSPHRASE='correct horse battery staple'
    e2ee init alice --server http://127.0.0.1:8440 --dev --home alice
    e2ee send bot 'Are you there?' --home alice
    e2ee receive --home alice
"""

import asyncio
import contextlib
import os
import sys

import httpx

from e2ee import E2EEError
from keyserver.client import KeyServerError
from transport_adapters import SecureClient
from transport_adapters.base import TransportError


async def answer_everybody(server: str, store: str) -> None:
    """Open the bot's device, which is made and registered the first time, and answer until it is stopped."""

    async def host_token() -> str:
        """In your application: the JWT of the bot's login. Asked for rarely; the device logs in by itself."""
        async with httpx.AsyncClient(base_url=server) as http:
            response = await http.post("/dev/token", json={"user": "bot"})
            return str(response.raise_for_status().json()["token"])

    passphrase = os.environ["E2EE_PASSPHRASE"]
    async with await SecureClient.open(
        store=store, passphrase=passphrase, user="bot", server=server, token_provider=host_token
    ) as bot:
        print(f"{bot.address.user_id} listens", flush=True)
        async for message in bot:
            if not isinstance(message.data, str):
                continue  # bytes, or a kind of message that only a newer release knows
            try:
                answer = f"You said: {message.data}"
                await bot.send(message.sender, answer, conversation=message.conversation)
            except (E2EEError, KeyServerError, TransportError) as error:
                print(f"no answer to {message.sender}: {error}", flush=True)  # one sender's trouble is not the others'
            # Asking for the next message confirms this one. A bot that is killed before that sees it once more, so it
            # may answer twice; `message.message_id` is the same then.


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(answer_everybody(server=sys.argv[1], store=sys.argv[2]))
