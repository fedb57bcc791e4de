"""Devices that misuse their account at the broker, through a real Mosquitto with TLS."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mqtt_site import SECRET, MqttSite, mqtt_site
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, eventually, relay_world, within
from tests.servers.mosquitto import Mosquitto
from transport_adapters.base import TransportRefusedError
from transport_adapters.codes import CloseCode
from transport_adapters.frames import Hello, InstanceId, Pong
from transport_adapters.mqtt_session import Account, Message, MqttSession, NotAuthorizedError, broker_at
from transport_adapters.server.mqtt_accounts import BUCKETS, RESPONSES, DeviceTopics, Topics
from transport_adapters.text import Frame, decode_frame, encode_frame

TOPICS = Topics("e2ee")
CONNECTION = bytes(16)


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as started:
        yield started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path) as made:
        yield made


@pytest.fixture
async def site(world: RelayWorld, broker: Mosquitto) -> AsyncIterator[MqttSite]:
    async with mqtt_site(world, broker) as made:
        yield made


class Raw:
    """A device that speaks MQTT by hand."""

    def __init__(self, device: DeviceAddress, account: Account) -> None:
        self.device = device
        self.account = account
        self.topics: DeviceTopics = TOPICS.of(device)
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.session: MqttSession | None = None

    async def connect(self, site: MqttSite) -> MqttSession:
        broker = broker_at(site.broker.url, site.broker.trust())
        self.session = await MqttSession.open(broker, self.account, take=self.heard.put_nowait)
        return self.session

    async def say(self, frame: Frame, connection: bytes = CONNECTION) -> None:
        assert self.session is not None
        assert await within(self.session.publish(self.topics.up, encode_frame(frame).encode(), connection))

    async def error(self) -> dict[str, object]:
        """Wait for the next frame, which is an error."""
        event, fields = decode_frame((await within(self.heard.get())).payload.decode())
        assert event == "error"
        assert isinstance(fields, dict)
        return fields


async def raw(site: MqttSite, world: RelayWorld, device: DeviceAddress) -> Raw:
    """Get a device its account as a client does, and connect."""
    async with httpx.AsyncClient() as http:
        given = await http.post(f"{site.url}/e2ee/mqtt", headers=bearer(world.tokens.issue(device)))
    access = given.json()["access"]
    made = Raw(device, Account(access["client_id"], access["username"], access["password"]))
    session = await made.connect(site)
    await session.subscribe(made.topics.down)
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def hello(token: str, instance: int = 1) -> Hello:
    return Hello(token, InstanceId(bytes([instance]) * 16), 1, 0, 0, 64, 1 << 20)


async def test_a_device_reads_no_topic_but_its_own(site: MqttSite, world: RelayWorld) -> None:
    alice, mallory = await world.device("alice"), await world.device("mallory")
    theirs, ours = TOPICS.of(alice), await raw(site, world, mallory)
    assert ours.session is not None
    wanted = [
        theirs.down,
        theirs.up,
        "e2ee/down/+",
        "e2ee/#",
        "#",
        "+/+/+",
        "$SYS/#",
        RESPONSES,
        "$CONTROL/#",
        f"$share/thieves/{theirs.down}",
        "$share/thieves/e2ee/down/+",
        f"$share/thieves/{ours.topics.down}",
        *(f"e2ee/up/{bucket}/+" for bucket in range(BUCKETS)),
    ]
    for topic in wanted:
        with pytest.raises(NotAuthorizedError):
            await ours.session.subscribe(topic)


async def test_a_device_publishes_to_no_topic_but_its_own(site: MqttSite, world: RelayWorld) -> None:
    alice, mallory = await world.device("alice"), await world.device("mallory")
    at_alice = await raw(site, world, alice)
    theirs, ours = TOPICS.of(alice), await raw(site, world, mallory)
    assert ours.session is not None
    another_bucket = f"e2ee/up/{(int(ours.topics.name[0], 16) + 1) % BUCKETS}/{ours.topics.name}"
    for topic in (theirs.up, theirs.down, theirs.news, ours.topics.down, ours.topics.news, another_bucket):
        with pytest.raises(NotAuthorizedError):
            await ours.session.publish(topic, b"[]")
    command = {"commands": [{"command": "disableClient", "username": theirs.name, "correlationData": "0"}]}
    with pytest.raises(NotAuthorizedError):
        await ours.session.publish("$CONTROL/dynamic-security/v1", json.dumps(command).encode())
    assert at_alice.heard.empty()
    assert at_alice.session is not None
    assert not at_alice.session.ended.is_set()


async def test_an_account_is_good_under_its_own_client_id_and_password_only(site: MqttSite, world: RelayWorld) -> None:
    alice, mallory = await world.device("alice"), await world.device("mallory")
    at_alice, ours = await raw(site, world, alice), await raw(site, world, mallory)
    broker = broker_at(site.broker.url, site.broker.trust())
    for wrong in (
        ours.account._replace(client_id=at_alice.account.client_id),  # would take over her session
        ours.account._replace(username=at_alice.account.username),
        at_alice.account._replace(password=ours.account.password),
        Account("somebody", "", ""),
    ):
        with pytest.raises(NotAuthorizedError):
            await MqttSession.open(broker, wrong, take=lambda _: None)
    assert at_alice.session is not None
    assert not at_alice.session.ended.is_set()


async def test_nothing_is_retained_whatever_a_device_asks(site: MqttSite, world: RelayWorld) -> None:
    mallory = await raw(site, world, await world.device("mallory"))
    assert mallory.session is not None
    mallory.session._client.publish(mallory.topics.up, b"kept", 1, retain=True)
    await within(mallory.session.ended.wait())  # Mosquitto ends such a session
    mallory = Raw(mallory.device, mallory.account)
    await (await mallory.connect(site)).subscribe(mallory.topics.down)
    assert mallory.heard.empty()


async def test_a_token_of_another_device_counts_for_nothing_here(site: MqttSite, world: RelayWorld) -> None:
    alice, mallory = await world.device("alice"), await raw(site, world, await world.device("mallory"))
    await mallory.say(hello(world.tokens.issue(alice)))
    assert (await mallory.error())["code"] == "token_invalid"
    assert not world.relay.is_live(alice)


async def test_a_frame_of_no_connection_is_answered_and_does_nothing(site: MqttSite, world: RelayWorld) -> None:
    mallory = await raw(site, world, await world.device("mallory"))
    await mallory.say(Pong())
    assert (await mallory.error())["code"] == "unknown_connection"


async def test_a_program_that_was_replaced_stays_replaced(site: MqttSite, world: RelayWorld) -> None:
    # The broker puts the older of two sessions out without a word: both would come back for ever.
    device = await world.device("mallory")
    one = await raw(site, world, device)
    for instance, connection in ((1, b"1" * 16), (2, b"2" * 16)):
        await one.say(hello(world.tokens.issue(device), instance), connection)
        assert decode_frame((await within(one.heard.get())).payload.decode())[0] == "hello"
    await one.say(hello(world.tokens.issue(device), 1), b"3" * 16)
    error = await one.error()
    assert (error["code"], error["close_code"]) == ("replaced", CloseCode.REPLACED)


async def test_whoever_floods_loses_the_account_and_may_ask_for_it_again(site: MqttSite, world: RelayWorld) -> None:
    device = await world.device("mallory")
    mallory = await raw(site, world, device)
    await mallory.say(hello(world.tokens.issue(device)))
    assert mallory.session is not None
    for _ in range(20):
        mallory.session.publish(mallory.topics.up, b"no frame", CONNECTION)
    await within(mallory.session.ended.wait())
    with pytest.raises(NotAuthorizedError):
        await mallory.connect(site)
    assert (await raw(site, world, device)).account == mallory.account


async def test_whoever_says_hello_without_end_loses_the_account(site: MqttSite, world: RelayWorld) -> None:
    device = await world.device("mallory")
    mallory = await raw(site, world, device)
    assert mallory.session is not None
    greeting = encode_frame(hello(world.tokens.issue(device))).encode()
    for number in range(70):
        mallory.session.publish(mallory.topics.up, greeting, number.to_bytes(16, "big"))
    await within(mallory.session.ended.wait())


async def test_asking_for_accounts_is_limited(site: MqttSite, world: RelayWorld) -> None:
    headers = bearer(world.tokens.issue(await world.device("mallory")))
    async with httpx.AsyncClient() as http:
        statuses = [(await http.post(f"{site.url}/e2ee/mqtt", headers=headers)).status_code for _ in range(31)]
    assert statuses == [200] * 30 + [429]


@pytest.mark.parametrize("is_talking", [True, False])
async def test_a_revoked_device_is_cut_off_the_broker_within_a_second(
    site: MqttSite, world: RelayWorld, is_talking: bool
) -> None:
    device = await world.device("mallory")
    mallory = await raw(site, world, device)
    assert mallory.session is not None
    if is_talking:
        await mallory.say(hello(world.tokens.issue(device)))
        await within(mallory.heard.get())
    world.tokens.refused[device] = "device_revoked"
    world.relay.cut(device)
    await within(mallory.session.ended.wait(), 1)
    with pytest.raises(NotAuthorizedError):
        await mallory.connect(site)
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{site.url}/e2ee/mqtt", headers=bearer(world.tokens.issue(device)))
    (refusal,) = answer.json()["frames"]
    assert (answer.status_code, refusal[1]["close_code"]) == (401, CloseCode.REVOKED)


async def test_a_device_revoked_without_a_word_loses_its_account_at_its_next_hello(
    site: MqttSite, world: RelayWorld
) -> None:
    device = await world.device("mallory")
    mallory = await raw(site, world, device)
    world.tokens.refused[device] = "device_revoked"
    await mallory.say(hello(world.tokens.issue(device)))
    assert mallory.session is not None
    await within(mallory.session.ended.wait())
    with pytest.raises(NotAuthorizedError):
        await mallory.connect(site)


async def test_a_client_gets_a_new_account_when_its_old_one_is_gone(site: MqttSite, world: RelayWorld) -> None:
    device = await world.device("alice")

    async def token() -> str:
        return world.tokens.issue(device)

    cell = CursorCell()
    alice = Peer(site.transport(token, cell, EAGER_LINK), cell)
    await alice.online()
    assert site.bridge._accounts is not None
    await site.bridge._accounts.revoke(TOPICS.of(device).name)
    await alice.online()
    await alice.close()


async def test_the_broker_is_known_by_its_certificate(broker: Mosquitto) -> None:
    stranger = broker_at(broker.url, ssl.create_default_context())
    with pytest.raises(OSError, match="certificate"):
        await MqttSession.open(stranger, Account("a", "a", "a"), take=lambda _: None)


async def test_the_end_of_a_program_is_noticed_at_once(site: MqttSite, world: RelayWorld) -> None:
    device = await world.device("mallory")
    mallory = await raw(site, world, device)
    will = Message(mallory.topics.up, b"", CONNECTION)
    broker = broker_at(site.broker.url, site.broker.trust())
    session = await MqttSession.open(broker, mallory.account, take=mallory.heard.put_nowait, will=will)
    await session.subscribe(mallory.topics.down)
    mallory.session = session
    await mallory.say(hello(world.tokens.issue(device)))
    await within(mallory.heard.get())
    assert world.relay.is_live(device)
    raw_socket = session._client.socket()
    assert raw_socket is not None
    session._forget_socket(None, None, raw_socket)
    raw_socket.close()  # as when the process is killed
    async with asyncio.timeout(5):  # before the relay pings, and finds nobody there
        await eventually(lambda: not world.relay.is_live(device))


def test_passwords_and_accounts_are_not_shown() -> None:
    assert "geheim" not in repr(Account("a", "b", "geheim"))
    assert SECRET.decode() not in repr(TOPICS)


async def test_a_revoked_client_is_told_so_and_stops(site: MqttSite, world: RelayWorld) -> None:
    device = await world.device("alice")

    async def token() -> str:
        return world.tokens.issue(device)

    world.tokens.refused[device] = "device_revoked"
    cell = CursorCell()
    alice = Peer(site.transport(token, cell, EAGER_LINK), cell)
    refusal = await within(alice.outcome)
    assert isinstance(refusal, TransportRefusedError)
    await alice.close()
