"""Attacks of one Socket.IO client by long-polling and upgrades: its session ends, and nobody else notices."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import websockets

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, FrameClient, eventually, within
from tests.contract.socketio_fixtures import online_witness, open_site, patient_settings  # noqa: F401 - fixtures
from tests.contract.socketio_site import Site, close_code, hello_fields
from transport_adapters.codes import CloseCode
from transport_adapters.frames import Sent

MOST_QUEUED = 256 * 1024
MOST_PACKETS = 64
IMPATIENT = pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.5)], ids=["impatient"])
STUCK = pytest.mark.parametrize("settings", [replace(PATIENT, send_timeout=0.5, close_timeout=0.1)], ids=["stuck"])


class Poller:
    """One session on long-polling, by hand."""

    def __init__(self, site: Site, http: httpx.AsyncClient) -> None:
        self.site = site
        self.sid = ""
        self._http = http

    @property
    def queue(self) -> list[Any]:
        """What the server holds for this peer."""
        session = self.site.sio.eio.sockets.get(self.sid)
        return [] if session is None else [each for each in session.queue._queue if each is not None]

    async def open(self) -> None:
        answer = await self._http.get("/socket.io/?EIO=4&transport=polling")
        self.sid = json.loads(answer.text[1:])["sid"]

    async def poll(self) -> httpx.Response:
        return await self._http.get(f"/socket.io/?EIO=4&transport=polling&sid={self.sid}")

    async def post(self, content: Any, **options: Any) -> httpx.Response:
        url = f"/socket.io/?EIO=4&transport=polling&sid={self.sid}"
        return await self._http.post(url, content=content, **options)

    async def hello(self, owner: DeviceAddress) -> None:
        await self.post("40/e2ee,")
        await self.poll()
        await self.post("42/e2ee," + json.dumps(["hello", hello_fields(self.site, owner)]))
        await eventually(lambda: self.site.world.relay.is_live(owner))

    def upgrade(self) -> Any:
        url = self.site.socket_url(f"EIO=4&transport=websocket&sid={self.sid}")
        return websockets.connect(url, ping_interval=None)


@asynccontextmanager
async def polling(site: Site) -> AsyncIterator[Poller]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=site.url, timeout=30, limits=limits) as http:
        poller = Poller(site, http)
        await poller.open()
        yield poller


FLOODS = {
    "namespaces refused by name": "\x1e".join(f"40/{'x' * 200}," for _ in range(16)),
    "upgrades that are answered": "\x1e".join("5" for _ in range(16)),
    "joining and leaving": "\x1e".join(["40/e2ee,", "41/e2ee,"] * 8),
    "pongs only": "\x1e".join("3" for _ in range(16)),
}


@STUCK
@pytest.mark.parametrize("payload", FLOODS.values(), ids=FLOODS.keys())
async def test_a_poller_that_posts_and_never_polls_is_bounded(site: Site, witness: FrameClient, payload: str) -> None:
    async with polling(site) as mallory:
        for _ in range(40):
            answer = await mallory.post(payload)
            assert sum(len(str(each.data or "")) for each in mallory.queue) <= MOST_QUEUED
            assert len(mallory.queue) <= MOST_PACKETS
            if answer.status_code != 200:
                break
        await witness.answered(witness.owner)


@STUCK
async def test_many_posts_at_once_are_heard_one_after_the_other(site: Site, witness: FrameClient) -> None:
    async with polling(site) as mallory:
        posts = [mallory.post(FLOODS["namespaces refused by name"]) for _ in range(50)]
        answers = await asyncio.gather(*posts)
        assert len(mallory.queue) <= MOST_PACKETS
        assert {answer.status_code for answer in answers} >= {200, 429}
        await witness.answered(witness.owner)


@STUCK
async def test_a_poller_that_says_hello_and_never_polls_is_cut_and_loses_nothing(
    site: Site, witness: FrameClient
) -> None:
    bob = await site.world.device("bob")
    async with polling(site) as mallory:
        await mallory.hello(bob)
        for _ in range(20):
            witness.post(bob, bytes(20_000))
            await witness.next(Sent)
        while site.world.relay.is_live(bob):
            await mallory.post("3")
            assert sum(len(each.data or b"") for each in mallory.queue) <= MOST_QUEUED
    again = FrameClient(site.world, bob, number=2, instance=2)
    await again.online()
    await eventually(lambda: len(again.deliveries()) == 20)


async def test_a_burst_that_waits_for_an_honest_poller_holds_its_post_back_and_harms_nothing(site: Site) -> None:
    async with polling(site) as honest:
        await honest.post("40/")
        await honest.poll()
        for _ in range(300):
            await site.sio.emit("news", "x")
        post = asyncio.create_task(honest.post('4217["shout","still here"]'))
        arrived = ""
        while "STILL HERE" not in arrived:
            arrived += (await honest.poll()).text
        assert (await post).status_code == 200
        assert arrived.count("news") == 300


async def endless(block: bytes, blocks: int) -> AsyncIterator[bytes]:
    for _ in range(blocks):
        yield block


async def test_a_post_beyond_the_servers_limit_ends_its_session_unread(site: Site, witness: FrameClient) -> None:
    async with polling(site) as mallory:
        await mallory.hello(await site.world.device("mallory"))
        answer = await mallory.post("4" + "2" * 1_100_000)
        assert answer.status_code == 413
        await eventually(lambda: not site.sio.eio.sockets and len(site.world.relay._connections) == 1)
        await witness.answered(witness.owner)


async def test_a_post_of_undeclared_length_and_one_without_a_session_are_not_kept(
    site: Site, witness: FrameClient
) -> None:
    async with polling(site) as mallory:
        await mallory.post(endless(bytes(65_536), 64))
        await witness.answered(witness.owner)
        mallory.sid = "nobody"
        assert (await mallory.post(endless(bytes(65_536), 64))).status_code == 400
        await witness.answered(witness.owner)


@pytest.mark.parametrize(
    "payload",
    ["", "\x1e", "\x1e".join(["3"] * 10_000), "x", "b!", "d=", "4[" + "[" * 100_000, b"\xff\xfe", "459999-/e2ee,[]"],
    ids=["empty", "separators", "ten thousand packets", "letter", "base64", "jsonp", "deep", "utf-8", "attachments"],
)
async def test_a_payload_that_does_not_decode_harms_only_its_sender(
    site: Site, witness: FrameClient, payload: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with polling(site) as mallory:
        await mallory.hello(await site.world.device("mallory"))
        await mallory.post(payload)
        await witness.answered(witness.owner)
    assert "secret" not in caplog.text


async def test_many_polls_of_one_session_harm_nobody_and_end_with_it(site: Site, witness: FrameClient) -> None:
    bob = await site.world.device("bob")
    async with polling(site) as mallory:
        await mallory.hello(bob)
        polls = [asyncio.create_task(mallory.poll()) for _ in range(100)]
        await witness.answered(witness.owner)
        site.world.relay.cut(bob)
        await eventually(lambda: any(poll.done() and "device_revoked" in poll.result().text for poll in polls))
        assert not site.world.relay.is_live(bob)
        await witness.answered(witness.owner)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


@IMPATIENT
@pytest.mark.parametrize("said", [[], ["2probe"], ["2probe", "3"]], ids=["nothing", "a probe", "a probe, then a pong"])
async def test_an_upgrade_that_is_never_finished_is_cut(site: Site, said: list[str]) -> None:
    async with polling(site) as mallory:
        await mallory.post("40/")  # so the session carries something, and stays
        socket = await mallory.upgrade()
        for packet in said:
            await socket.send(packet)
        await within(socket.wait_closed())
        assert socket.close_code in (CloseCode.TIMEOUT, 1000, 1006)


@IMPATIENT
async def test_a_socket_whose_session_is_over_is_cut(site: Site) -> None:
    async with polling(site) as mallory:
        socket = await mallory.upgrade()
        await site.sio.eio.sockets[mallory.sid].close(wait=False)
        del site.sio.eio.sockets[mallory.sid]
        assert await close_code(socket) == CloseCode.TIMEOUT


async def test_a_second_socket_cannot_hide_behind_an_upgrade_that_is_never_finished(site: Site) -> None:
    async with polling(site) as mallory:
        first = await mallory.upgrade()
        with pytest.raises(websockets.InvalidStatus):
            await mallory.upgrade()
        await first.close()


async def test_an_upgrade_without_the_usual_query_is_guarded_too(site: Site) -> None:
    bob = await site.world.device("bob")
    async with polling(site) as mallory:
        await mallory.hello(bob)
        socket = await websockets.connect(site.socket_url(f"sid={mallory.sid}"), ping_interval=None)
        await socket.send("2probe")
        while await socket.recv() != "3probe":
            pass
        await socket.send("5")
        await socket.send('42/e2ee,["no such frame"]')
        while "malformed_frame" not in str(await within(socket.recv())):
            pass
        site.world.relay.cut(bob)
        assert await close_code(socket) == CloseCode.REVOKED
