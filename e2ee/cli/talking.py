"""`e2ee send`, `e2ee receive` and `e2ee chat`.

Owns: what each of them does with a SecureClient, and what counts as done.
Does not know about: the grammar (__main__.py), formats (output.py), what errors become (failures.py).

Standard input is read before the event loop starts, or beside it: inside, Ctrl-C would not interrupt the waiting.
"""

import asyncio
import contextlib
import sys
from typing import Final

from e2ee.cli.failures import DONE, REFUSED, UNAVAILABLE, explain
from e2ee.cli.online import Call, Line, UnansweredError, deadline_in, online
from e2ee.cli.output import Printer
from e2ee.cli.settings import UsageError
from e2ee.cli.typed import everything, lines, standard_input
from e2ee.errors import E2EEError
from e2ee.limits import MAX_APPLICATION_DATA
from e2ee.wire.content import ContentKind
from keyserver.client import KeyServerError
from transport_adapters.base import TransportError
from transport_adapters.secure_client.client import Message
from transport_adapters.secure_client.directory import UserUnreachableError

_SERVER_SECONDS: Final = 30.0
_LAST_SENDS_SECONDS: Final = 5.0
"""How long `receive` helps what an earlier command left queued."""

_NOT_SENT: Final = (E2EEError, KeyServerError, TransportError, UsageError)


def send(call: Call) -> int:
    """Send one message, and wait until the server has taken it."""
    return asyncio.run(_send_online(call, _message(call)))


async def _send_online(call: Call, data: bytes | str) -> int:
    arguments, user = call.arguments, str(call.arguments.user)
    deadline = deadline_in(arguments.timeout)
    async with online(call) as line:
        sending = line.client.send(user, data, conversation=arguments.conversation, ttl=arguments.ttl)
        try:
            message_id = await line.until(sending, deadline, f"say how to reach {user}")
        except UserUnreachableError:
            if user != call.settings.user:
                raise
            raise UsageError(f"{user} is this account itself, and it has no other device to send to") from None
        try:
            arrived = await line.until(line.settled(message_id), deadline, "take the message")
        except UnansweredError as unanswered:
            call.printer.remark(str(unanswered))
            state, text, code = "queued", f"queued for {user}: it goes out with the next command", UNAVAILABLE
        else:
            # Of a refusal, the event has told already.
            state, text, code = ("sent", f"sent to {user}", DONE) if arrived else ("refused", "", REFUSED)
    call.printer.result(text, message_id=str(message_id), recipient=user, state=state)
    return code


def _message(call: Call) -> bytes | str:
    """Return what is to be sent, from the arguments or from standard input."""
    if call.arguments.text is not None:
        if call.arguments.binary:
            raise UsageError("--binary takes the message from standard input, not as an argument")
        raw = call.arguments.text.encode(errors="surrogateescape")  # as the shell gave it
        hint = "the message is not UTF-8 text"
    else:
        if sys.stdin is not None and sys.stdin.isatty():
            call.printer.progress("type the message, then Ctrl-D")
        raw = everything(MAX_APPLICATION_DATA)
        hint = "standard input is not UTF-8 text: use --binary"
    if not raw:
        raise UsageError("the message is empty: nothing was sent")
    if len(raw) > MAX_APPLICATION_DATA:
        raise UsageError(f"a message holds at most {MAX_APPLICATION_DATA} bytes: nothing was sent")
    return raw if call.arguments.binary else _text(raw, hint)


def _text(raw: bytes, hint: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UsageError(hint) from None


def receive(call: Call) -> int:
    """Print messages: those that wait, a number of them, or all that come."""
    return asyncio.run(_receive_online(call))


async def _receive_online(call: Call) -> int:
    arguments = call.arguments
    async with online(call) as line:
        if arguments.follow:
            await line.until(_show(line, call.printer), None)
        elif arguments.count is not None:
            for _ in range(arguments.count):
                await _show_next(line, call.printer, deadline_in(arguments.timeout))
        else:
            return await _show_waiting(line, call)
    return DONE


async def _show_waiting(line: Line, call: Call) -> int:
    """Show what waits at the server, and in any case what waits in the store."""
    deadline, code = deadline_in(call.arguments.timeout or _SERVER_SECONDS), DONE
    try:
        await line.until(line.client.caught_up(), deadline, "deliver what waits")
    except UnansweredError as unanswered:
        call.printer.remark(str(unanswered))
        code = UNAVAILABLE
    # Counted beforehand: what is no message to show (a receipt) goes by without being returned.
    rows = await asyncio.to_thread(line.client.messenger.inbound)
    for _ in range(sum(1 for row in rows if row.content.kind != ContentKind.RECEIPT)):
        await _show_next(line, call.printer, None)
    if not rows:
        call.printer.progress("no messages")
    if code == DONE:
        with contextlib.suppress(UnansweredError):
            await line.until(line.client.flushed(), deadline_in(_LAST_SENDS_SECONDS), "take what was queued")
    return code


async def _show_next(line: Line, printer: Printer, deadline: float | None) -> None:
    try:
        message = await line.until(anext(line.client), deadline, "deliver a message")
    except UnansweredError:
        if not line.has_all:
            raise
        raise UnansweredError("no message came in time") from None
    await _print(message, printer)


async def _show(line: Line, printer: Printer) -> None:
    async for message in line.client:
        await _print(message, printer)


async def _print(message: Message, printer: Printer) -> None:
    """Print a message and confirm it; Ctrl-C between the two waits for the second, or it would be printed again."""
    printer.message(message)
    confirming = asyncio.ensure_future(message.done())
    try:
        await asyncio.shield(confirming)
    except asyncio.CancelledError:
        await confirming
        raise


def chat(call: Call) -> int:
    """Send the lines of standard input to one user, and print what comes."""
    standard_input()
    return asyncio.run(_chat_online(call))


async def _chat_online(call: Call) -> int:
    async with online(call) as line:
        call.printer.remark(f"talking with {call.arguments.user}; end with Ctrl-D")
        showing = asyncio.create_task(_show(line, call.printer))
        try:
            typing = asyncio.create_task(_send_lines(line, call))
            try:
                await line.until(_first_of(typing, showing), None)
            finally:
                typing.cancel()
                await asyncio.wait([typing])
            if showing.done():
                showing.result()
            code = typing.result()
            await line.until(line.client.flushed(), deadline_in(_SERVER_SECONDS), "take what was queued")
        finally:
            showing.cancel()
            await asyncio.wait([showing])
    return code


async def _send_lines(line: Line, call: Call) -> int:
    """Send each line of standard input; one that cannot be sent is told of, and the next one is tried."""
    code = DONE
    async for raw in lines():
        if not raw.strip():
            continue
        try:
            await line.client.send(call.arguments.user, _line(raw))
        except _NOT_SENT as error:
            failure = explain(error)
            call.printer.remark(f"not sent: {failure.text}")
            code = failure.exit_code
    return code


def _line(raw: bytes) -> str:
    if len(raw) > MAX_APPLICATION_DATA:
        raise UsageError(f"a message holds at most {MAX_APPLICATION_DATA} bytes")
    return _text(raw, "the line is not UTF-8 text")


async def _first_of(*tasks: "asyncio.Task[int] | asyncio.Task[None]") -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
