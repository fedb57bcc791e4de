"""The client's link: which URLs it refuses, how it reconnects, what it does with a misbehaving server."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from e2ee.wire.identifiers import EnvelopeId, UserId
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, address, eventually, within
from transport_adapters import frames
from transport_adapters.base import (
    Announce,
    Connected,
    Delivery,
    InsecureUrlError,
    ListClaim,
    Outgoing,
    PresenceSeen,
    PresenceState,
    SeqRange,
    Signal,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
    TypeTo,
    Watch,
)
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.fields import MAX_ACK_RANGES
from transport_adapters.frames import (
    Ack,
    ClientFrame,
    Credit,
    Deliver,
    Error,
    Hello,
    PresenceReport,
    Send,
    Sent,
    ServerFrame,
    Welcome,
)
from transport_adapters.link import Link, LinkOptions, Receiver, require_secure

WELCOME = Welcome(1, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "url",
    [
        "https://chat.example",
        "wss://chat.example:8443/base",
        "http://localhost:8000",
        "http://127.0.0.1",
        "ws://127.8.9.1:80",
        "http://[::1]:8000",
    ],
)
def test_secure_and_loopback_urls_are_accepted(url: str) -> None:
    require_secure(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://chat.example",
        "ws://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://127.0.0.1@chat.example",
        "http://[::2]",
        "http://0.0.0.0",
        "http://2130706433",
    ],
)
def test_plaintext_beyond_this_machine_is_refused(url: str) -> None:
    with pytest.raises(InsecureUrlError):
        require_secure(url)


@pytest.mark.parametrize("url", ["", "chat.example", "ftp://localhost", "https://", "mailto:bob"])
def test_what_is_no_url_of_a_server_is_the_callers_bug(url: str) -> None:
    with pytest.raises(ValueError):
        require_secure(url)


def test_without_the_client_extra_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['socketio'] = None; import transport_adapters.socketio"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "install 'e2ee-layer[client]'" in ended.stderr


def test_errors_of_the_network_have_codes_and_remedies() -> None:
    error = TransportRefusedError("replaced", 4409)
    assert (error.code, error.reason, error.close_code) == ("transport_refused", "replaced", 4409)
    assert "Reconnecting will not help" in str(error)
    with pytest.raises(TypeError):
        TransportError()


@dataclass
class Server:
    """The other end of a link, played by the test."""

    failures: int = 0
    dials: int = 0
    receivers: list[Receiver] = field(default_factory=list)
    written: list[ClientFrame] = field(default_factory=list)
    closed: int = 0
    answers: Callable[["Server", ClientFrame], None] = lambda server, frame: server.welcome(frame)

    async def dial(self, receiver: Receiver) -> "Server":
        self.dials += 1
        if self.dials <= self.failures:
            raise OSError("connection refused")
        self.receivers.append(receiver)
        return self

    async def write(self, frame: ClientFrame) -> None:
        self.written.append(frame)
        self.answers(self, frame)

    async def close(self) -> None:
        self.closed += 1

    def welcome(self, frame: ClientFrame) -> None:
        if isinstance(frame, Hello):
            self.say(WELCOME)

    def say(self, frame: ServerFrame) -> None:
        self.receivers[-1].frame(frame.EVENT, frame.to_fields())

    def wrote(self, kind: type[ClientFrame]) -> list[ClientFrame]:
        return [frame for frame in self.written if isinstance(frame, kind)]


def linked(server: Server, options: LinkOptions = EAGER_LINK) -> Peer:
    async def token() -> str:
        return "token"

    cell = CursorCell()
    return Peer(Link(server.dial, token, cell, options), cell)


def outgoing(n: int, size: int = 10) -> Outgoing:
    claim = ListClaim(1, bytes(32))
    return Outgoing(n, bytes(size), EnvelopeId(n.to_bytes(16, "big")), claim, claim)


async def test_reconnecting_backs_off_with_full_jitter_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    server, slept = Server(failures=8), list[float]()
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("transport_adapters.link.asyncio.sleep", recorded)
    peer = linked(server, LinkOptions(jitter=lambda: 0.5))
    await peer.online()
    assert slept == [1, 2, 4, 8, 15, 15, 15, 15]  # half of 2, 4, 8, 16, 30, 30, ...
    server.receivers[-1].lost()
    await peer.online()
    assert slept[-1] == 0.5  # it had been connected: half of 1
    await peer.close()


async def test_connections_are_numbered_and_closed() -> None:
    server = Server()
    peer = linked(server)
    for _ in range(3):
        await peer.online()
        server.receivers[-1].lost()
    await peer.close()
    hellos = [frame for frame in server.written if isinstance(frame, Hello)]
    assert [hello.connection for hello in hellos][:3] == [1, 2, 3]
    assert len({hello.instance for hello in hellos}) == 1
    assert server.closed == len(server.receivers)


async def test_a_server_that_does_not_answer_hello_is_given_up() -> None:
    server = Server(answers=lambda *_: None)
    peer = linked(server, replace(EAGER_LINK, hello_timeout=0.01))
    await eventually(lambda: server.dials >= 3)
    await peer.close()


async def test_a_frame_that_does_not_parse_ends_the_connection_and_not_the_link() -> None:
    server = Server()
    peer = linked(server)
    await peer.online()
    server.receivers[-1].frame("deliver", {"epoch": "one"})
    await peer.online()
    await peer.close()


@pytest.mark.parametrize("code", list(CloseCode))
async def test_terminal_codes_end_the_link_and_others_do_not(code: CloseCode) -> None:
    server = Server()
    peer = linked(server)
    await peer.online()
    server.say(Error(ErrorCode.INTERNAL, "", close_code=code))
    if code.terminal:
        error = await within(peer.outcome)
        assert isinstance(error, TransportRefusedError)
        assert error.close_code == code
        with pytest.raises(TransportUnavailableError):
            await peer.transport.send(outgoing(1))
    else:
        await peer.online()
    await peer.close()


async def test_a_token_source_that_fails_is_asked_again() -> None:
    server, asked = Server(), list[int]()

    async def token() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise RuntimeError("the key server is down")
        return "token"

    cell = CursorCell()
    peer = Peer(Link(server.dial, token, cell, EAGER_LINK), cell)
    await peer.online()
    assert len(asked) == 3
    await peer.close()


async def test_a_token_source_may_end_the_link() -> None:
    async def token() -> str:
        raise TransportRefusedError("device_revoked", 4403)

    cell = CursorCell()
    peer = Peer(Link(Server().dial, token, cell, EAGER_LINK), cell)
    assert isinstance(await within(peer.outcome), TransportRefusedError)
    await peer.close()


async def test_credit_is_given_back_as_the_application_takes() -> None:
    server = Server()

    async def token() -> str:
        return "token"

    link = Link(server.dial, token, CursorCell(), EAGER_LINK)
    arrivals = link.receive()
    assert isinstance(await anext(arrivals), Connected)
    for seq in range(1, 18):
        server.say(Deliver(1, seq, bytes(100)))
    server.say(Deliver(1, 18, bytes(70_000)))
    server.say(Deliver(1, 19, b""))
    for _ in range(16):
        await anext(arrivals)
    assert server.wrote(Credit) == []  # the sixteenth is still being worked on
    await anext(arrivals)
    assert server.wrote(Credit) == [Credit(16, 1_600)]  # a quarter of the window, in messages
    await anext(arrivals)
    await anext(arrivals)
    assert server.wrote(Credit)[1:] == [Credit(2, 70_100)]  # more than a quarter of it, in bytes
    await link.aclose()


@pytest.mark.parametrize("options", [replace(EAGER_LINK, credit_messages=3), replace(EAGER_LINK, credit_bytes=399)])
async def test_a_server_that_delivers_more_than_it_may_is_left(options: LinkOptions) -> None:
    server = Server()

    async def token() -> str:
        return "token"

    link = Link(server.dial, token, CursorCell(), options)
    arrivals = link.receive()
    await anext(arrivals)
    for seq in range(1, 5):
        server.say(Deliver(1, seq, bytes(100)))
    await eventually(lambda: len(server.receivers) == 2)
    await link.aclose()


async def test_a_delivery_before_the_answer_to_hello_is_not_taken() -> None:
    server = Server(answers=lambda server, _: server.say(Deliver(1, 1, b"")))
    peer = linked(server)
    await eventually(lambda: server.dials >= 2)
    assert peer.deliveries.empty()
    await peer.close()


async def test_what_was_not_taken_when_a_connection_ended_is_not_delivered_twice() -> None:
    server = Server()

    async def token() -> str:
        return "token"

    link = Link(server.dial, token, CursorCell(), EAGER_LINK)
    arrivals = link.receive()
    await anext(arrivals)
    server.say(Deliver(1, 1, b"first"))
    server.receivers[-1].lost()
    await eventually(lambda: len(server.receivers) == 2)
    server.say(Deliver(1, 1, b"first"))
    assert isinstance(await within(anext(arrivals)), Connected)
    await within(anext(arrivals))
    server.say(Deliver(1, 2, b"second"))
    second = await within(anext(arrivals))
    assert isinstance(second, Delivery)
    assert second.seq == 2
    await link.aclose()


async def test_sends_beyond_the_window_wait_for_answers() -> None:
    server = Server()
    peer = linked(server, replace(EAGER_LINK, max_unanswered=2, max_unanswered_bytes=1_000))
    await peer.online()
    sends = [asyncio.create_task(peer.transport.send(outgoing(n, 400))) for n in range(1, 5)]
    await eventually(lambda: len(server.wrote(Send)) == 2)
    server.say(Sent(EnvelopeId((1).to_bytes(16, "big")), duplicate=False))
    await eventually(lambda: len(server.wrote(Send)) == 3)
    server.receivers[-1].lost()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(each).__name__ for each in results] == ["Accepted", *["TransportUnavailableError"] * 3]
    await peer.close()


async def test_a_server_that_leaves_a_send_unanswered_is_left_and_asked_again() -> None:
    server = Server()
    peer = linked(server, replace(EAGER_LINK, answer_timeout=0.01))
    await peer.online()
    with pytest.raises(TransportUnavailableError):
        await within(asyncio.create_task(peer.transport.send(outgoing(1))))
    await eventually(lambda: len(server.wrote(Hello)) == 2)
    await peer.close()


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_another() -> None:
    server = Server()
    peer = linked(server)
    await peer.online()
    first, second = (asyncio.create_task(peer.transport.send(outgoing(1))) for _ in range(2))
    await eventually(lambda: len(server.wrote(Send)) == 1)
    await asyncio.sleep(0)
    first.cancel()
    server.say(Sent(EnvelopeId((1).to_bytes(16, "big")), duplicate=False))
    assert (await within(second)).envelope_id == outgoing(1).envelope_id
    assert len(server.wrote(Send)) == 1
    await peer.close()


async def test_a_long_ack_is_split() -> None:
    server = Server()
    peer = linked(server)
    await peer.online()
    ranges = [SeqRange(2 * n, 2 * n) for n in range(1, MAX_ACK_RANGES + 2)]
    await peer.transport.ack(1, ranges)
    assert [len(frame.ranges) for frame in server.written if isinstance(frame, Ack)] == [MAX_ACK_RANGES, 1]
    await peer.close()


async def test_an_ack_out_of_order_is_the_callers_bug() -> None:
    link = Link(Server().dial, CursorCell(), CursorCell(), EAGER_LINK)  # type: ignore[arg-type] # never asked
    for ranges in ([SeqRange(2, 2), SeqRange(1, 1)], [SeqRange(1, 3), SeqRange(3, 4)]):
        with pytest.raises(ValueError):
            await link.ack(1, ranges)


async def test_acks_without_a_connection_are_dropped() -> None:
    link = Link(Server(failures=1_000).dial, CursorCell(), CursorCell(), EAGER_LINK)  # type: ignore[arg-type] # never asked
    await link.ack(1, [SeqRange(1, 1)])
    await link.aclose()


async def test_secrets_are_not_in_the_text_form_of_what_crosses_the_interface() -> None:
    claim = ListClaim(1, bytes(32))
    sent = Outgoing(1, b"secret", EnvelopeId(bytes(16)), claim, claim)
    assert "secret" not in repr(sent) + str(address("bob"))


REPORT = PresenceReport({UserId("bob"): PresenceState.ONLINE})


async def test_what_was_said_about_presence_is_said_again_on_every_connection() -> None:
    server = Server()
    peer = linked(server)
    await peer.online()
    said: list[Signal] = [Announce(PresenceState.ONLINE), Watch((UserId("bob"),)), Announce(PresenceState.AWAY, 10)]
    for signal in [*said, TypeTo(UserId("bob"), active=True)]:
        await peer.transport.signal(signal)
    assert len(server.wrote(frames.Presence)) == 2
    server.receivers[-1].lost()
    await peer.online()
    await eventually(lambda: len(server.wrote(frames.Watch)) == 2)
    assert server.written[-2:] == [frames.Presence(PresenceState.AWAY, 10), frames.Watch((UserId("bob"),))]
    assert len(server.wrote(frames.Typing)) == 1
    await peer.close()


async def test_presence_overtakes_deliveries_and_of_each_user_only_the_newest_waits() -> None:
    server = Server()
    link = Link(server.dial, _token, CursorCell(), EAGER_LINK)
    await link.signal(Watch((UserId("bob"),)))
    arrivals = link.receive()
    assert isinstance(await within(anext(arrivals)), Connected)
    server.say(Deliver(1, 1, b"first"))
    for state in (PresenceState.ONLINE, PresenceState.OFFLINE) * 1_000:
        server.say(PresenceReport({UserId("bob"): state}))
        server.say(PresenceReport({UserId("mallory"): state}))
    assert await within(anext(arrivals)) == PresenceSeen(UserId("bob"), PresenceState.OFFLINE)
    assert isinstance(await within(anext(arrivals)), Delivery)
    await link.aclose()


async def test_what_an_old_connection_said_of_presence_goes_with_it() -> None:
    server = Server()
    link = Link(server.dial, _token, CursorCell(), EAGER_LINK)
    await link.signal(Watch((UserId("bob"),)))
    arrivals = link.receive()
    await within(anext(arrivals))
    server.say(REPORT)
    server.receivers[-1].lost()
    await eventually(lambda: len(server.receivers) == 2)
    assert isinstance(await within(anext(arrivals)), Connected)
    await link.aclose()


async def _token() -> str:
    return "token"


async def test_a_link_ends_although_its_library_swallows_the_cancellation_that_ends_it() -> None:
    server, dialing = Server(), asyncio.Event()

    async def dial(receiver: Receiver) -> Server:
        dialing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return await server.dial(receiver)

    async def token() -> str:
        return "token"

    link = Link(dial, token, CursorCell(), EAGER_LINK)
    receiving = asyncio.create_task(anext(link.receive(), None))
    await within(dialing.wait())
    await within(link.aclose())
    assert (server.written, server.closed) == ([], 1)
    assert await within(receiving) is None
