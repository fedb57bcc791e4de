"""Random runs of two devices with crossing starts, lost sessions, rolled-back stores, loss, and clocks a day apart.

Invariant: once the network is honest again and devices do what is due by themselves, both ends send on the same
session, and whatever is said from then on arrives, once.
"""

from collections.abc import Iterator

import pytest

from e2ee.limits import DAY_MS, HOUR_MS, MINUTE_MS
from tests.decoded_once import decoded_once
from tests.world import Device, Faults, Snapshot, World

RUNS = 300
STORM = 30
ACTIONS = (
    "send",
    "send",
    "send",
    "deliver",
    "deliver",
    "tend",
    "start",
    "cross",
    "save",
    "roll back",
    "forget",
    "wait",
)


@pytest.fixture(autouse=True, scope="module")
def records_are_decoded_once() -> Iterator[None]:
    with decoded_once():
        yield


class Storm:
    """Two devices, and everything that can go wrong between them."""

    def __init__(self, seed: int) -> None:
        self.world = World(f"convergence {seed}")
        self.random = self.world.random
        self.ends = [
            self.world.device(name, one_time_prekeys=False, skew=self.random.randint(-DAY_MS, DAY_MS))
            for name in ("alice", "bob")
        ]
        self.saved: dict[Device, Snapshot] = {}
        for device, peer in self.pairs():
            device.meet(peer)
            self.saved[device] = device.snapshot()

    def pairs(self) -> list[tuple[Device, Device]]:
        alice, bob = self.ends
        return [(alice, bob), (bob, alice)]

    def act(self, number: int) -> None:
        device, peer = self.random.choice(self.pairs())
        match self.random.choice(ACTIONS):
            case "send":
                device.send(peer, f"storm {number}")
            case "deliver":
                self.world.deliver(Faults(loss=0.2, duplicates=0.2, tampering=0.1, reorders=True))
            case "tend":
                device.tend()
            case "start":
                device.start_session(peer)
            case "cross":
                for one, other in self.pairs():
                    one.start_session(other)
                    one.send(other, f"crossing {number}")
            case "save":
                self.saved[device] = device.snapshot()
            case "roll back":
                device.restore(self.saved[device])
                device.connect()
                device.publish()
            case "forget":
                device.forget_sessions(peer)
            case _:
                self.world.wait(self.random.choice([1, MINUTE_MS, HOUR_MS]))

    def calm_down(self) -> list[str]:
        """Say something every hour over an honest network; return what was said by each end."""
        said = []
        for number in range(8):
            self.world.wait(HOUR_MS)
            for device, peer in self.pairs():
                device.send(peer, f"calm {number}")
            self.world.settle()
            said.append(f"calm {number}")
        return said


@pytest.mark.parametrize("seed", range(RUNS))
def test_both_ends_come_to_send_on_one_session_and_nothing_said_afterwards_is_lost(seed: int) -> None:
    storm = Storm(seed)
    for number in range(STORM):
        storm.act(number)
    said = storm.calm_down()
    for device, peer in storm.pairs():
        calm = [text for text in device.read() if str(text).startswith("calm")]
        assert sorted(map(str, calm)) == said
        assert device.sending_session(peer).session_id == peer.sending_session(device).session_id
