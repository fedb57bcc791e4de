"""Slow and hostile peers on the relay's HTTP endpoints: bounded, refused by a named error, and a matter of theirs."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
import uvicorn
from starlette.applications import Starlette

from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.codec import to_base64url
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    Peer,
    RelayWorld,
    eventually,
    relay_world,
    within,
)
from tests.contract.socketio_server import served
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.fields import MAX_U32
from transport_adapters.frames import Ack, ClientFrame, Credit, Hello, InstanceId, Pong, Send
from transport_adapters.http_wire import HttpOptions
from transport_adapters.longpoll import LongPollTransport
from transport_adapters.server import http_requests
from transport_adapters.server.http_protocol import BoundedHttp
from transport_adapters.server.mount import endpoints
from transport_adapters.server.settings import Rate, RelaySettings
from transport_adapters.sse import SseTransport
from transport_adapters.text import to_pair

MOST_QUEUED = 256 * 1024
STORED_BYTES = 2_500_000
TRANSPORTS = {"sse": SseTransport, "longpoll": LongPollTransport}


@dataclass
class Site:
    world: RelayWorld
    url: str
    server: uvicorn.Server
    http: httpx.AsyncClient

    def hello(self, token: str) -> ClientFrame:
        return Hello(token, InstanceId(bytes(16)), 1, 0, 0, MAX_U32, MAX_U32)

    async def post(
        self, path: str, token: str, *frames: ClientFrame, connection: str = "", wait: float | None = None
    ) -> "Reply":
        body: dict[str, Any] = {"frames": [to_pair(each) for each in frames]}
        if wait is not None:
            body["wait"] = wait
        return await self.posted(path, token, json.dumps(body), connection=connection)

    async def posted(self, path: str, token: str, body: Any, *, connection: str = "", method: str = "POST") -> "Reply":
        headers = {"Authorization": f"Bearer {token}".strip()} | ({"E2EE-Connection": connection} if connection else {})
        response = await within(self.http.request(method, f"/e2ee/{path}", headers=headers, content=body))
        return Reply(
            response.status_code, response.json()["frames"], response.json().get("connection", ""), response.headers
        )

    async def raw(self, path: str, token: str, connection: str, *pieces: bytes) -> "Reply":
        """POST a body that never ends, and read the answer meanwhile, which httpx does not."""
        reader, writer = await self.socket()
        head = f"Host: relay\r\nAuthorization: Bearer {token}\r\nE2EE-Connection: {connection}\r\n"
        writer.write(f"POST /e2ee/{path} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        answer = await within(reader.read())
        writer.close()
        status, body = int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])
        return Reply(status, body["frames"], "")

    async def polling(self, owner: DeviceAddress) -> tuple[str, str]:
        """Open a connection by polling; return its id and the token."""
        token = self.world.tokens.issue(owner)
        reply = await self.post("poll", token, self.hello(token))
        assert reply.frames[0][0] == "hello"
        return reply.connection, token

    def reader(self, owner: DeviceAddress, make: Any = LongPollTransport, **options: Any) -> Peer:
        async def token() -> str:
            return self.world.tokens.issue(owner)

        cell = CursorCell()
        http = HttpOptions(link=replace(EAGER_LINK, **options))
        return Peer(make(self.url, token=token, cursor=cell, options=http), cell)

    async def socket(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.url.removeprefix("http://").split(":")
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        return await asyncio.open_connection(sock=small, limit=512)


@dataclass
class Reply:
    status: int
    frames: list[Any]
    connection: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def codes(self) -> list[str]:
        return [fields["code"] for event, fields in self.frames if event == "error"]


@pytest.fixture
def settings() -> RelaySettings:
    return PATIENT


@pytest.fixture
async def site(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[Site]:
    async with (
        relay_world(tmp_path, settings) as world,
        served(Starlette(routes=endpoints(world.relay))) as (url, server),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield Site(world, url, server, http)
        await world.relay.close()


def large(size: int) -> Send:
    claim = {"seq": 1, "hash": "00" * 32}
    return Send.from_fields({"counter": 1, "recipient_list": claim, "sender_list": claim, "envelope": bytes(size)})


# --- Peers that do not read


@asynccontextmanager
async def unread(site: Site, kind: str, owner: DeviceAddress) -> AsyncIterator[None]:
    """Say hello with all the credit there is, ask for more, and read none of it."""
    token = site.world.tokens.issue(owner)
    reader, writer = await site.socket()
    head = f"Host: relay\r\nAuthorization: Bearer {token}\r\n"
    if kind == "sse":
        writer.write(f"GET /e2ee/sse HTTP/1.1\r\n{head}\r\n".encode())
        while not (line := await within(reader.readline())).startswith(b"data:"):
            pass
        connection = json.loads(line[5:])["connection"]
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert (await site.post("frames", token, site.hello(token), connection=connection)).status == 202
    else:
        reply = await site.post("poll", token, site.hello(token))
        head += f"E2EE-Connection: {reply.connection}\r\n"
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        # Pipelined: each answered poll is followed by the next.
        writer.write(f"POST /e2ee/poll HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode() * 200)
    yield
    writer.transport.abort()


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("body", [20_000, MAX_ENVELOPE - 100])
@pytest.mark.parametrize(
    "settings",
    [replace(PATIENT, send_timeout=1, silence_timeout=1, close_timeout=0.1, send_rate=Rate(1e3, 1000))],
)
async def test_a_client_that_never_reads_is_bounded_cut_and_loses_nothing(site: Site, kind: str, body: int) -> None:
    alice, bob, carol = [await site.world.device(name) for name in ("alice", "bob", "carol")]
    sender, recipient = site.reader(alice, SseTransport), site.reader(carol, SseTransport)
    await sender.online()
    await recipient.online()
    waiting = [site.world.outgoing(alice, bob, bytes(body)) for _ in range(STORED_BYTES // body)]
    for outgoing in waiting:
        await within(sender.transport.send(outgoing))
    peak = 0

    def held() -> int:
        live = site.world.relay._live.get(bob)
        buffers = [each.transport.get_write_buffer_size() for each in site.server.server_state.connections]
        return max(buffers, default=0) + (0 if live is None else live.connection.queued)

    async with unread(site, kind, bob):
        await eventually(lambda: site.world.relay.is_live(bob))
        while site.world.relay.is_live(bob):
            sent = site.world.outgoing(alice, carol)
            await within(sender.transport.send(sent))
            peak = max(peak, held())
            delivery = await recipient.next()
            assert delivery.envelope == sent.envelope
            await recipient.ack(delivery)
            peak = max(peak, held())
        assert peak <= MOST_QUEUED
    again = site.reader(bob, TRANSPORTS[kind])
    arrived = set()
    for _ in waiting:
        delivery = await again.next()
        arrived.add(delivery.envelope)
        await again.ack(delivery)
    assert arrived >= {each.envelope for each in waiting}
    for peer in (sender, recipient, again):
        await peer.close()


async def test_a_stream_whose_end_is_not_read_is_dropped_all_the_same(site: Site) -> None:
    bob = await site.world.device("bob")
    async with unread(site, "sse", bob):
        await eventually(lambda: site.world.relay.is_live(bob))
        site.world.relay.cut(bob)
        await eventually(lambda: not site.server.server_state.tasks)


# --- Bodies


async def test_a_body_that_does_not_come_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "BODY_TIMEOUT", 0.2)
    connection, token = await site.polling(await site.world.device("bob"))

    reply = await site.raw("frames", token, connection, b'{"frames":[')
    assert (reply.status, reply.codes) == (408, ["body_timeout"])
    assert site.world.relay.is_live(await site.world.device("bob"))


async def test_a_head_that_does_not_come_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "head_timeout", 0.2)
    for beginning in (b"", b"POST /e2ee/poll HTTP/1.1\r\nHost: relay\r\n"):
        reader, writer = await site.socket()
        writer.write(beginning)
        try:
            assert await within(reader.read()) == b""
        except ConnectionResetError:
            pass
        writer.close()


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(site: Site, declared: bool) -> None:
    connection, token = await site.polling(await site.world.device("bob"))
    body = b'{"frames":[' + b" " * http_requests.MAX_BODY + b"]}"

    for path in ("frames", "poll"):
        if declared:
            reply = await site.posted(path, token, body, connection=connection)
        else:
            reply = await site.raw(
                path, token, connection, *(body[at : at + 10_000] for at in range(0, len(body), 10_000))
            )
        assert (reply.status, reply.codes) == (413, ["too_large"])


async def test_an_oversized_envelope_ends_its_connection(site: Site) -> None:
    connection, token = await site.polling(await site.world.device("bob"))
    fields = large(1).to_fields() | {"envelope": to_base64url(bytes(MAX_ENVELOPE + 1))}
    reply = await site.posted("poll", token, json.dumps({"frames": [["send", fields]]}), connection=connection)
    assert (reply.status, reply.codes) == (413, ["too_large"])
    reply = await site.post("poll", token, connection=connection)
    assert (reply.status, reply.codes) == (413, ["too_large"])


GARBAGE = [
    b"",
    b"[]",
    b"\xff",
    b"[" * 100_000,
    b'{"frames":{}}',
    b'{"frames":[],"more":1}',
    b'{"wait":-1}',
    b'{"wait":16}',
    b'{"wait":true}',
    b'{"wait":"1"}',
    b'{"wait":NaN}',
    b'{"frames":[' + b",".join([b"1"] * 65) + b"]}",
]


@pytest.mark.parametrize("body", GARBAGE, ids=[repr(each)[:24] for each in GARBAGE])
async def test_a_body_of_another_form_is_refused_and_does_nothing(site: Site, body: bytes) -> None:
    bob = await site.world.device("bob")
    connection, token = await site.polling(bob)
    for path in ("frames", "poll"):
        reply = await site.posted(path, token, body, connection=connection)
        assert (reply.status, reply.codes) == (400, ["malformed_frame"])
    reply = await site.posted("poll", token, body)
    assert (reply.status, reply.codes) == (400, ["malformed_frame"])
    assert site.world.relay.is_live(bob)


async def test_bad_frames_are_named_and_end_their_connection_when_they_recur(site: Site) -> None:
    connection, token = await site.polling(await site.world.device("bob"))
    bad = json.dumps({"frames": [1, ["hello"], ["no", {}], ["send", {"envelope": "!"}], ["deliver", {}]], "wait": 1})
    reply = await site.posted("poll", token, bad, connection=connection)
    assert (reply.status, reply.codes) == (200, ["malformed_frame"] * 5)
    reply = await site.posted("poll", token, bad, connection=connection)
    assert (reply.status, reply.codes[-1]) == (429, "flooding")


# --- Whose connection it is


@pytest.mark.parametrize("path", ["frames", "poll"])
async def test_a_strangers_connection_does_not_exist(site: Site, path: str) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    connection, _ = await site.polling(bob)
    strangers = site.world.tokens.issue(alice)
    for guessed in (connection, "00" * 16, "x", connection.upper()):
        for method in ("POST", "DELETE") if path == "frames" else ("POST",):
            reply = await site.posted(path, strangers, "{}", connection=guessed, method=method)
            assert (reply.status, reply.codes) == (404, ["unknown_connection"])
    assert site.world.relay.is_live(bob)


@pytest.mark.parametrize("token", ["", "guessed"])
async def test_without_a_token_that_counts_nothing_is_told(site: Site, token: str) -> None:
    connection, _ = await site.polling(await site.world.device("bob"))
    for path, method in (("frames", "POST"), ("frames", "DELETE"), ("poll", "POST"), ("sse", "GET")):
        for named in (connection, "00" * 16, ""):
            reply = await site.posted(path, token, "{}", connection=named, method=method)
            assert (reply.status, reply.codes) == (401, ["token_invalid"])
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_hello_speaks_for_the_device_of_the_request(site: Site) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    alices, bobs = site.world.tokens.issue(alice), site.world.tokens.issue(bob)
    reply = await site.post("poll", alices, site.hello(bobs))
    assert (reply.status, reply.codes) == (400, ["malformed_frame"])
    assert not site.world.relay.is_live(alice)
    assert not site.world.relay.is_live(bob)


async def test_a_token_in_the_query_counts_for_nothing(site: Site) -> None:
    token = site.world.tokens.issue(await site.world.device("bob"))
    reply = await site.posted(f"sse?token={token}", "", "", method="GET")
    assert reply.status == 401


async def test_a_second_hello_is_refused_and_changes_nothing(site: Site) -> None:
    bob = await site.world.device("bob")
    connection, token = await site.polling(bob)
    reply = await site.post("poll", token, site.hello(token), connection=connection)
    assert (reply.status, reply.codes) == (200, ["malformed_frame"])
    assert site.world.relay.is_live(bob)


async def test_a_revoked_device_is_told_so_by_every_endpoint(site: Site) -> None:
    bob = await site.world.device("bob")
    connection, token = await site.polling(bob)
    site.world.tokens.refused[bob] = "device_revoked"
    site.world.relay.cut(bob)
    for path, method in (("frames", "POST"), ("poll", "POST")):
        reply = await site.posted(path, token, "{}", connection=connection, method=method)
        assert (reply.status, reply.codes) == (401, ["device_revoked"])
    reply = await site.posted("sse", token, "", method="GET")
    assert (reply.status, reply.codes) == (401, ["device_revoked"])


# --- Many at once


async def test_of_many_held_polls_the_newest_is_answered_and_the_others_return_empty(site: Site) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    connection, token = await site.polling(bob)
    polls = [asyncio.create_task(site.post("poll", token, connection=connection)) for _ in range(20)]
    await eventually(lambda: sum(each.done() for each in polls) == 19)
    sender = site.reader(alice)
    await sender.online()
    sent = site.world.outgoing(alice, bob)
    await within(sender.transport.send(sent))
    replies = await within(asyncio.gather(*polls))
    assert {each.status for each in replies} == {200}
    assert [each.frames[0][0] for each in replies if each.frames] == ["deliver"]
    await sender.close()


@pytest.mark.parametrize("path", ["poll", "sse"])
async def test_connections_of_one_device_are_few(site: Site, path: str) -> None:
    bob = await site.world.device("bob")
    token = site.world.tokens.issue(bob)
    method = "GET" if path == "sse" else "POST"

    async def hold() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with site.http.stream(method, f"/e2ee/{path}", headers=headers) as response:
            await response.aread()

    holding = [asyncio.create_task(hold()) for _ in range(12)]
    if path == "sse":
        await eventually(lambda: sum(each.done() for each in holding) == 8)
    assert len(site.world.relay._connections) <= 4
    for each in holding:
        each.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    await eventually(lambda: not site.world.relay._connections)


async def test_whoever_was_replaced_learns_it_although_no_poll_was_held(site: Site) -> None:
    bob = await site.world.device("bob")
    first, token = await site.polling(bob)
    second = site.reader(bob)
    await second.online()
    reply = await site.post("poll", token, connection=first)
    assert (reply.status, reply.codes) == (409, ["replaced"])
    assert not second.outcome.done()
    await second.close()


# --- Silence


@pytest.mark.parametrize("settings", [replace(PATIENT, silence_timeout=0.2)])
async def test_a_client_that_polls_no_more_is_ended(site: Site) -> None:
    bob = await site.world.device("bob")
    connection, token = await site.polling(bob)
    await eventually(lambda: not site.world.relay.is_live(bob))
    reply = await site.post("frames", token, Pong(), connection=connection)
    assert (reply.status, reply.codes) == (408, ["silent"])


@pytest.mark.parametrize("settings", [replace(PATIENT, ping_interval=0.1, silence_timeout=1.5)])
async def test_a_stream_lives_as_long_as_pings_are_answered(site: Site) -> None:
    peer = site.reader(await site.world.device("bob"), SseTransport)
    await peer.online()
    token = site.world.tokens.issue(await site.world.device("carol"))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx_sse.aconnect_sse(site.http, "GET", "/e2ee/sse", headers=headers) as source:
        events = source.aiter_sse()
        connection = (await within(anext(events))).json()["connection"]
        await site.post("frames", token, site.hello(token), connection=connection)
        seen = []
        while "error" not in seen:
            seen.append((await within(anext(events))).event)
        assert seen[0] == "hello"
        assert seen.count("ping") >= 2  # it answered none of them
        assert [each async for each in events] == []
    assert peer.connected.empty()
    assert site.world.relay.is_live(await site.world.device("bob"))
    await peer.close()


async def test_a_stream_that_says_nothing_is_given_up_and_dialled_again(site: Site) -> None:
    peer = site.reader(await site.world.device("bob"), SseTransport, silence_timeout=0.2)
    for _ in range(3):
        await peer.online()
    await peer.close()


# --- As the protocol has it


async def test_an_event_has_the_name_of_its_frame_and_the_position_as_its_id(site: Site) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    sender = site.reader(alice, SseTransport)
    await sender.online()
    sent = site.world.outgoing(alice, bob)
    await within(sender.transport.send(sent))
    token = site.world.tokens.issue(bob)
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": "1:1000"}
    async with httpx_sse.aconnect_sse(site.http, "GET", "/e2ee/sse", headers=headers) as source:
        assert source.response.headers["x-accel-buffering"] == "no"
        events = source.aiter_sse()
        connection = (await within(anext(events))).json()["connection"]
        await site.post("frames", token, site.hello(token), connection=connection)
        welcome, delivery = [await within(anext(events)) for _ in range(2)]
    assert (welcome.event, welcome.json()["head_seq"]) == ("hello", 1)
    assert (delivery.event, delivery.id) == ("deliver", f"{welcome.json()['epoch']}:1")
    assert delivery.json()["envelope"] == to_base64url(sent.envelope)
    await sender.close()


async def test_a_lost_reply_loses_nothing(site: Site) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    sender = site.reader(alice, SseTransport)
    await sender.online()
    sent = [site.world.outgoing(alice, bob, b"%d" % n) for n in range(3)]
    for each in sent:
        await within(sender.transport.send(each))
    for _ in range(2):  # a poll whose reply nobody acknowledges, as if it had been lost
        token = site.world.tokens.issue(bob)
        reply = await site.post("poll", token, site.hello(token))
        while sum(event == "deliver" for event, _ in reply.frames) < 3:
            reply.frames += (await site.post("poll", token, connection=reply.connection)).frames
        got = [fields["envelope"] for event, fields in reply.frames if event == "deliver"]
        assert got == [to_base64url(each.envelope) for each in sent]
        site.world.relay._live[bob].connection.end(ErrorCode.DRAINING, CloseCode.DRAINING, "")
    await sender.close()


async def test_a_poll_without_wait_returns_at_once(site: Site) -> None:
    connection, token = await site.polling(await site.world.device("bob"))
    reply = await site.post("poll", token, Credit(1, 1), connection=connection, wait=0)
    assert (reply.status, reply.frames) == (200, [])


async def test_an_ack_by_post_is_committed(site: Site) -> None:
    alice, bob = await site.world.device("alice"), await site.world.device("bob")
    sender = site.reader(alice, SseTransport)
    await sender.online()
    await within(sender.transport.send(site.world.outgoing(alice, bob)))
    connection, token = await site.polling(bob)
    epoch = 1
    assert (
        await site.post("frames", token, Ack.from_fields({"epoch": epoch, "ranges": [[1, 1]]}), connection=connection)
    ).status == 202
    await eventually(lambda: not site.world.relay._live[bob].connection._frames)
    await site.posted("frames", token, "", connection=connection, method="DELETE")
    assert not site.world.relay.is_live(bob)
    again, _ = await site.polling(bob)
    assert again != connection
    await sender.close()


async def test_a_client_that_leaves_has_its_stream_ended(site: Site) -> None:
    token = site.world.tokens.issue(await site.world.device("bob"))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx_sse.aconnect_sse(site.http, "GET", "/e2ee/sse", headers=headers) as source:
        events = source.aiter_sse()
        connection = (await within(anext(events))).json()["connection"]
        await site.post("frames", token, site.hello(token), connection=connection)
        assert (await within(anext(events))).event == "hello"
        for _ in range(2):
            left = await site.posted("frames", token, "", connection=connection, method="DELETE")
            assert (left.status, left.frames) == (202, [])
        assert [each async for each in events] == []


async def test_a_client_that_leaves_has_its_poll_answered(site: Site) -> None:
    connection, token = await site.polling(await site.world.device("bob"))
    polls = [asyncio.create_task(site.post("poll", token, connection=connection)) for _ in range(2)]
    await eventually(lambda: sum(each.done() for each in polls) == 1)  # the newer one is held
    await site.posted("frames", token, "", connection=connection, method="DELETE")
    replies = await within(asyncio.gather(*polls))
    assert sorted(each.codes for each in replies) == [[], ["silent"]]
