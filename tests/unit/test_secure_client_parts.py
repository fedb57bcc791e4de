"""The small parts of the client: ranges of acknowledgements, the pace of retries, calls on the store's thread."""

import asyncio
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from transport_adapters.base import SeqRange
from transport_adapters.secure_client.inbound import ranges
from transport_adapters.secure_client.parts import Pace, StoreThread


@given(st.lists(st.integers(0, 60), min_size=1))
def test_ranges_name_exactly_the_given_numbers_and_are_as_few_as_can_be(seqs: list[int]) -> None:
    joined = ranges(sorted(seqs))
    assert {seq for each in joined for seq in range(each.first, each.last + 1)} == set(seqs)
    assert all(before.last + 1 < after.first for before, after in pairwise(joined))


def test_neighbours_and_repetitions_join() -> None:
    assert ranges([1, 2, 2, 3, 7]) == [SeqRange(1, 3), SeqRange(7, 7)]


@given(st.integers(1, 10_000))
def test_waits_double_up_to_the_longest(failures: int) -> None:
    pace = Pace(first_retry=1.0, longest_retry=60.0)
    assert pace.retry(failures) == min(2.0 ** (min(failures, 20) - 1), 60.0)


async def test_calls_run_one_after_the_other_in_the_order_of_the_calls() -> None:
    thread = StoreThread()
    seen: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.001 * (5 - number % 5))  # not to wait for something: to give a second thread its chance
        seen.append(number)

    await asyncio.gather(*(thread.call(work, number) for number in range(20)))
    assert seen == list(range(20))
    await thread.close(lambda: None)


async def test_closing_finishes_what_was_begun_runs_the_last_call_and_ends_the_thread() -> None:
    thread = StoreThread()
    seen: list[str] = []
    begun = [asyncio.ensure_future(thread.call(seen.append, text)) for text in ("one", "two")]
    await asyncio.sleep(0)
    await thread.close(lambda: seen.append("last"))
    assert seen == ["one", "two", "last"]
    await asyncio.gather(*begun)
    assert not any(each.name.startswith("e2ee-store") for each in threading.enumerate())
    with pytest.raises(RuntimeError, match="the client is closed"):
        await thread.call(seen.append, "late")


async def test_the_thread_ends_even_if_the_last_call_fails() -> None:
    thread = StoreThread()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await thread.close(fail)
    assert not any(each.name.startswith("e2ee-store") for each in threading.enumerate())
