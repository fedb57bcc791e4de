"""The chat's client with private conversations beside the ordinary ones.

Shows: SecureClient next to the client that the chat has, whose login it uses; what an application keeps itself.

Three rules are here because no server can keep them. Once a conversation is private, nothing goes out in plaintext
there again, whatever the server says. A message counts for a conversation only if it is from the one other member:
the layer proves who sent it, and its conversation is the sender's word. Who that member is, is noted once.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from pathlib import Path
from typing import Any, Self

import httpx
from socketio.exceptions import SocketIOError

from e2ee.wire.identifiers import UserId
from transport_adapters import Message, SecureClient
from transport_adapters.secure_client.parts import OnEvent

from ..client import ChatClient, RefusedError
from .history import History, Kept

_logger = logging.getLogger(__name__)


class NotBetweenTwoError(Exception):
    """The conversation is not between this user and one other, so it cannot be private."""


class PrivateClient:
    """One user's client. `arrived` yields private messages as they come; `history` has them all."""

    def __init__(self, chat: ChatClient, secure: SecureClient, history: History) -> None:
        self.chat, self.secure, self.history = chat, secure, history
        self.arrived: asyncio.Queue[Kept] = asyncio.Queue()
        self.receiving = asyncio.create_task(self._receive())
        """Ends with the client, or raises what stopped it: a disk that is full, a login on another device."""

    @classmethod
    async def open(cls, chat: ChatClient, directory: Path, key: bytes, on_event: OnEvent | None = None) -> Self:
        """Open this user's device, or make it, beside a client that is logged in.

        `key` is 32 random bytes that the application keeps where the system keeps secrets (Keychain, Keystore, Secret
        Service). It opens the device and the history. `on_event` hears of what a person must decide or should see.
        """
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        history = History(directory / "history.db", hmac.digest(key, b"chat: history", "sha256"))
        try:
            secure = await SecureClient.open(
                store=directory / "device.db",
                key=hmac.digest(key, b"chat: device", "sha256"),
                user=str(chat.user_id),
                server=chat.server,
                token_provider=chat.token,
                on_event=on_event,
            )
        except BaseException:
            history.close()
            raise
        return cls(chat, secure, history)

    async def make_private(self, conversation: str) -> None:
        """Switch a conversation to private. Both members need a device; there is no way back."""
        await self.chat.make_private(conversation)
        await self._learn(conversation)

    async def say(self, conversation: str, text: str) -> None:
        """Say something: in private where that is the rule, as ever where it is not."""
        peer = self.history.peer(conversation)
        if peer is None:
            try:
                await self.chat.say(conversation, text)
                return
            except RefusedError as refusal:
                if refusal.args != ("private_conversation",):
                    raise
            peer = await self._learn(conversation)  # the other member has switched it
        message_id = await self.secure.send(peer, text, conversation=conversation)
        now = time.time_ns() // 1_000_000
        self.history.keep(Kept(message_id, self._me, conversation, now, text), unread=False)
        with contextlib.suppress(RefusedError, SocketIOError):  # only a push notification is lost
            await self.chat.emit("sent", conversation=conversation)

    async def read(self, message: Kept) -> None:
        """Note that a message was read, and tell its sender, in private as well."""
        self.history.read(message)
        await self.secure.mark_read(message)

    async def conversations(self) -> list[dict[str, Any]]:
        """Return the list of conversations, the newest first: what the server cannot say is filled in here."""
        listed = await self.chat.conversations()
        for each in listed:
            if each.get("private") and self.history.peer(each["id"]) is None:
                self._note(each)
            if self.history.peer(each["id"]) is not None:
                kept = self.history.messages(each["id"])
                each["private"], each["unread"] = True, len(self.history.messages(each["id"], unread=True))
                if kept:
                    each["preview"], each["last_at"] = kept[-1].text, kept[-1].sent_at
        return sorted(listed, key=lambda each: -each["last_at"])

    async def safety_number(self, conversation: str) -> str:
        """Return the 60 digits that both members see alike, if nobody is between them."""
        peer = self.history.peer(conversation)
        if peer is None:
            raise NotBetweenTwoError
        return await self.secure.contacts.safety_number(peer)

    async def aclose(self) -> None:
        """Go offline. The chat's own client stays as it is."""
        self.receiving.cancel()
        await asyncio.gather(self.receiving, return_exceptions=True)
        await self.secure.aclose()
        self.history.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    @property
    def _me(self) -> UserId:
        return self.secure.address.user_id

    async def _receive(self) -> None:
        async for message in self.secure:
            # Asking for the next message confirms this one, so it is kept first.
            if not await self._belongs(message):
                _logger.warning("A private message of %s is not of their conversation with us", message.sender)
            elif isinstance(message.data, str):
                kept = Kept(message.message_id, message.sender, message.conversation, message.sent_at, message.data)
                if self.history.keep(kept, unread=True):
                    self.arrived.put_nowait(kept)

    async def _belongs(self, message: Message) -> bool:
        """Say whether the sender is the other member of the conversation it names."""
        while True:
            try:
                return await self._learn(message.conversation) == message.sender
            except NotBetweenTwoError:
                return False
            except (httpx.TransportError, RefusedError):
                await asyncio.sleep(1)  # not known yet; until then the message is not confirmed

    async def _learn(self, conversation: str) -> UserId:
        """Return the other member, noted once and for all."""
        if self.history.peer(conversation) is None:
            for each in await self.chat.conversations():
                if each["id"] == conversation:
                    self._note(each)
        peer = self.history.peer(conversation)
        if peer is None:
            raise NotBetweenTwoError
        return peer

    def _note(self, listed: dict[str, Any]) -> None:
        others = [person["id"] for person in listed["members"] if person["id"] != self.chat.user_id]
        if len(others) == 1 and len(listed["members"]) == 2:
            self.history.pin(listed["id"], UserId(str(others[0])))
