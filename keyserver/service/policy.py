"""The host application's rules about who may reach whom.

Owns: the hooks and their defaults.
Does not know about: what is done with the answer.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from e2ee.wire.identifiers import UserId

ContactRule = Callable[[UserId, UserId], Awaitable[bool]]
"""(who asks, about whom) -> yes or no."""

NOBODY: Final = UserId("")
"""Not a valid user id, so no user has it: looked up in place of a user that the asker may not contact, so that a
refusal runs the same statements and gets the same answer as an unknown user."""


async def everybody(_asker: UserId, _other: UserId) -> bool:
    """The default of `may_contact`."""
    return True


async def nobody(_asker: UserId, _other: UserId) -> bool:
    """The default of `may_see`."""
    return False


class ContactPolicy(NamedTuple):
    """Who may claim from and message whom, and who may see whose presence. One's own devices always may."""

    contact: ContactRule = everybody
    see: ContactRule = nobody

    async def may_contact(self, sender: UserId, recipient: UserId) -> bool:
        return sender == recipient or await self.contact(sender, recipient)

    async def may_see(self, watcher: UserId, watched: UserId) -> bool:
        return watcher == watched or await self.see(watcher, watched)
