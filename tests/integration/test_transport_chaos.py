"""Every transport on a bad network with random kills; with `make soak` every ordered pair, one the other's fallback.

Two people write to each other all the while. Afterwards each message is in the other one's store exactly once and in
order, every acknowledgement is durable, and nothing went wrong in silence. What the network does follows from a seed.
`make soak` runs other seeds, and longer. test_failover.py has every ordered pair in order.
"""

import asyncio
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random

import pytest

from tests.chaos_people import MISHAPS, Person
from tests.chaos_roads import BROKERED, MQTT, NETWORKED, XMPP
from tests.chaos_stage import Broker, Stage, fault, stage, started_brokers

SOAK = int(os.environ.get("E2EE_SOAK", "0"))
PAIRS = [pair for pair in product(NETWORKED, repeat=2) if SOAK or pair in [(MQTT, XMPP)] or pair[0] == pair[1]]
"""In a short run each transport alone, and the two brokers' together."""
STEPS, MESSAGES = (60, 400) if SOAK else (12, 60)


@pytest.fixture(scope="module")
def brokers() -> Iterator[dict[str, Broker]]:
    with started_brokers() as started:
        yield started


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
            await there.settled()
        for person, other in ((alice, bob), (bob, alice)):
            assert person.read == texts[other.name]
            assert not [event for event in person.told if isinstance(event, MISHAPS)]
