"""The chat's Socket.IO events: message, typing, read.

Owns: what an event may look like, who hears of it.
Does not know about: SQL.

Who connects says who it is, once. Every event asks whether the conversation is the sender's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import socketio
from pydantic import BaseModel, Field, ValidationError

from .accounts import Accounts, NotLoggedInError
from .conversations import Conversations, NotAMemberError, PrivateConversationError
from .push import PRIVATE_TEXT, PRIVATE_TITLE, Push

ConversationId = Annotated[str, Field(max_length=32)]


class Said(BaseModel):
    """Event `message`."""

    conversation: ConversationId
    text: Annotated[str, Field(min_length=1, max_length=4000, repr=False)]


class Typing(BaseModel):
    """Event `typing`."""

    conversation: ConversationId


class Read(BaseModel):
    """Event `read`."""

    conversation: ConversationId
    message: Annotated[int, Field(ge=0, lt=2**63)]


class Sent(BaseModel):
    """Event `sent`: a private message is on its way. It says nothing else."""

    conversation: ConversationId


class Live:
    """The events, on a Socket.IO server."""

    def __init__(self, sio: socketio.AsyncServer, accounts: Accounts, conversations: Conversations, push: Push) -> None:
        self._sio, self._accounts, self._conversations, self._push = sio, accounts, conversations, push
        sio.on("connect", self._connect)
        sio.on("disconnect", self._disconnect)
        sio.on("message", self._answering(Said, self._message))
        sio.on("typing", self._answering(Typing, self._typing))
        sio.on("read", self._answering(Read, self._read))
        sio.on("sent", self._answering(Sent, self._sent))

    async def _connect(self, sid: str, _environ: dict[str, Any], auth: object) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        try:
            user = await asyncio.to_thread(self._accounts.user_of, token if isinstance(token, str) else "")
        except NotLoggedInError:
            raise socketio.exceptions.ConnectionRefusedError("not_logged_in") from None
        await self._sio.save_session(sid, {"user": user})
        await self._sio.enter_room(sid, room(user.id))
        await asyncio.to_thread(self._accounts.count_connection, user.id, 1)

    async def _disconnect(self, sid: str, _reason: str) -> None:
        user = (await self._sio.get_session(sid))["user"]
        await self._sio.leave_room(sid, room(user.id))  # the library does so too, after this
        await asyncio.to_thread(self._accounts.count_connection, user.id, -1)

    async def _message(self, sid: str, said: Said) -> dict[str, Any]:
        user = (await self._sio.get_session(sid))["user"]
        message = await asyncio.to_thread(self._conversations.add, said.conversation, user.id, said.text)
        for user_id in await self._others(said.conversation, user.id):
            if any(self._sio.manager.get_participants("/", room(user_id))):
                await self._sio.emit("message", message, to=room(user_id))
            else:
                await asyncio.to_thread(self._push.notify, user_id, user.name, said.text)
        return {"id": message["id"]}

    async def _typing(self, sid: str, typing: Typing) -> dict[str, Any]:
        user = (await self._sio.get_session(sid))["user"]
        for user_id in await self._others(typing.conversation, user.id):
            await self._sio.emit("typing", {**typing.model_dump(), "user": user.id}, to=room(user_id))
        return {}

    async def _read(self, sid: str, read: Read) -> dict[str, Any]:
        user = (await self._sio.get_session(sid))["user"]
        await asyncio.to_thread(self._conversations.read, read.conversation, user.id, read.message)
        for user_id in await self._others(read.conversation, user.id):
            await self._sio.emit("read", {**read.model_dump(), "user": user.id}, to=room(user_id))
        return {}

    async def _sent(self, sid: str, sent: Sent) -> dict[str, Any]:
        user = (await self._sio.get_session(sid))["user"]
        if not await asyncio.to_thread(self._conversations.is_private, sent.conversation, user.id):
            return {"error": "not_private"}
        for user_id in await self._others(sent.conversation, user.id):
            if not any(self._sio.manager.get_participants("/", room(user_id))):
                await asyncio.to_thread(self._push.notify, user_id, PRIVATE_TITLE, PRIVATE_TEXT)
        return {}

    async def _others(self, conversation_id: str, user_id: int) -> list[int]:
        everybody = await asyncio.to_thread(self._conversations.members, conversation_id, user_id)
        return [each for each in everybody if each != user_id]

    @staticmethod
    def _answering(
        model: type[BaseModel], event: Callable[[str, Any], Awaitable[dict[str, Any]]]
    ) -> Callable[..., Awaitable[dict[str, Any]]]:
        """Check an event's form before it is looked at, and answer what is refused."""

        async def answered(sid: str, payload: object = None, *_more: object) -> dict[str, Any]:
            try:
                return await event(sid, model.model_validate(payload))
            except ValidationError:
                return {"error": "bad_request"}
            except NotAMemberError:
                return {"error": "no_such_conversation"}
            except PrivateConversationError:
                return {"error": "private_conversation"}

        return answered


def room(user_id: int) -> str:
    """Return the room of all of a user's connections."""
    return f"user {user_id}"
