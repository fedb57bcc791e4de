"""What the command line prints: for people, or one JSON object per line.

Owns: formats, and keeping a peer's text from steering the terminal.
Does not know about: where messages come from.
"""

import base64
import json
import sys
from datetime import datetime
from typing import final

from transport_adapters import events
from transport_adapters.secure_client.client import Message


@final
class Printer:
    """Prints results to standard output, and remarks to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json

    def result(self, text: str, **fields: object) -> None:
        """Print a command's result."""
        print(json.dumps(fields) if self._json else text, flush=True)

    def message(self, message: Message) -> None:
        """Print a received message."""
        if self._json:
            print(json.dumps(_message_fields(message)), flush=True)
            return
        moment = datetime.fromtimestamp(message.sent_at / 1000).astimezone().strftime("%H:%M")
        print(f"{moment} {message.sender}: {_readable(message.data)}", flush=True)

    def event(self, event: events.Event) -> None:
        """Print an event that a person should know of."""
        match event:
            case events.SendFailed():
                self.remark(f"a message to {event.recipient.user_id} will not arrive: {event.code}")
            case events.Unreadable() if event.sender is not None:
                self.remark(f"a message that claims to be from {event.sender.user_id} was refused: {event.code}")
            case events.TrustNeeded():
                self.remark(f"the account key of {event.user_id} has changed: compare safety numbers with them")
            case events.Expired():
                self.remark(f"a message from {event.sender.user_id} expired before this device came online")
            case events.DeviceSkipped():
                self.remark(f"device {event.device} was skipped: {event.code}")
            case _:
                pass

    def remark(self, text: str) -> None:
        """Print a remark beside the results."""
        print(f"e2ee: {text}", file=sys.stderr, flush=True)


def _message_fields(message: Message) -> dict[str, object]:
    fields: dict[str, object] = {
        "message_id": str(message.message_id),
        "sender": message.sender,
        "device": str(message.device.device_id),
        "conversation": message.conversation,
        "sent_at": message.sent_at,
    }
    match message.data:
        case str(text):
            fields["text"] = text
        case bytes(data):
            fields["base64"] = base64.b64encode(data).decode()
        case None:
            fields["unsupported"] = True
    return fields


def _readable(data: bytes | str | None) -> str:
    """Return text that cannot steer a terminal: a peer must not be able to send escape sequences."""
    if data is None:
        return "[a kind of message that this release does not know]"
    if isinstance(data, bytes):
        return f"[{len(data)} bytes; use --json]"
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in data)
