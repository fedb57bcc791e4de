"""The whole over MQTT and over XMPP, each part a process that is killed while messages are on their way.

What was said is in both stores once and in order, and nowhere else: neither words nor keys are in what the broker keeps
and logs.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from e2ee.cli.demo.search import search
from e2ee.messenger import Messenger
from tests.chaos_people import MISHAPS
from tests.chaos_roads import MQTT, XMPP, XMPP_PASSWORD, XMPP_USER
from tests.databases import postgresql
from tests.device_handle import Device
from tests.server_process import BridgeProcess, ServerProcess
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import Prosody

MESSAGES, FLOWING = 1_000, 20
"""Of a part of the messages, so many have arrived when the next process is killed, and the rest has not."""
CANARY = "This canary must be found, or the search is blind."
PHRASE = "Meet me at the boathouse, number "
TALKATIVE = ("persistence true", "persistence_location {directory}/", "autosave_interval 1", "log_type all")
"""What an operator might set who wants to see as much as there is."""


@dataclass
class Stage:
    """A broker, our processes beside it, two people's devices."""

    broker: Mosquitto | Prosody
    server: ServerProcess
    processes: dict[str, ServerProcess]
    """Those of ours, by what they are to the broker."""
    alice: Device
    bob: Device
    keeps: set[str]
    """Files that the broker writes in any case."""
    transport: str
    database: str = ""
    """PostgreSQL's, if more than one process is on it."""

    def open(self, device: Device) -> None:
        token, at = self.server.token(device.user), (self.transport, self.broker.port)
        fields = {"user": device.user, "store": str(device.store), "server": self.server.url, "token": token}
        device.tell("open", **fields, broker=at)

    def restart(self, process: Device | ServerProcess | Mosquitto | Prosody) -> None:
        process.kill()
        if self.database and isinstance(process, ServerProcess):
            with psycopg.connect(self.database, autocommit=True) as connection:
                connection.execute("UPDATE e2ee_leases SET expires_at = 0")  # instead of waiting until they have
        process.start()
        if isinstance(process, Device):
            self.open(process)
            process.hear()


@contextmanager
def over_mqtt(directory: Path) -> Iterator[Stage]:
    with Mosquitto(tls=False, extra=TALKATIVE) as broker:
        database = postgresql().new_database()
        settings = {
            "database": database,
            "bus": "postgresql",
            "migrate": "true",
            **broker.settings,
        }
        server = ServerProcess(directory, **settings)
        bridge = BridgeProcess(directory, origin=server.url, **settings)
        keeps = {"log", "dynamic-security.json", "mosquitto.db"}
        with devices(directory) as (alice, bob):
            yield Stage(broker, server, {"server": server, "bridge": bridge}, alice, bob, keeps, MQTT, database)


@contextmanager
def over_xmpp(directory: Path) -> Iterator[Stage]:
    with Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        server = ServerProcess(directory, **prosody.settings)
        with devices(directory) as (alice, bob):
            yield Stage(prosody, server, {"component": server}, alice, bob, {"prosody.log"}, XMPP)


@contextmanager
def devices(directory: Path) -> Iterator[tuple[Device, Device]]:
    with ExitStack() as stack:
        alice, bob = Device("alice", "alice", directory), Device("bob", "bob", directory)
        for each in (alice, bob):
            stack.callback(each.kill)
        yield alice, bob


@pytest.mark.timeout(180)
@pytest.mark.parametrize("site", [over_mqtt, over_xmpp])
def test_whatever_is_killed_each_message_is_in_the_stores_once_and_the_broker_keeps_nothing(
    tmp_path: Path, site: Callable[[Path], AbstractContextManager[Stage]]
) -> None:
    with site(tmp_path) as stage, ExitStack() as stack:
        for process in stage.processes.values():
            stack.callback(process.kill)
            process.start()
        for device in (stage.alice, stage.bob):
            stage.open(device)
        for device in (stage.alice, stage.bob):
            device.hear()
        texts = [f"{PHRASE}{number} of the list." for number in range(MESSAGES)]
        talk_amid_kills(stage, texts)

        for device in (stage.alice, stage.bob):
            assert device.ask("close") is not None
            assert device.kept() == texts
            assert not [each.__name__ for each in MISHAPS if each.__name__ in device.log.read_text()]
        assert_nothing_is_kept(stage)


def talk_amid_kills(stage: Stage, texts: list[str]) -> None:
    """Let alice say it all to bob, in as many parts as there are processes to kill, each killed in the midst of one."""
    alice, bob = stage.alice, stage.bob
    victims = [stage.broker, bob, *stage.processes.values(), alice]
    part = len(texts) // len(victims) + 1
    for number, victim in enumerate(victims):
        said = texts[part * number : part * (number + 1)]
        bob.tell("taken", count=FLOWING)
        alice.tell("send", messages=[("bob", text) for text in said])
        taken = bob.hear()["count"]
        assert FLOWING <= taken < len(said), f"part {number}, of {len(said)}: nothing is on its way when it is killed"
        if victim is not alice:
            stage.restart(victim)
            alice.hear()
        else:
            alice.kill()
            queued = len(alice.kept())
            alice.start()
            stage.open(alice)
            alice.hear()
            alice.ask("send", messages=[("bob", text) for text in texts[queued:]])
        so_far = min(part * (number + 1), len(texts))
        assert bob.ask("received", count=so_far)["count"] == so_far, f"part {number} does not arrive"


def assert_nothing_is_kept(stage: Stage) -> None:
    """Search whatever the broker wrote for words and keys; what is planted there is found, or the search is blind."""
    directory = stage.broker.directory
    planted = directory / "planted"
    planted.write_text(CANARY)
    places = [path for path in directory.rglob("*") if path.is_file()]
    assert stage.keeps <= {place.name for place in places}
    assert [finding.place for finding in search(places, [CANARY, PHRASE])] == ["planted"]
    keys = []
    for device in (stage.alice, stage.bob):
        with device.opened() as messenger:
            keys += private_keys(messenger)
    planted.write_bytes(keys[0])
    assert [place.name for place in places for key in keys if holds(place.read_bytes(), key)] == ["planted"]


def private_keys(messenger: Messenger) -> list[bytes]:
    account = messenger.account
    pairs = account.account_key_pair.seed, account.device_signing_key_pair.seed, account.identity_key_pair.private
    return [each.expose() for each in pairs]


def holds(content: bytes, key: bytes) -> bool:
    encoded = base64.b64encode(key).rstrip(b"=")[:-1]
    spelled = key, key.hex().encode(), encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")
    return any(each in content for each in spelled)
