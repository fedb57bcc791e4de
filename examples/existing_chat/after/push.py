"""Push notifications: what a telephone shows while the application sleeps.

Owns: the words of a notification.
Does not know about: who is away.
"""

import json
from pathlib import Path

MAX_PREVIEW = 80
PRIVATE_PREVIEW = "Private conversation"
PRIVATE_TITLE, PRIVATE_TEXT = "Chat", "New private message"


def preview(text: str) -> str:
    """Shorten a message to what a list or a notification has room for."""
    return text if len(text) <= MAX_PREVIEW else text[: MAX_PREVIEW - 1] + "…"


class Push:
    """Hands notifications to the push service, for which a file stands in here: one JSON object per line."""

    def __init__(self, file: Path) -> None:
        file.touch(mode=0o600)
        self._file = file

    def notify(self, user_id: int, title: str, text: str) -> None:
        """Wake a user's telephone. The push service reads what it carries."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"to": user_id, "title": title, "body": preview(text)}, ensure_ascii=False) + "\n")
