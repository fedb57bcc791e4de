"""What each of these clients does, whatever carries the frames (docs/protocol.md section 13).

Owns: the frames said and understood: receive, acknowledge, reconnect once in the middle, send one envelope, leave.
Does not know about: how frames travel; a carrier says and hears them. Nothing of the project is imported.
"""

import json
import math
import os
import secrets
from collections.abc import Callable
from typing import Any

ERRAND: dict[str, Any] = json.loads(os.environ["ERRAND"])
URL: str = ERRAND["url"]
TOKEN: str = ERRAND["token"]

Say = Callable[[str, dict[str, Any]], None]


def show(**line: object) -> None:
    print(json.dumps(line), flush=True)


class Errand:
    """Keeps its place over both connections."""

    def __init__(self) -> None:
        self._instance = secrets.token_hex(16)
        self._number = self._epoch = self._watermark = self._received = 0

    def hello(self) -> dict[str, Any]:
        """Begin the next connection."""
        self._number += 1
        self._goal = ERRAND["expected"] if self._number == 2 else math.ceil(ERRAND["expected"] / 2)
        self._is_over = False
        return {
            "version": 1,
            "token": TOKEN,
            "instance": self._instance,
            "connection": self._number,
            "epoch": self._epoch,
            "watermark": self._watermark,
            "credit_messages": 4,
            "credit_bytes": 262_144,
        }

    def hear(self, name: str, fields: dict[str, Any], say: Say) -> bool:
        """Take a frame; return True once this connection has done its part."""
        match name:
            case "ping":
                say("pong", {})
            case "hello":
                self._epoch = fields["epoch"]
            case "error":
                raise SystemExit(f"{fields['code']}: {fields['detail']}")
            case "sent":
                # Frames are taken in order: this answer says that the acknowledgements before it were.
                show(sent=fields["envelope_id"], duplicate=fields["duplicate"])
                self._is_over = True
            case "deliver" if self._received < self._goal:
                self._deliver(fields, say)
        return self._is_over

    def _deliver(self, fields: dict[str, Any], say: Say) -> None:
        self._received += 1
        show(delivered=fields["envelope"])
        say("ack", {"epoch": fields["epoch"], "ranges": [[fields["seq"], fields["seq"]]]})
        say("credit", {"messages": 1, "bytes": len(fields["envelope"])})
        if fields["seq"] == self._watermark + 1:
            self._watermark = fields["seq"]
        if self._received == self._goal:
            say("send", ERRAND["send"])

    def done(self) -> None:
        show(done=self._received)
