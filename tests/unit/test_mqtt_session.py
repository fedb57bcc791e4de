"""A client's session with a broker that lies, hangs or sends rubbish."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings, strategies as st

from tests.contract.relay_world import within
from transport_adapters.base import InsecureUrlError
from transport_adapters.mqtt_session import MAX_PACKET, Account, MqttSession, NotAuthorizedError, broker_at

ACCOUNT = Account("client", "user", "secret")
ACCEPTED = bytes.fromhex("2003000000")
REFUSED = bytes.fromhex("2003008700")


@asynccontextmanager
async def fake_broker(*answers: bytes) -> AsyncIterator[str]:
    """Answer the first bytes of each connection with bytes, and wait for its end."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.writelines(answers)
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next round


async def opened(url: str, timeout: float = 5.0) -> MqttSession:
    return await MqttSession.open(broker_at(url), ACCOUNT, take=lambda _: None, timeout=timeout)


async def test_a_refused_account_is_told_from_an_unreachable_broker() -> None:
    async with fake_broker(REFUSED) as url:
        with pytest.raises(NotAuthorizedError):
            await opened(url)
    with pytest.raises(OSError, match="refused"):
        await opened(url)


async def test_a_broker_that_says_nothing_is_given_up() -> None:
    async with fake_broker() as url:
        with pytest.raises(TimeoutError):
            await opened(url, timeout=0.05)


async def test_a_packet_that_is_too_large_ends_the_session_before_it_is_read() -> None:
    begun = bytes([0x32, 0xFF, 0xFF, 0xFF, 0x7F])  # PUBLISH of 256 MiB
    async with fake_broker(ACCEPTED, begun, bytes(MAX_PACKET)) as url:
        session = await opened(url)
        await within(session.ended.wait())


@settings(max_examples=25)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_of_a_broker_do_more_than_end_the_session(rubbish: bytes, accepted: bool) -> None:
    async def meet() -> None:
        async with fake_broker((ACCEPTED if accepted else b"") + rubbish) as url:
            try:
                session = await opened(url, timeout=0.1)
            except OSError:
                return
            await asyncio.sleep(0)
            session.close()
            assert session.ended.is_set()

    asyncio.run(meet())


async def test_what_waits_for_an_answer_fails_when_the_session_ends() -> None:
    async with fake_broker(ACCEPTED) as url:
        session = await opened(url)
        waiting = session.publish("topic", b"payload")
        session.close()
        with pytest.raises(OSError, match="over"):
            await waiting
        with pytest.raises(OSError, match="over"):
            session.publish("topic", b"payload")


async def test_closing_twice_says_once_that_it_is_over() -> None:
    lost: list[None] = []
    async with fake_broker(ACCEPTED) as url:
        session = await MqttSession.open(broker_at(url), ACCOUNT, take=lambda _: None, lost=lambda: lost.append(None))
        session.close()
        session.close()
    assert lost == [None]


@pytest.mark.parametrize("url", ["mqtt://broker.example", "mqtt://192.0.2.1:1883"])
def test_plaintext_does_not_leave_this_machine(url: str) -> None:
    with pytest.raises(InsecureUrlError):
        broker_at(url)


@pytest.mark.parametrize("url", ["http://broker.example", "mqtts://", "mqtts://user:x@broker.example", "mqtts://b/x"])
def test_what_is_no_brokers_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="broker"):
        broker_at(url)


def test_ports_are_the_registered_ones_unless_given() -> None:
    assert broker_at("mqtts://broker.example").port == 8883
    assert broker_at("mqtt://localhost").port == 1883
