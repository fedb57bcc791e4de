"""The chat's HTTP interface.

Owns: paths, what a request may look like, status codes.
Does not know about: SQL, Socket.IO.

Every path but the first two asks who it is; everything about a conversation asks whether it is the asker's.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from .accounts import Accounts, NameTakenError, NotLoggedInError, User
from .conversations import Conversations, NotAMemberError

_bearer = HTTPBearer()


class Credentials(BaseModel):
    """A name and a password."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
    password: Annotated[str, Field(min_length=8, max_length=256, repr=False)]


class Invited(BaseModel):
    """With whom a conversation is opened."""

    names: Annotated[list[Annotated[str, Field(max_length=32)]], Field(min_length=1, max_length=20)]


def authentication(accounts: Accounts) -> Any:
    """Make the dependency that says who asks."""

    def user(bearer: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> User:
        try:
            return accounts.user_of(bearer.credentials)
        except NotLoggedInError:
            raise HTTPException(401, "not_logged_in", {"WWW-Authenticate": "Bearer"}) from None

    return Depends(user)


def build_router(accounts: Accounts, conversations: Conversations) -> APIRouter:
    """Make the routes."""
    router = APIRouter()
    logged_in = authentication(accounts)

    @router.post("/register", status_code=201)
    def register(body: Credentials) -> dict[str, int]:
        try:
            return {"id": accounts.register(body.name, body.password)}
        except NameTakenError:
            raise HTTPException(409, "name_taken") from None

    @router.post("/login")
    def log_in(body: Credentials) -> dict[str, str]:
        try:
            return {"token": accounts.log_in(body.name, body.password)}
        except NotLoggedInError:
            raise HTTPException(401, "wrong_name_or_password") from None

    @router.get("/me")
    def me(user: User = logged_in) -> dict[str, Any]:
        return {"id": user.id, "name": user.name}

    @router.post("/logout", status_code=204)
    async def log_out(user: User = logged_in) -> None:
        await asyncio.to_thread(accounts.log_out, user.id)

    @router.post("/conversations", status_code=201)
    def open_conversation(body: Invited, user: User = logged_in) -> dict[str, str]:
        found = set(accounts.numbers_of(body.names)) - {user.id}
        if len(found) != len(set(body.names) - {user.name}) or not found:
            raise HTTPException(404, "no_such_user")
        return {"id": conversations.open([user.id, *sorted(found)])}

    @router.get("/conversations")
    def list_conversations(user: User = logged_in) -> list[dict[str, Any]]:
        return conversations.listed(user.id)

    @router.get("/conversations/{conversation_id}/messages")
    def history(conversation_id: str, after: int = 0, user: User = logged_in) -> list[dict[str, Any]]:
        try:
            return conversations.history(conversation_id, user.id, after)
        except NotAMemberError:
            raise HTTPException(404, "no_such_conversation") from None

    return router
