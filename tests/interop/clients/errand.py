"""What each of these clients does, whatever carries the frames (docs/protocol.md section 13).

Owns: the frames said and understood: receive, acknowledge, answer pings, reconnect once in the middle, send one
envelope on each connection, leave.
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
        self._number = self._epoch = self._watermark = self._received = self._heartbeats = 0

    def hello(self) -> dict[str, Any]:
        """Begin the next connection."""
        self._number += 1
        self._goal = ERRAND["expected"] if self._number == 2 else math.ceil(ERRAND["expected"] / 2)
        self._is_online = self._has_asked = self._is_over = False
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
                self._heartbeats += 1
            case "hello":
                self._welcome(fields)
            case "error":
                raise SystemExit(f"{fields['code']}: {fields['detail']}")
            case "sent":
                # Assumed: frames are taken in order, so this answer says that the acknowledgements before it were.
                show(sent=fields["envelope_id"], duplicate=fields["duplicate"])
                self._is_over = True
            case "deliver":
                self._deliver(fields, say)
            case _:
                pass
        is_due = self._is_online and self._received >= self._goal and self._heartbeats >= ERRAND["heartbeats"]
        if is_due and not self._has_asked:
            self._has_asked = True
            say("send", ERRAND["send"])
        return self._is_over

    def _welcome(self, fields: dict[str, Any]) -> None:
        if fields["epoch"] != self._epoch:
            self._watermark = 0
        self._epoch = fields["epoch"]
        self._watermark = max(self._watermark, fields["settled_through"])
        self._is_online = True
        show(left=fields["head_seq"] - fields["settled_through"])

    def _deliver(self, fields: dict[str, Any], say: Say) -> None:
        if self._received == self._goal:
            # The first connection leaves the rest for the second; the second must not get more than the rest.
            if self._number == 1:
                return
            raise SystemExit("more was delivered than expected")
        self._received += 1
        if "dropped" in fields:
            show(dropped=fields["envelope_id"])
        else:
            show(delivered=fields["envelope"])
        say("ack", {"epoch": fields["epoch"], "ranges": [[fields["seq"], fields["seq"]]]})
        # The bytes of the envelope, not the characters of its text.
        say("credit", {"messages": 1, "bytes": len(fields.get("envelope", "")) * 3 // 4})
        if fields["seq"] == self._watermark + 1:
            self._watermark = fields["seq"]

    def done(self) -> None:
        show(done=self._received, heartbeats=self._heartbeats)
