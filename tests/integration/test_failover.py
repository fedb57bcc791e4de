"""Every transport falls back on every other, and comes back: all ordered pairs, on one server with both brokers.

One of two people has the first transport of a pair with the second to fall back on, the other one the reverse; they
write to each other all the while. Each round begins with the death of both clients, and in some the server or a broker
is killed as well: which, and how a primary ends, follows from a seed. `make soak` runs other seeds.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import combinations, count, permutations
from random import Random

import pytest
import pytest_asyncio

from tests.chaos_people import MISHAPS
from tests.chaos_proxy import Admission
from tests.chaos_roads import NETWORKED, Road
from tests.chaos_stage import ROUGH, Stage, stage, started_brokers
from transport_adapters.failover import State

TURNS = max(1, int(os.environ.get("E2EE_SOAK", "0")))
ROUNDS = list(combinations(NETWORKED, 2))
"""Each is two ordered pairs: alice's, and bob's, which is the reverse."""
SOME = 8
"""Messages of each between two events."""


@dataclass
class Tour:
    stage: Stage
    said: dict[str, list[str]]
    numbers: Iterator[int]

    async def talk(self) -> None:
        """Let each say something to the other; what it takes until it arrives, nobody waits for."""
        alice, bob = self.stage.people
        for _ in range(SOME):
            for sender, recipient in ((alice, bob), (bob, alice)):
                self.said[sender.name].append(f"{sender.name} {next(self.numbers)}")
                await sender.say(self.said[sender.name][-1], recipient.name)

    async def heard(self) -> None:
        """Wait until all of it was read: each message once and in order."""
        alice, bob = self.stage.people
        for person, other in ((alice, bob), (bob, alice)):
            await person.until(self.said[other.name])
            assert person.read == self.said[other.name]

    async def kill(self, name: str) -> None:
        server = self.stage.server
        if name == "server":
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        else:
            self.stage.brokers[name].kill()
            self.stage.brokers[name].start()  # by this thread: it dies with the one that started it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tour(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tour]:
    with started_brokers() as brokers:
        async with stage(tmp_path_factory.mktemp("tour"), list(NETWORKED), brokers, "tour") as there:
            yield Tour(there, {person.name: [] for person in there.people}, count())


def test_the_rounds_are_all_ordered_pairs() -> None:
    assert {*ROUNDS, *(pair[::-1] for pair in ROUNDS)} == set(permutations(NETWORKED, 2))
    assert len(ROUNDS) * 2 == 30


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("pair", ROUNDS, ids="-".join)
async def test_each_falls_back_on_the_other_and_comes_back_and_nothing_is_lost(
    tour: Tour, pair: tuple[str, str], turn: int
) -> None:
    random = Random(f"{pair} {turn}")
    people = tour.stage.people
    for person, names in zip(people, (pair, pair[::-1]), strict=True):
        await person.die()
        person.roads = [tour.stage.roads[person.name][name] for name in names]
        await person.open()
    async with asyncio.timeout(60):
        await tour.talk()
        await tour.heard()
        for person in people:
            await person.until_relying_on(State.PRIMARY)

        for person in people:
            primary, fallback = person.roads
            fail(primary, random)
            fallback.weather = random.choice(ROUGH)
        await tour.talk()
        for person in people:
            await person.until_relying_on(State.FALLBACK)
        if random.random() < 0.3:
            await tour.kill(random.choice(["server", *(name for name in pair if name in tour.stage.brokers)]))
        await tour.talk()
        await tour.heard()
        assert [person.failover.state for person in people if person.failover] == [State.FALLBACK, State.FALLBACK]

        for person in people:
            for way in person.roads:
                way.heal()
        await tour.talk()
        for person in people:
            await person.until_relying_on(State.PRIMARY)
            person.roads[1].admission = Admission.REFUSED
            person.roads[1].reset()
        await tour.talk()
        await tour.heard()
        await tour.stage.settled()
    for person in people:
        person.roads[1].heal()
        assert not [event for event in person.told if isinstance(event, MISHAPS)]


def fail(way: Road, random: Random) -> None:
    """End a road in one of the ways in which roads end; it is not passable until it heals.

    The last two are noticed by timeouts, so they are drawn less often.
    """
    match random.choice(["cut", "cut", "cut", "reset", "reset", "reset", "swallow", "half open"]):
        case "cut":
            way.admission = Admission.REFUSED
            way.cut()
        case "reset":
            way.admission = Admission.REFUSED
            way.reset()
        case "swallow":
            way.admission = Admission.SWALLOWED
            way.reset()
        case _:
            way.admission = Admission.REFUSED
            way.half_open()
