"""The stage of the tests with bad networks: a server and the brokers that it is connected to, two people, their roads.

Owns: setting it up, what is still on its way, a fault of a road.
Does not know about: what goes wrong when.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos_people import HURRIED, Person
from tests.chaos_proxy import Admission, Weather
from tests.chaos_roads import MQTT, XMPP, XMPP_PASSWORD, XMPP_USER, Road, road
from tests.server_process import ServerProcess
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import Prosody
from transport_adapters.server.tables import ACKED

Broker = Mosquitto | Prosody
ROUGH: Final = (
    Weather(delay=0.01, jitter=0.02),
    Weather(bandwidth=100_000),
    Weather(delay=0.002, piece=512),
)


@contextmanager
def started_brokers() -> Iterator[dict[str, Broker]]:
    """Start the brokers; give them by the names of their transports."""
    with Mosquitto(tls=False) as mosquitto, Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        yield {MQTT: mosquitto, XMPP: prosody}


@dataclass
class Stage:
    server: ServerProcess
    brokers: Mapping[str, Broker]
    people: list[Person]
    roads: dict[str, dict[str, Road]]
    """Of each person, by transport."""

    def unacknowledged(self) -> int:
        with contextlib.closing(sqlite3.connect(self.server.database)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM e2ee_envelopes WHERE state < ?", (ACKED,)).fetchone()
        return int(count)

    async def settled(self) -> None:
        """Wait until the mailboxes are empty: every acknowledgement is durable."""
        while self.unacknowledged():  # noqa: ASYNC110 - in the database of another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stage(
    directory: Path, names: Sequence[str], brokers: Mapping[str, Broker], seed: str
) -> AsyncIterator[Stage]:
    """Open it with a road for each name; people take the first, and have the second to fall back on."""
    settings = [broker.settings for broker in brokers.values()]
    server = ServerProcess(directory, **{name: value for each in settings for name, value in each.items()})
    await asyncio.to_thread(server.start)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.kill)
        people, roads = [], {}
        for user in ("alice", "bob"):
            ways = {
                name: road(name, brokers.get(name, server).port, None, HURRIED, f"{seed} {user} {name}")
                for name in names
            }
            roads[user] = {name: await stack.enter_async_context(way) for name, way in ways.items()}
            people.append(Person(user, server, directory / f"{user}.db", list(roads[user].values())[:2]))
        for person in people:
            stack.push_async_callback(person.close)
            await person.open()
        yield Stage(server, brokers, people, roads)


def fault(way: Road, random: Random) -> None:
    """Do something to a road that happens on a bad day."""
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
