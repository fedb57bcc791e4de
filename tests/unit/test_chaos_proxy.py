"""The bad network that other tests rely on is as bad as it says, and no worse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos_proxy import FAIR, Admission, ChaosProxy, Weather, running
from tests.contract.relay_world import eventually, within

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Ends:
    """A proxy to a server that keeps what it is connected with."""

    def __init__(self, proxy: ChaosProxy, accepted: "asyncio.Queue[Stream]") -> None:
        self.proxy = proxy
        self.accepted = accepted
        self.streams: list[Stream] = []

    async def dial(self) -> Stream:
        near = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.streams.append(near)
        return near

    async def pair(self) -> tuple[Stream, Stream]:
        near = await self.dial()
        far = await within(self.accepted.get())
        self.streams.append(far)
        return near, far


@asynccontextmanager
async def opened(seed: int = 0) -> AsyncIterator[Ends]:
    accepted: asyncio.Queue[Stream] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with running(ChaosProxy(server.sockets[0].getsockname()[1], seed)) as proxy:
        ends = Ends(proxy, accepted)
        try:
            yield ends
        finally:
            for _, writer in ends.streams:
                writer.transport.abort()
    server.close()
    await server.wait_closed()


async def test_in_fair_weather_bytes_pass_both_ways_and_so_does_the_end() -> None:
    async with opened() as ends:
        (near, to_far), (far, to_near) = await ends.pair()
        to_far.write(bytes(range(256)) * 1000)
        assert await within(far.readexactly(256_000)) == bytes(range(256)) * 1000
        to_near.write(b"answer")
        assert await within(near.readexactly(6)) == b"answer"
        to_far.close()
        assert await within(far.read()) == b""


async def test_bytes_come_late_whole_and_in_order_in_bad_weather() -> None:
    async with opened() as ends:
        ends.proxy.weather = Weather(delay=0.001, jitter=0.002, piece=100)
        (_, to_far), (far, _) = await ends.pair()
        sent = bytes(number % 251 for number in range(5_000))
        began = asyncio.get_running_loop().time()
        to_far.write(sent)
        assert await within(far.readexactly(5_000)) == sent
        assert asyncio.get_running_loop().time() - began >= 50 * 0.001


async def test_bandwidth_bounds_what_passes_in_a_time() -> None:
    async with opened() as ends:
        ends.proxy.weather = Weather(bandwidth=100_000)
        (_, to_far), (far, _) = await ends.pair()
        began = asyncio.get_running_loop().time()
        to_far.write(bytes(20_000))
        await within(far.readexactly(20_000))
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_slow_drain_makes_its_sender_wait() -> None:
    async with opened() as ends:
        ends.proxy.weather = Weather(delay=3600, piece=100)
        (_, to_far), _ = await ends.pair()

        async def write_on() -> None:
            while True:
                to_far.write(bytes(64 * 1024))
                await to_far.drain()

        with pytest.raises(TimeoutError):
            await within(write_on(), 0.2)


async def test_a_cut_is_an_end_of_file_at_both_ends() -> None:
    async with opened() as ends:
        (near, _), (far, _) = await ends.pair()
        ends.proxy.cut()
        assert await within(near.read()) == await within(far.read()) == b""


async def test_a_reset_is_an_error_at_both_ends() -> None:
    async with opened() as ends:
        (near, _), (far, _) = await ends.pair()
        ends.proxy.reset()
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                await within(end.read())


async def test_a_half_open_connection_swallows_everything_and_tells_nobody() -> None:
    async with opened() as ends:
        (near, to_far), (far, to_near) = await ends.pair()
        ends.proxy.half_open()
        to_far.write(b"into")
        to_near.write(b"nothing")
        to_near.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await near.read()
        assert not to_far.is_closing()
        # Those that come after it pass.
        (_, to_far), (far, _) = await ends.pair()
        to_far.write(b"through")
        assert await within(far.readexactly(7)) == b"through"


async def test_new_connections_are_refused_or_swallowed_until_it_heals() -> None:
    async with opened() as ends:
        ends.proxy.admission = Admission.REFUSED
        reader, _ = await ends.dial()
        with pytest.raises(ConnectionResetError):
            await within(reader.read())
        ends.proxy.admission = Admission.SWALLOWED
        reader, writer = await ends.dial()
        writer.write(b"hello?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read()
        assert ends.accepted.empty()
        ends.proxy.heal()
        assert ends.proxy.weather == FAIR
        await ends.pair()


async def test_a_target_that_is_down_ends_the_connection() -> None:
    async with running(ChaosProxy(1)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await within(reader.read())
        writer.close()
        await eventually(lambda: not proxy.passages)


async def test_an_end_that_closes_ends_the_other_and_is_forgotten() -> None:
    async with opened() as ends:
        (_, to_far), (far, to_near) = await ends.pair()
        to_far.close()
        assert await within(far.read()) == b""
        to_near.close()
        await eventually(lambda: not ends.proxy.passages)
