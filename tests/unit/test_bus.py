"""The bus between nodes: what is said arrives once and everywhere, and garbage changes nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from e2ee.errors import MalformedMessageError
from e2ee.wire.identifiers import ConversationId, UserId
from tests.contract.relay_world import address, eventually
from transport_adapters.codes import ErrorCode
from transport_adapters.frames import InstanceId
from transport_adapters.server.bus import (
    Admitted,
    Cut,
    LocalBus,
    NodeNews,
    PresenceChanged,
    PresenceNews,
    Resumed,
    TypingChanged,
)
from transport_adapters.server.news import MAX_PAYLOAD, Hint, News, decode_news, encode_news, payloads
from transport_adapters.server.nodes import MAX_WAITING, NodesBus

INSTANCE = "00" * 16
ALICE, BOB = address("alice"), address("b" * 128)
EVERY_KIND: list[News] = [
    Hint(ALICE),
    Cut(ALICE, ErrorCode.DEVICE_REVOKED),
    Cut(BOB.user_id, ErrorCode.TOKEN_INVALID),
    Admitted(BOB, InstanceId(bytes(range(16))), 7, 1_800_000_000_000),
    PresenceChanged(BOB.user_id),
    TypingChanged(ALICE.user_id, BOB.user_id, None, True),
    TypingChanged(ALICE.user_id, BOB.user_id, ConversationId("lunch"), False),
]


@dataclass
class Ether:
    """A wire in this process, which can fail."""

    ears: list[Callable[[str], None]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    fails: bool = False

    def wire(self) -> "EtherWire":
        return EtherWire(self)

    def break_down(self) -> None:
        self.fails = True
        self.ears.clear()


@dataclass
class EtherWire:
    ether: Ether

    async def listen(self, ready: Callable[[], None], take: Callable[[str], None]) -> None:
        if self.ether.fails:
            raise OSError
        self.ether.ears.append(take)
        ready()
        while take in self.ether.ears:  # noqa: ASYNC110 - a test's wire tells nobody
            await asyncio.sleep(0.001)
        raise OSError

    async def send(self, payload: str) -> None:
        if self.ether.fails:
            raise OSError
        self.ether.said.append(payload)
        for ear in self.ether.ears:
            ear(payload)

    async def close(self) -> None:
        pass


@dataclass
class Node:
    bus: NodesBus
    hints: int = 0
    presence: list[PresenceNews] = field(default_factory=list)
    news: list[NodeNews] = field(default_factory=list)

    def hint(self) -> None:
        self.hints += 1


async def node(ether: Ether) -> Node:
    made = Node(NodesBus(ether.wire()))
    made.bus.subscribe(ALICE, made.hint)
    made.bus.subscribe_presence(made.presence.append)
    made.bus.subscribe_nodes(made.news.append)
    await made.bus.start()
    await eventually(lambda: Resumed() in made.news)
    made.hints = 0
    return made


@pytest.mark.parametrize("news", EVERY_KIND)
def test_news_survive_the_way_over_the_wire(news: News) -> None:
    (payload,) = payloads("00", [encode_news(news)])
    assert decode_news(payload) == ("00", [news])


def test_many_news_make_payloads_within_the_bound_and_none_is_lost() -> None:
    many = [Hint(address("u" * 100, number % 250)) for number in range(500)]
    made = list(payloads("00", map(encode_news, many)))
    assert all(len(payload) <= MAX_PAYLOAD for payload in made)
    assert [news for payload in made for news in decode_news(payload)[1]] == many
    assert len(made) < 20


@given(st.text(max_size=200))
def test_text_that_is_no_news_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        decode_news(text)


@pytest.mark.parametrize(
    "news",
    [
        '["hint"]',
        '["hint","alice"]',
        '["hint",7]',
        '["cut","alice",false,"no such code"]',
        '["cut","alice",true,"device_revoked"]',
        f'["admitted","{ALICE}","00",1,1]',
        f'["admitted","{ALICE}","{INSTANCE}",9223372036854775808,1]',
        '["presence","with space"]',
        '["typing","alice","bob","with space",true]',
        "7",
        "[]",
        "[7]",
    ],
)
def test_news_with_a_bad_field_are_refused(news: str) -> None:
    with pytest.raises(MalformedMessageError):
        decode_news(f'{{"node":"00","news":[{news}]}}')


def test_news_of_a_kind_that_a_later_release_brings_are_left_out() -> None:
    assert decode_news('{"node":"00","news":[["weather","rain"],["presence","bob"]]}') == (
        "00",
        [PresenceChanged(UserId("bob"))],
    )


async def test_what_one_node_publishes_reaches_its_own_listeners_and_the_others_once() -> None:
    ether = Ether()
    one, other = await node(ether), await node(ether)
    one.bus.publish(ALICE)
    one.bus.publish_presence(PresenceChanged(ALICE.user_id))
    one.bus.publish_to_nodes(Cut(ALICE, ErrorCode.DEVICE_REVOKED))
    assert (one.hints, one.presence) == (1, [PresenceChanged(ALICE.user_id)])
    await eventually(lambda: Cut(ALICE, ErrorCode.DEVICE_REVOKED) in other.news)
    assert (other.hints, other.presence) == (1, [PresenceChanged(ALICE.user_id)])
    assert one.hints == 1
    assert Cut(ALICE, ErrorCode.DEVICE_REVOKED) not in one.news
    for each in (one, other):
        await each.bus.close()


async def test_the_same_hint_many_times_in_one_turn_is_said_once() -> None:
    ether = Ether()
    one, other = await node(ether), await node(ether)
    for _ in range(1000):
        one.bus.publish(ALICE)
    await eventually(lambda: other.hints > 0)
    assert (other.hints, len(ether.said)) == (1, 1)
    for each in (one, other):
        await each.bus.close()


async def test_after_a_breakdown_what_waited_is_said_and_everybody_reads_again() -> None:
    ether = Ether()
    one, other = await node(ether), await node(ether)
    ether.break_down()
    one.bus.publish_to_nodes(Cut(ALICE, ErrorCode.DEVICE_REVOKED))
    one.bus.publish(ALICE)
    await asyncio.sleep(0.02)
    assert other.hints == 0
    ether.fails = False
    await eventually(lambda: Cut(ALICE, ErrorCode.DEVICE_REVOKED) in other.news or other.news.count(Resumed()) == 2)
    await eventually(lambda: other.hints >= 1)
    for each in (one, other):
        await each.bus.close()


async def test_what_waits_for_a_broken_wire_is_bounded() -> None:
    ether = Ether(fails=True)
    bus = NodesBus(ether.wire())
    await bus.start()
    for number in range(MAX_WAITING + 500):
        bus.publish(address(f"user{number}"))
    assert len(bus._waiting) == MAX_WAITING
    await bus.close()


async def test_garbage_on_the_wire_changes_nothing_and_ends_nothing() -> None:
    ether = Ether()
    one, other = await node(ether), await node(ether)
    for garbage in ("", "x" * 10_000, "{}", '{"node":7,"news":[]}', "[" * 5000):
        for ear in list(ether.ears):
            ear(garbage)
    one.bus.publish(ALICE)
    await eventually(lambda: other.hints == 1)
    for each in (one, other):
        await each.bus.close()


async def test_a_bus_within_one_process_hints_to_every_listener() -> None:
    bus, heard = LocalBus(), list[str]()
    stop = bus.subscribe(ALICE, lambda: heard.append("first"))
    bus.subscribe(ALICE, lambda: heard.append("second"))
    bus.publish(ALICE)
    stop()
    bus.publish_to_all()
    assert heard == ["first", "second", "second"]
