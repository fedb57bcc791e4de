"""Long conversations over networks that lose, delay, repeat and reorder: both ratchets together."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from e2ee.errors import DuplicateMessageError
from e2ee.limits import SECOND_MS
from e2ee.wire.message import RatchetMessage
from tests.ratchet_pair import End, pair

MESSAGES = 2_000


@dataclass
class Weather:
    """How a network treats each message; drawn from a seed."""

    random: Random
    loss: float = 0.3
    longest_delay: int = 20
    duplicates: float = 0.03

    def arrivals(self, now: int) -> list[int]:
        """Return when a message sent now arrives: never, once or twice."""
        arrivals = [] if self.random.random() < self.loss else [now + self.random.randint(0, self.longest_delay)]
        if arrivals and self.random.random() < self.duplicates:
            arrivals.append(now + self.random.randint(0, self.longest_delay))
        return arrivals


@dataclass
class Talk:
    """Two ends and what is on its way between them, by the number of messages sent so far."""

    ends: tuple[End, End]
    flight: list[tuple[int, int, bytes, RatchetMessage]] = field(default_factory=list)
    read: Counter[bytes] = field(default_factory=Counter)
    duplicates: int = 0
    extra: int = 0
    """Bytes that the post-quantum ratchet added to messages."""

    def send(self, number: int, sender: int, arrivals: list[int]) -> None:
        text = b"%d" % number
        message = self.ends[sender].send(text)
        self.extra += len(message.header.pq_payload)
        self.flight += [(arrival, 1 - sender, text, message) for arrival in arrivals]
        for end in self.ends:
            end.now += SECOND_MS

    def arrive(self, now: int) -> None:
        due = [each for each in self.flight if each[0] <= now]
        self.flight = [each for each in self.flight if each[0] > now]
        for _, recipient, text, message in due:
            if self.read[text]:
                self.duplicates += 1
                with pytest.raises(DuplicateMessageError):
                    self.ends[recipient].receive(message)
                continue
            assert self.ends[recipient].receive(message) == text
            self.read[text] += 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.5, 0.2, 0.8], ids=["balanced", "responder talks", "initiator talks"])
def test_a_storm_leaves_no_key_mismatch_and_no_deadlock(seed: int, share: float) -> None:
    talk = storm(seed, share)
    assert talk.duplicates > 10
    epochs = [end.state.pq.epoch for end in talk.ends]
    assert abs(epochs[0] - epochs[1]) <= 1
    assert min(epochs) >= (15 if share == 0.5 else 8)


def test_payloads_and_macs_cost_at_most_65_bytes_a_message_in_a_balanced_storm() -> None:
    extra = [storm(seed, 0.5).extra / MESSAGES for seed in range(5)]
    assert sum(extra) / len(extra) <= 65


def storm(seed: int, share: float) -> Talk:
    """Let both ends talk through bad weather, the initiator with this share; whatever arrives is read, once."""
    weather = Weather(Random(f"{seed} {share}"))
    talk = Talk(pair(seed))
    arrived = 0
    for number in range(MESSAGES):
        arrivals = weather.arrivals(number)
        arrived += bool(arrivals)
        talk.send(number, int(weather.random.random() >= share), arrivals)
        talk.arrive(number)
    talk.arrive(MESSAGES + weather.longest_delay)
    assert talk.read.total() == arrived
    return talk


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_when_every_20th_message_is_overtaken_by_500_others(seed: int) -> None:
    """As far as the relay lets messages overtake one another (protocol.md section 12.5)."""
    random = Random(seed)
    talk = Talk(pair(seed))
    for number in range(3 * MESSAGES):
        talk.send(number, random.randrange(2), [number + (500 if number % 20 == 0 else 0)])
        talk.arrive(number)
    talk.arrive(4 * MESSAGES)
    assert talk.read.total() == 3 * MESSAGES
    assert not any(end.skipped for end in talk.ends)
    assert min(end.state.pq.epoch for end in talk.ends) > 30


@pytest.mark.parametrize("silent", [0, 1])
def test_a_stream_in_one_direction_needs_no_answer_to_be_read(silent: int) -> None:
    talk = Talk(pair("stream"))
    for number in range(1_000):
        talk.send(number, 1 - silent, [number])
        talk.arrive(number)
    assert talk.read.total() == 1_000
    assert talk.extra / 1_000 < 15
