"""What the command line prints: for people, or one JSON object per line.

Owns: formats, and that neither a peer nor a server steers the terminal or imitates other lines.
Does not know about: where messages come from.
"""

import base64
import json
import sys
from datetime import datetime
from typing import Final, final

from e2ee import notices
from e2ee.cli.settings import UsageError
from e2ee.history_book import EntryState, HistoryEntry
from transport_adapters import events
from transport_adapters.secure_client.client import Message

_JOINERS: Final = "\u200c\u200d"
"""Zero-width, and harmless: emoji and several scripts need them."""
_INDENT: Final = "\n    "
_LATER_LINES: Final = 1_000
"""So many lines of a message are indented; the rest is joined, for a message may be nothing but ends of lines."""


@final
class OutputClosedError(Exception):
    """Whoever read standard output has gone away."""


@final
class Printer:
    """Prints results to standard output, and remarks to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not stop us

    def result(self, text: str, **fields: object) -> None:
        """Print a command's result: the fields as JSON, or the text unless it is empty."""
        if self._json or text:
            self._print(json.dumps(fields) if self._json else text)

    def message(self, message: Message) -> None:
        """Print a received message.

        Raises:
            OutputClosedError, UsageError: it was not printed.
        """
        if self._json:
            self._print(json.dumps(_message_fields(message)))
            return
        where = f" [{message.conversation}]" if message.conversation else ""
        where += " (from a removed device)" if message.from_removed_device else ""
        to = f" to {message.recipient}" if message.is_copy else ""
        self._print(f"{_moment(message.sent_at)} {message.sender}{to}{where}: {_body(message.data)}")

    def past(self, entry: HistoryEntry) -> None:
        """Print a message of the history."""
        if self._json:
            self._print(json.dumps(_entry_fields(entry)))
            return
        to = "" if entry.author == entry.peer else f" to {entry.peer}"
        state = "" if entry.state is EntryState.NEW else f" ({entry.state.name.lower()})"
        self._print(f"{_moment(entry.sent_at)} {entry.author}{to}{state}: {_body(entry.data)}")

    def event(self, event: events.Event) -> None:
        """Print an event that a person should know of."""
        if text := _of_messages(event) or _of_people_and_devices(event):
            self.remark(text)

    def remark(self, text: str) -> None:
        """Print a remark beside the results."""
        if sys.stderr is not None:  # else print would take standard output
            print(f"e2ee: {readable(text)}", file=sys.stderr, flush=True)

    def failure(self, text: str, code: str) -> None:
        """Print why a command could not do what it was asked to: a remark, and in JSON an object with its code."""
        if not self._json:
            self.remark(text)
        elif sys.stderr is not None:
            print(json.dumps({"error": code, "text": readable(text)}), file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """Print a step of something that takes a while, among the results; not into JSON."""
        if not self._json:
            self._print(text)

    def progress(self, text: str) -> None:
        """Print what takes a moment, if a person looks on."""
        if not self._json and sys.stderr is not None and sys.stderr.isatty():
            self.remark(text)

    def _print(self, line: str) -> None:
        if sys.stdout is None:
            raise UsageError("standard output is closed")
        try:
            print(line, flush=True)  # flushed here, so that the interpreter has nothing left to complain of at its end
        except BrokenPipeError:
            raise OutputClosedError from None
        except OSError as error:
            raise UsageError(f"standard output cannot be written: {error.strerror}") from None


def _of_messages(event: events.Event) -> str:
    """Return what a person should know of messages that do not arrive; mostly nothing."""
    text = ""
    match event:
        case events.SendFailed():
            text = f"a message to {event.recipient.user_id} will not arrive: {event.code}"
        case events.Unreadable() if event.sender is not None:
            text = f"a message that claims to be from {event.sender.user_id} was refused: {event.code}"
        case events.Unreadable():
            text = f"an envelope was refused: {event.code}"
        case events.Expired():
            text = f"a message from {event.sender.user_id} expired before this device came online"
        case notices.AskedAgain():
            text = f"{len(event.envelope_ids)} messages of {event.peer.user_id} were unreadable; asked again"
        case notices.MessageNotResent():
            text = f"{event.recipient.user_id} could not read a message, and it cannot be sent again"
        case _:
            pass
    return text


def _of_people_and_devices(event: events.Event) -> str:
    """Return what a person should know of keys and devices; mostly nothing."""
    text = ""
    match event:
        case events.TrustNeeded():
            text = f"the account key of {event.user_id} has changed: see 'e2ee verify {event.user_id}'"
        case events.OwnDevicesChanged():
            changes = [f"{each} is new" for each in event.added] + [f"{each} left" for each in event.removed]
            text = f"the devices of your account have changed: {', '.join(changes)}"
        case events.DeviceSkipped():
            text = f"device {event.device} was skipped: {event.code}"
        case notices.SessionReplaced():
            text = f"device {event.peer} started anew: it lost its state, or somebody has a copy of it"
        case notices.EpochStalled():
            text = f"post-quantum secrets with {event.peer} are not renewed: messages of some size get lost"
        case notices.DeviceListExpired():
            text = f"{event.user_id} has not been online for weeks, or somebody hides what has changed there"
        case notices.DeviceListsForked():
            text = f"the device lists of {event.user_id} contradict each other: nothing more is sent there"
        case notices.StoreRolledBack():
            text = "the store is older than what this device did: it was restored from a copy"
        case _:
            pass
    return text


def readable(text: str) -> str:
    """Return a text on one line that cannot steer a terminal: no escape sequences, no turning of the direction."""
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def _body(data: bytes | str | None) -> str:
    if data is None:
        return "[a kind of message that this release does not know]"
    if isinstance(data, bytes):
        return f"[{len(data)} bytes; use --json]"
    # Indented, so that the text of one message does not look like another message.
    return _INDENT.join(map(readable, data.replace("\r\n", "\n").split("\n", _LATER_LINES)))


def _moment(milliseconds: int) -> str:
    """Return the sender's time in ours. It is the sender's claim, and need not be a time at all."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return "--:--"
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def _message_fields(message: Message) -> dict[str, object]:
    fields: dict[str, object] = {
        "message_id": str(message.message_id),
        "sender": message.sender,
        "recipient": message.recipient,
        "device": str(message.device.device_id),
        "conversation": message.conversation,
        "sent_at": message.sent_at,
        "received_at": message.received_at,
    }
    if message.from_removed_device:
        fields["from_removed_device"] = True
    return fields | _data_fields(message.data)


def _entry_fields(entry: HistoryEntry) -> dict[str, object]:
    fields: dict[str, object] = {
        "message_id": str(entry.message_id),
        "author": entry.author,
        "peer": entry.peer,
        "device": str(entry.device),
        "conversation": entry.conversation,
        "sent_at": entry.sent_at,
        "received_at": entry.received_at,
        "state": entry.state.name.lower(),
        "position": entry.position,
    }
    return fields | _data_fields(entry.data)


def _data_fields(data: bytes | str | None) -> dict[str, object]:
    match data:
        case str(text):
            return {"text": text}
        case bytes(raw):
            return {"base64": base64.b64encode(raw).decode()}
        case None:
            return {"unsupported": True}
