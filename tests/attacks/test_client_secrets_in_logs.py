"""What the logs say at the most talkative level: nothing that was said, nothing that opens anything."""

import base64
import logging
from pathlib import Path

import pytest

from e2ee.stores.sqlite import SqliteStore
from keyserver.logs import QUIET
from tests.client_world import Tap, client_world, eager_socketio, within
from tests.store_files import CHEAP
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient

PASSPHRASE = "a passphrase that would be recognised anywhere"
TEXT = "a sentence that would be recognised anywhere"


async def test_logs_at_debug_hold_no_plaintext_token_or_passphrase(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host_tokens: list[str] = []
    device_tokens: list[str] = []
    for name in ("", *QUIET):  # a server that another test configured in this process keeps some of them down
        caplog.set_level(logging.DEBUG, logger=name)
    async with client_world(tmp_path) as world:
        path = tmp_path / "alice.db"
        SqliteStore.create(path, passphrase=PASSPHRASE, cost=CHEAP).close()

        async def token() -> str:
            host_tokens.append(await world.token("alice")())
            return host_tokens[-1]

        alice = await SecureClient.open(
            store=path,
            passphrase=PASSPHRASE,
            server=world.url,
            token_provider=token,
            transport=eager_socketio,
            user="alice",
        )
        async with alice:
            await within(alice.online())
            bob = await world.open("bob", transport=eager_socketio)
            await alice.send("bob", TEXT)
            assert await bob.read() == [TEXT]
            await bob.client.send("alice", TEXT)
            message = await within(anext(alice))
            await alice.mark_read(message)
            await within(alice.flushed())
            device_tokens += [await each._parts.key_server.device_token() for each in (alice, bob.client)]
        # And when things fail: garbage comes in, the server refuses, the token provider raises.
        tap = Tap(world)
        carol = await world.open("carol", transport=tap)
        await carol.client.send("bob", TEXT)
        assert await bob.read() == [TEXT]
        for delivery in tap.delivered:
            tap.inject(delivery)
        world.faults.down.add("/v1/claims")
        with pytest.raises(Exception, match="503"):
            await carol.client.send("dave", TEXT)
        secrets = [TEXT, PASSPHRASE, *host_tokens, *device_tokens]
        secrets.append(base64.b64encode(TEXT.encode()).decode())
        # A token's last part is enough to recognise it, and proves that the whole was compared with something.
        secrets += [token.rpartition(".")[2] for token in (*host_tokens, *device_tokens)]
    logged = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert len(host_tokens) >= 1
    # Requests and frames are in it.
    assert {"httpx", "uvicorn.error"} <= {record.name for record in caplog.records}
    assert [secret for secret in secrets if secret in logged] == []
    told = repr([*bob.told, *carol.told, message, alice, tap.sent, tap.delivered])
    assert [secret for secret in secrets if secret in told] == []
    assert bob.events(events.Ended) == []
