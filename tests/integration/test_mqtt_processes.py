"""The whole over MQTT, each part a process that is killed: what was said is in the stores once, and nowhere else."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2ee.cli.demo.search import search
from tests.chaos_people import HURRIED, MISHAPS, Person
from tests.chaos_roads import MQTT, road
from tests.databases import postgresql
from tests.server_process import BridgeProcess, ServerProcess
from tests.servers.mosquitto import Mosquitto

MESSAGES, PAUSE = (1_000, 0.01) if int(os.environ.get("E2EE_SOAK", "0")) else (60, 0.05)
CANARY = "This canary must be found, or the search is blind."
TALKATIVE = ("persistence true", "persistence_location {directory}/", "autosave_interval 1", "log_type all")
"""What an operator might set who wants to see as much as there is."""


@asynccontextmanager
async def everything(directory: Path) -> AsyncIterator[tuple[Mosquitto, ServerProcess, BridgeProcess, list[Person]]]:
    with Mosquitto(tls=False, extra=TALKATIVE) as broker:
        settings = {
            "database": postgresql().new_database(),
            "bus": "postgresql",
            "migrate": "true",
            "mqtt_broker": broker.url,
            "mqtt_password": broker.password,
        }
        server = ServerProcess(directory, **settings)
        bridge = BridgeProcess(directory, origin=server.url, **settings)
        async with contextlib.AsyncExitStack() as stack:
            for process in (server, bridge):
                stack.callback(process.kill)
                await asyncio.to_thread(process.start)
            people = []
            for name in ("alice", "bob"):
                way = await stack.enter_async_context(road(MQTT, broker.port, None, HURRIED, name))
                people.append(Person(name, server, directory / f"{name}.db", [way]))
                stack.push_async_callback(people[-1].close)
                await people[-1].open()
            yield broker, server, bridge, people


@pytest.mark.timeout(180)
async def test_whatever_is_killed_each_message_is_read_once_and_the_broker_keeps_nothing(tmp_path: Path) -> None:
    async with everything(tmp_path) as (broker, server, bridge, (alice, bob)):
        texts = [f"Meet me at the boathouse, number {number} of the list." for number in range(MESSAGES)]

        async def talk() -> None:
            for text in texts:
                await alice.say(text, "bob")
                await asyncio.sleep(PAUSE)

        talking = asyncio.create_task(talk())
        async with asyncio.timeout(150):
            await bob.until(texts[:5])
            bridge.kill()
            await asyncio.to_thread(bridge.start)
            broker.kill()
            broker.start()  # by this thread: it dies with the one that started it
            await bob.die()
            await bob.open()
            server.kill()
            await asyncio.to_thread(server.start)
            await talking
            await bob.until(texts)
        assert bob.read == texts
        assert not [event for person in (alice, bob) for event in person.told if isinstance(event, MISHAPS)]

        planted = broker.directory / "planted"
        planted.write_text(CANARY)
        places = [path for path in broker.directory.rglob("*") if path.is_file()]
        assert {"log", "dynamic-security.json", "mosquitto.db"} <= {place.name for place in places}
        assert [finding.place for finding in search(places, [CANARY, *texts])] == ["planted"]
        keys = [key for person in (alice, bob) for key in private_keys(person)]
        planted.write_bytes(keys[0])
        found = [place.name for place in places for key in keys if holds(place.read_bytes(), key)]
        assert found == ["planted"]


def private_keys(person: Person) -> list[bytes]:
    assert person.client is not None
    account = person.client.messenger.account
    pairs = account.account_key_pair.seed, account.device_signing_key_pair.seed, account.identity_key_pair.private
    return [each.expose() for each in pairs]


def holds(content: bytes, key: bytes) -> bool:
    encoded = base64.b64encode(key).rstrip(b"=")[:-1]
    spelled = key, key.hex().encode(), encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")
    return any(each in content for each in spelled)
