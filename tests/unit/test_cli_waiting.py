"""What `e2ee receive --count` says when its time is up: whether nobody wrote, or the server did not answer."""

import asyncio
from typing import Any, NoReturn

import pytest

from e2ee.cli.online import Line, UnansweredError
from e2ee.cli.output import Printer
from e2ee.cli.settings import Settings
from e2ee.cli.talking import _show_next
from transport_adapters import events


class _Silent:
    """A client to which no message comes."""

    async def __anext__(self) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError


async def remark(*heard: events.Event) -> str:
    printer = Printer(as_json=False)
    line: Any = Line(Settings("bob", "http://127.0.0.1:8440", True, None, None, None), printer, "socketio")
    line._client = _Silent()
    for event in heard:
        line._note(event)
    with pytest.raises(UnansweredError) as unanswered:
        await _show_next(line, printer, asyncio.get_running_loop().time())
    return str(unanswered.value)


async def test_when_the_server_has_delivered_all_nobody_wrote() -> None:
    assert await remark(events.CaughtUp()) == "no message came in time"


async def test_a_server_that_was_not_heard_is_named() -> None:
    assert await remark() == "http://127.0.0.1:8440 did not deliver a message in time"
