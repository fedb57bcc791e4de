"""What this device keeps of private conversations: nobody else has it.

Owns: the messages, sealed one by one; which conversation is private, and with whom.
Does not know about: the network, how messages are shown.

The layer hands a message over and forgets it, and the server deletes what was confirmed: keeping it is the
application's matter. Texts are sealed with AES-256-GCM, each with the columns beside it as associated data. Who steals
the file sees numbers, times and sizes.
"""

import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from e2ee.wire.identifiers import MessageId, UserId

_SCHEMA = """
CREATE TABLE IF NOT EXISTS peers (conversation TEXT PRIMARY KEY, peer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY,
    sender TEXT NOT NULL, message_id BLOB NOT NULL, conversation TEXT NOT NULL, sent_at INTEGER NOT NULL,
    nonce BLOB NOT NULL, sealed BLOB NOT NULL, unread INTEGER NOT NULL,
    UNIQUE (sender, message_id)
);
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """One message. `sent_at` is Unix milliseconds, by the sender's clock."""

    message_id: MessageId
    sender: UserId
    conversation: str
    sent_at: int
    text: str = field(repr=False)


class History:
    """The file. Calls are short, and block."""

    def __init__(self, file: Path, key: bytes) -> None:
        """Open it, or make it, under a key of 32 bytes."""
        file.touch(mode=0o600)
        self._sealing = AESGCM(key)
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.executescript(_SCHEMA)

    def pin(self, conversation: str, peer: UserId) -> None:
        """Note for good that a conversation is private, and with whom. The first note counts."""
        self._database.execute("INSERT OR IGNORE INTO peers VALUES (?, ?)", (conversation, peer))

    def peer(self, conversation: str) -> UserId | None:
        """Return with whom a private conversation is; None if it is not known to be private."""
        row = self._database.execute("SELECT peer FROM peers WHERE conversation = ?", (conversation,)).fetchone()
        return None if row is None else UserId(row[0])

    def keep(self, message: Kept, *, unread: bool) -> bool:
        """Keep a message. False if it is kept already: the layer may hand one over twice."""
        nonce = os.urandom(12)
        sealed = self._sealing.encrypt(nonce, message.text.encode(), _beside(message))
        values = (message.sender, message.message_id.raw, message.conversation, message.sent_at, nonce, sealed, unread)
        # By sender as well: an id is the sender's to choose.
        return self._database.execute(_KEEP, values).rowcount == 1

    def messages(self, conversation: str, *, unread: bool = False) -> list[Kept]:
        """Return the messages of a conversation, in the order in which they came; or only those not read."""
        rows = self._database.execute(_MESSAGES, (conversation, unread))
        return [self._opened(*row) for row in rows]

    def read(self, message: Kept) -> None:
        """Note that a message was read."""
        name = (message.sender, message.message_id.raw)
        self._database.execute("UPDATE messages SET unread = 0 WHERE sender = ? AND message_id = ?", name)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _opened(self, sender: str, message_id: bytes, conversation: str, at: int, nonce: bytes, sealed: bytes) -> Kept:
        bare = Kept(MessageId(message_id), UserId(sender), conversation, at, "")
        text = self._sealing.decrypt(nonce, sealed, _beside(bare)).decode()
        return Kept(bare.message_id, bare.sender, conversation, at, text)


_KEEP = """
INSERT OR IGNORE INTO messages (sender, message_id, conversation, sent_at, nonce, sealed, unread)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_MESSAGES = """
SELECT sender, message_id, conversation, sent_at, nonce, sealed FROM messages
WHERE conversation = ? AND unread >= ? ORDER BY number
"""


def _beside(message: Kept) -> bytes:
    return json.dumps([message.sender, str(message.message_id), message.conversation, message.sent_at]).encode()
