"""What the private layer asks the chat: who is it, who may write to whom, who may see whom.

Owns: the translation between the chat's users and the layer's.
Does not know about: keys, envelopes, HTTP.

A user's id there is the chat's number, as text: names may change, that id may not.
"""

import asyncio
import re

from e2ee.wire.identifiers import UserId
from keyserver.host_token import HostIdentity
from keyserver.problems import TokenInvalidProblem

from .accounts import Accounts, NotLoggedInError
from .conversations import Conversations


class Rules:
    """The chat's answers."""

    def __init__(self, accounts: Accounts, conversations: Conversations) -> None:
        self._accounts, self._conversations = accounts, conversations

    async def verify_host_token(self, token: str) -> HostIdentity:
        """Check a token as the chat itself does, logged-out ones included."""
        try:
            user = await asyncio.to_thread(self._accounts.user_of, token)
        except NotLoggedInError:
            raise TokenInvalidProblem from None
        return HostIdentity(str(user.id), user.since)

    async def may_contact(self, sender: UserId, recipient: UserId) -> bool:
        """Members of one conversation may write to each other."""
        one, other = number(sender), number(recipient)
        return one is not None and other is not None and await asyncio.to_thread(self._conversations.shared, one, other)

    async def may_see(self, watcher: UserId, watched: UserId) -> bool:
        """Those who may write to somebody may see whether they are there."""
        return await self.may_contact(watcher, watched)


def number(user_id: UserId) -> int | None:
    """Return the chat's number; None if it cannot be one: anybody may ask about any id."""
    return int(user_id) if re.fullmatch(r"[1-9][0-9]{0,17}", user_id) else None
