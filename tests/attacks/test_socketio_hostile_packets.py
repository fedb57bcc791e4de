"""Attacks of one Socket.IO client over a real WebSocket: what it sends is answered or cut, and harms nobody else."""

import asyncio
import json
import logging
import socket
import struct
from dataclasses import replace

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.contract.relay_world import PATIENT, FrameClient, eventually, within
from tests.contract.socketio_fixtures import online_witness, open_site, patient_settings  # noqa: F401 - fixtures
from tests.contract.socketio_site import Site, close_code, hello_fields
from transport_adapters.codes import CloseCode
from transport_adapters.frames import Hello, InstanceId

IMPATIENT = pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.5)], ids=["impatient"])
DEEP = 100_000
MOST_QUEUED = 256 * 1024


@pytest.fixture
async def mallory(site: Site) -> ClientConnection:
    """A client with a token of its own, which said hello."""
    return await site.said_hello(await site.world.device("mallory"))


async def error_code(connection: ClientConnection) -> str:
    """The code of the next error frame."""
    while True:
        text = str(await within(connection.recv()))
        if text.startswith('42/e2ee,["error"'):
            return str(json.loads(text[text.index("[") :])[1]["code"])


def connections(site: Site) -> int:
    return len(site.world.relay._connections)


UNDECODABLE = {
    "empty": "",
    "unknown Engine.IO type": "9",
    "letter for a type": "x",
    "base64 that is none": "b!!!",
    "JSON in place of a Socket.IO packet": '4{"a":1}',
    "deep nesting in place of a Socket.IO packet": "4" + "[" * DEEP,
    "message without a packet": "4",
    "unknown Socket.IO type": "47/e2ee,",
    "refusal from a client": "44/e2ee,{}",
    "event without data": "42/e2ee,",
    "event without a name": "42/e2ee,[]",
    "event that is an object": '42/e2ee,{"0":"hello"}',
    "event named by an object": "42/e2ee,[{}]",
    "event named by a list": '42/e2ee,[["hello"]]',
    "event named by NaN": "42/e2ee,[NaN]",
    "JSON that ends early": '42/e2ee,["hello',
    "deep nesting": '42/e2ee,["hello",' + "[" * DEEP,
    "integer too long to read": '42/e2ee,["hello",' + "9" * 5_000 + "]",
    "acknowledgement id too long": "42/e2ee," + "9" * 200 + '["hello"]',
    "namespace without end": "40/" + "x" * 100_000,
    "attachments without a number": '45-/e2ee,["send",{}]',
    "no attachment announced": '450-/e2ee,["send",{}]',
    "two attachments for one envelope": '452-/e2ee,["send",{"envelope":{"_placeholder":true,"num":0}}]',
    "ten thousand million attachments": '459999999999-/e2ee,["send",{}]',
    "attachments by a longer number": "45" + "9" * 100 + '-/e2ee,["send",{}]',
    "placeholder beyond the attachments": '451-/e2ee,["send",{"_placeholder":true,"num":1}]',
    "placeholder of another type": '451-/e2ee,["send",{"_placeholder":true,"num":"x"}]',
    "host's packet with a million attachments": '451000000-["shout"]',
    "connect as an event": '42/e2ee,["connect",{}]',
    "disconnect as an event": '42/e2ee,["disconnect"]',
    "catch-all as an event": '42/e2ee,["*","hello",{}]',
}


@pytest.mark.parametrize("packet", UNDECODABLE.values(), ids=UNDECODABLE.keys())
async def test_a_packet_that_no_client_sends_ends_its_connection_and_leaves_nothing(
    site: Site, mallory: ClientConnection, witness: FrameClient, packet: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await mallory.send(packet)
    assert await close_code(mallory) == CloseCode.TOO_FAST_OR_SLOW
    await eventually(lambda: not site.sio.eio.sockets and connections(site) == 1)
    await witness.answered(witness.owner)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x00" * 100],
        [b"5"],
        ['451-/e2ee,["send",{"_placeholder":true,"num":0}]', '42/e2ee,["presence",{"state":"away"}]'],
        ['451-/e2ee,["send",{"_placeholder":true,"num":0}]', b"x", b"y"],
    ],
    ids=["unannounced", "unannounced, like a packet", "another packet in between", "one too many"],
)
async def test_a_binary_attachment_out_of_place_ends_its_connection(
    mallory: ClientConnection, witness: FrameClient, frames: list[str | bytes]
) -> None:
    for frame in frames:
        await mallory.send(frame)
    assert await close_code(mallory) == CloseCode.TOO_FAST_OR_SLOW
    await witness.answered(witness.owner)


async def test_invalid_utf8_ends_its_connection(site: Site, mallory: ClientConnection, witness: FrameClient) -> None:
    mallory.transport.write(b"\x81\x82\x00\x00\x00\x00\xff\xfe")  # a masked text frame of two bytes
    assert await close_code(mallory) == 1007
    await eventually(lambda: not site.sio.eio.sockets and connections(site) == 1)
    await witness.answered(witness.owner)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1.0", "true", "1e400", "9" * 90, '"1"', "null", "[]"])
async def test_a_value_that_is_no_number_is_a_malformed_frame(mallory: ClientConnection, value: str) -> None:
    await mallory.send('42/e2ee,["credit",{"messages":' + value + ',"bytes":1}]')
    assert await error_code(mallory) == "malformed_frame"


async def test_hello_twice_is_a_malformed_frame_and_changes_nothing(site: Site, mallory: ClientConnection) -> None:
    other = await site.world.device("other")
    await mallory.send("42/e2ee," + json.dumps(["hello", hello_fields(site, other)]))
    assert await error_code(mallory) == "malformed_frame"
    assert not site.world.relay.is_live(other)
    assert connections(site) == 1


async def test_connect_twice_is_refused_and_the_first_goes_on(site: Site, mallory: ClientConnection) -> None:
    for _ in range(3):
        await mallory.send("40/e2ee,")
        assert str(await within(mallory.recv())).startswith("44/e2ee,")
    assert connections(site) == 1
    await mallory.send('42/e2ee,["no such frame"]')
    assert await error_code(mallory) == "malformed_frame"


async def test_joining_and_leaving_again_and_again_leaves_nothing(site: Site, witness: FrameClient) -> None:
    connection = await site.raw()
    for _ in range(200):
        await connection.send("40/e2ee,")
        await connection.send("41/e2ee,")
    await connection.send("40/")
    await eventually(lambda: connections(site) == 1)
    await witness.answered(witness.owner)
    connection.transport.abort()  # a closing handshake would wait behind all that was never read


@IMPATIENT
async def test_events_before_connect_are_ignored_and_the_socket_is_cut(site: Site) -> None:
    connection = await site.raw()
    fields = hello_fields(site, await site.world.device("bob"))
    for _ in range(20):
        await connection.send("42/e2ee," + json.dumps(["hello", fields]))
    assert await close_code(connection) == CloseCode.TIMEOUT
    assert connections(site) == 0


async def test_acks_for_nobody_and_pongs_without_pings_change_nothing(mallory: ClientConnection) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(500):
        await mallory.send("43/e2ee,7[]")
        await mallory.send("3")
        await mallory.send("6")
    await mallory.send('42/e2ee,["no such frame"]')
    assert await error_code(mallory) == "malformed_frame"
    assert len(asyncio.all_tasks()) < before + 50


async def test_ten_thousand_packets_in_one_segment_harm_only_their_sender(
    site: Site, mallory: ClientConnection, witness: FrameClient
) -> None:
    payload = b'42/e2ee,["x"]'
    frame = bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload
    mallory.transport.write(frame * 10_000)
    assert await error_code(mallory) == "malformed_frame"
    assert await close_code(mallory) == CloseCode.TOO_FAST_OR_SLOW
    await eventually(lambda: not site.sio.eio.sockets and connections(site) == 1)
    await witness.answered(witness.owner)


async def test_websocket_pings_of_a_peer_that_never_reads_are_bounded(site: Site, mallory: ClientConnection) -> None:
    (protocol,) = site.server.server_state.connections
    mallory.transport.pause_reading()
    pings = (b"\x89" + bytes([0x80 | 125]) + bytes(4) + bytes(125)) * 1_000
    while mallory.transport.get_write_buffer_size() < len(pings):
        mallory.transport.write(pings)
        for _ in range(10):
            await asyncio.sleep(0)
        assert protocol.transport is not None
        assert protocol.transport.get_write_buffer_size() <= MOST_QUEUED
    mallory.transport.abort()


async def test_an_envelope_too_large_ends_its_sender_for_good(mallory: ClientConnection) -> None:
    claim = {"seq": 1, "hash": "00" * 32}
    fields = {"counter": 1, "recipient_list": claim, "sender_list": claim}
    place = {"_placeholder": True, "num": 0}
    await mallory.send("451-/e2ee," + json.dumps(["send", {**fields, "envelope": place}]))
    await mallory.send(bytes(100_000))
    assert await error_code(mallory) == "too_large"
    assert await close_code(mallory) == CloseCode.TOO_LARGE


async def test_a_reset_in_the_middle_of_an_envelope_leaves_nothing(
    site: Site, mallory: ClientConnection, witness: FrameClient
) -> None:
    await mallory.send('451-/e2ee,["send",{"_placeholder":true,"num":0}]')
    mallory.transport.write(b"\x82\xff" + struct.pack("!Q", 90_000) + bytes(1_000))
    raw = mallory.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    mallory.transport.abort()
    await eventually(lambda: not site.sio.eio.sockets and connections(site) == 1)
    await witness.answered(witness.owner)


async def test_devices_that_displace_one_another_in_a_storm_leave_one_connection(
    site: Site, witness: FrameClient
) -> None:
    bob = await site.world.device("bob")
    rivals = []
    for number in range(30):
        connection = await site.joined("/e2ee")
        instance = InstanceId(bytes([number % 2]) * 16)
        hello = Hello(site.world.tokens.issue(bob), instance, number, 0, 0, 100, 1 << 20)
        await connection.send("42/e2ee," + json.dumps(["hello", hello.to_fields()]))
        rivals.append(connection)
    codes = [await close_code(loser) for loser in rivals[:-1]]
    assert codes == [CloseCode.REPLACED] * 29
    await eventually(lambda: connections(site) == 2)
    assert site.world.relay.is_live(bob)
    await witness.answered(witness.owner)


async def test_a_fresh_token_of_another_device_is_refused_and_the_tenth_ends_it(
    site: Site, mallory: ClientConnection
) -> None:
    victim = await site.world.device("victim")
    for _ in range(9):
        await mallory.send("42/e2ee," + json.dumps(["refresh", {"token": site.world.tokens.issue(victim)}]))
        assert await error_code(mallory) == "token_invalid"
    await mallory.send("42/e2ee," + json.dumps(["refresh", {"token": site.world.tokens.issue(victim)}]))
    assert await error_code(mallory) == "flooding"
    assert await close_code(mallory) == CloseCode.TOO_FAST_OR_SLOW


@pytest.mark.parametrize("settings", [replace(PATIENT, token_grace=0.2)], ids=["short grace"])
async def test_an_expired_token_is_announced_then_closes_with_4401(site: Site) -> None:
    bob = await site.world.device("bob")
    connection = await site.joined("/e2ee")
    token = site.world.tokens.issue(bob, lifetime_ms=50)
    await connection.send("42/e2ee," + json.dumps(["hello", {**hello_fields(site, bob), "token": token}]))
    assert await error_code(connection) == "token_expired"
    assert connections(site) == 1
    assert await error_code(connection) == "token_expired"
    assert await close_code(connection) == CloseCode.TOKEN_EXPIRED


QUERIES = ["EIO=4&transport=websocket&transport=polling", "transport=websocket&EIO=4&EIO=3"]


@IMPATIENT
@pytest.mark.parametrize("query", QUERIES)
async def test_no_spelling_of_the_query_gets_around_the_guard(site: Site, query: str) -> None:
    try:
        connection = await websockets.connect(site.socket_url(query))
    except websockets.InvalidStatus:
        return
    assert await close_code(connection) == CloseCode.TIMEOUT
