"""Every transport, and ordered pairs with the one as fallback of the other, on a bad network with random kills.

Two people write to each other all the while. Afterwards each message is in the other one's store exactly once and in
order, every acknowledgement is durable, and nothing went wrong in silence. What the network does follows from a seed.
`make soak` runs other seeds, and longer.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

import pytest

from tests.chaos_people import HURRIED, MISHAPS, Person
from tests.chaos_proxy import Admission, Weather
from tests.chaos_roads import BROKERED, MQTT, NETWORKED, XMPP, XMPP_PASSWORD, XMPP_USER, Road, road
from tests.server_process import ServerProcess
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import Prosody
from transport_adapters.server.tables import ACKED

SOAK = int(os.environ.get("E2EE_SOAK", "0"))
SHORT_RUN = [
    (MQTT, MQTT),
    (MQTT, "longpoll"),
    ("websocket", MQTT),
    (XMPP, XMPP),
    (XMPP, "sse"),
    ("socketio", XMPP),
    (MQTT, XMPP),
]
"""Of the pairs with a broker, those of a short run: a fallback does not know what it is the fallback of."""
PAIRS = [pair for pair in product(NETWORKED, repeat=2) if SOAK or pair in SHORT_RUN or not set(BROKERED) & set(pair)]
Broker = Mosquitto | Prosody
STEPS, MESSAGES = (60, 400) if SOAK else (12, 60)
ROUGH = (
    Weather(delay=0.01, jitter=0.02),
    Weather(bandwidth=100_000),
    Weather(delay=0.002, piece=512),
)


@dataclass
class Stage:
    server: ServerProcess
    brokers: dict[str, Broker]
    people: list[Person]

    def unacknowledged(self) -> int:
        with contextlib.closing(sqlite3.connect(self.server.database)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM e2ee_envelopes WHERE state < ?", (ACKED,)).fetchone()
        return int(count)


@pytest.fixture(scope="module")
def brokers() -> Iterator[dict[str, Broker]]:
    with Mosquitto(tls=False) as mosquitto, Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        yield {MQTT: mosquitto, XMPP: prosody}


@asynccontextmanager
async def stage(directory: Path, names: list[str], brokers: dict[str, Broker], seed: str) -> AsyncIterator[Stage]:
    settings = [broker.settings for broker in brokers.values()]
    server = ServerProcess(directory, **{name: value for each in settings for name, value in each.items()})
    await asyncio.to_thread(server.start)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.kill)
        people = []
        for user in ("alice", "bob"):
            ways = [
                road(name, brokers.get(name, server).port, None, HURRIED, f"{seed} {user} {name}") for name in names
            ]
            roads = [await stack.enter_async_context(way) for way in ways]
            people.append(Person(user, server, directory / f"{user}.db", roads))
        for person in people:
            stack.push_async_callback(person.close)
            await person.open()
        yield Stage(server, brokers, people)


async def disturb(there: Stage, random: Random) -> None:
    """Do what a bad day does: one kill of each of server, client and broker among other faults, each at some step."""
    killed = "server", "client", *there.brokers
    kills = dict(zip(random.sample(range(STEPS), len(killed)), killed, strict=True))
    for step in range(STEPS):
        person = random.choice(there.people)
        way = random.choice(person.roads)
        match kills.get(step):
            case "server":
                await asyncio.to_thread(there.server.kill)
                await asyncio.to_thread(there.server.start)
            case "client":
                await person.die()
                await person.open()
            case str(name):
                there.brokers[name].kill()
                there.brokers[name].start()  # by this thread: it dies with the one that started it
            case None:
                fault(way, random)
        await asyncio.sleep(random.uniform(0.02, 0.12))
    for person in there.people:
        for way in person.roads:
            way.heal()


def fault(way: Road, random: Random) -> None:
    match random.choice(["cut", "reset", "half open", "rough", "rough", "refuse", "swallow", "heal", "heal"]):
        case "cut":
            way.cut()
        case "reset":
            way.reset()
        case "half open":
            way.half_open()
        case "rough":
            way.weather = random.choice(ROUGH)
        case "refuse":
            way.admission = Admission.REFUSED
            way.reset()
        case "swallow":
            way.admission = Admission.SWALLOWED
        case _:
            way.heal()


@pytest.mark.parametrize(("primary", "fallback"), PAIRS, ids=lambda name: name)
@pytest.mark.parametrize("turn", range(max(1, SOAK)))
async def test_everything_arrives_once_and_in_order(
    tmp_path: Path, request: pytest.FixtureRequest, primary: str, fallback: str, turn: int
) -> None:
    seed = f"{primary} {fallback} {turn}"
    names = [primary] if primary == fallback else [primary, fallback]
    started = request.getfixturevalue("brokers") if set(BROKERED) & set(names) else {}
    used = {name: started[name] for name in names if name in started}
    async with stage(tmp_path, names, used, seed) as there:
        alice, bob = there.people
        # The first contact needs the server; what follows does not wait for it.
        for sender, recipient in ((alice, bob), (bob, alice)):
            await sender.say("hello", recipient.name)
            async with asyncio.timeout(30):
                await recipient.until(["hello"])
        texts = {
            person.name: ["hello", *(f"{person.name} {number}" for number in range(MESSAGES))]
            for person in there.people
        }

        async def talk(sender: Person, recipient: Person) -> None:
            for text in texts[sender.name][1:]:
                await sender.say(text, recipient.name)
                await asyncio.sleep(0)

        async with asyncio.timeout(110), asyncio.TaskGroup() as group:
            for work in (talk(alice, bob), talk(bob, alice), disturb(there, Random(seed))):
                group.create_task(work)
        async with asyncio.timeout(60):
            for person, other in ((alice, bob), (bob, alice)):
                await person.until(texts[other.name])
            # And then the mailboxes are empty: every acknowledgement is durable.
            while there.unacknowledged():  # noqa: ASYNC110 - in the database of another process
                await asyncio.sleep(0.02)
        for person, other in ((alice, bob), (bob, alice)):
            assert person.read == texts[other.name]
            assert not [event for event in person.told if isinstance(event, MISHAPS)]
