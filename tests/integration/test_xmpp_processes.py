"""The whole over XMPP, each part killed in turn: what was said is in the stores once, and nowhere else."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2ee.cli.demo.search import search
from tests.chaos_people import HURRIED, MISHAPS, Person
from tests.chaos_roads import XMPP, XMPP_PASSWORD, XMPP_USER, road
from tests.server_process import ServerProcess
from tests.servers.prosody import Prosody

CANARY = "This canary must be found, or the search is blind."
MESSAGES, PAUSE = (1_000, 0.01) if int(os.environ.get("E2EE_SOAK", "0")) else (60, 0.05)


@asynccontextmanager
async def everything(directory: Path) -> AsyncIterator[tuple[Prosody, ServerProcess, list[Person]]]:
    with Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        server = ServerProcess(directory, **prosody.settings)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(server.kill)
            await asyncio.to_thread(server.start)
            people = []
            for name in ("alice", "bob"):
                way = await stack.enter_async_context(road(XMPP, prosody.port, None, HURRIED, name))
                people.append(Person(name, server, directory / f"{name}.db", [way]))
                stack.push_async_callback(people[-1].close)
                await people[-1].open()
            yield prosody, server, people


@pytest.mark.timeout(180)
async def test_whatever_is_killed_each_message_is_read_once_and_the_xmpp_server_keeps_nothing(tmp_path: Path) -> None:
    async with everything(tmp_path) as (prosody, server, (alice, bob)):
        texts = [f"Meet me at the boathouse, number {number} of the list." for number in range(MESSAGES)]

        async def talk() -> None:
            for text in texts:
                await alice.say(text, "bob")
                await asyncio.sleep(PAUSE)

        talking = asyncio.create_task(talk())
        async with asyncio.timeout(150):
            await bob.until(texts[:5])
            prosody.kill()
            prosody.start()  # by this thread: it dies with the one that started it
            await bob.die()
            await bob.open()
            await bob.until(texts[: MESSAGES // 2])
            server.kill()  # the component with it
            await asyncio.to_thread(server.start)
            await talking
            await bob.until(texts)
        assert bob.read == texts
        assert not [event for person in (alice, bob) for event in person.told if isinstance(event, MISHAPS)]

        planted = prosody.directory / "planted"
        planted.write_text(CANARY)
        places = [path for path in prosody.directory.rglob("*") if path.is_file()]
        assert "prosody.log" in {place.name for place in places}
        assert [finding.place for finding in search(places, [CANARY, *texts])] == ["planted"]
