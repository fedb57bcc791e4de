"""Linking over a whole server: a client that joins, one that approves, and people who look at both screens.

Owns: both halves run side by side, what each screen showed.
Does not know about: what a test asserts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2ee.ports import Store
from e2ee.short_authentication import Signs
from e2ee.stores.memory import MemoryStore
from e2ee.wire.link import LinkId, link_code
from tests.client_world import QUICK, Actor, ClientWorld, within
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient
from transport_adapters.secure_client.linking import LinkPace

SWIFT = LinkPace(poll=0.01)


@dataclass
class Screens:
    """What the two devices showed."""

    code: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    new: Signs | None = None
    existing: Signs | None = None

    def show(self, link_id: LinkId) -> None:
        self.code.set_result(link_code(link_id))

    async def confirm_on_new(self, signs: Signs) -> bool:
        self.new = signs
        return True

    async def confirm_on_existing(self, signs: Signs) -> bool:
        self.existing = signs
        return True


async def join(
    world: ClientWorld,
    user: str,
    screens: Screens,
    *,
    store: Store | Path | None = None,
    confirm: Callable[[Signs], Awaitable[bool]] | None = None,
    **options: Any,
) -> Actor:
    """Run the new device's half."""
    told: list[events.Event] = []
    heard = asyncio.Event()

    def note(event: events.Event) -> None:
        told.append(event)
        heard.set()

    kept = store or MemoryStore()
    given: dict[str, Any] = {"server": world.url, "token_provider": world.token(user), "transport": world.memory}
    client = await within(
        SecureClient.join(
            store=kept,
            user=user,
            show_code=screens.show,
            confirm=confirm or screens.confirm_on_new,
            on_event=note,
            pace=QUICK,
            link_pace=SWIFT,
            **given | options,
        )
    )
    world._clients.push_async_callback(client.aclose)
    assert not isinstance(kept, Path)
    return Actor(client, kept, told, heard)


async def link(world: ClientWorld, existing: Actor, screens: Screens | None = None, **options: Any) -> Actor:
    """Link a further device to an account, and bring it online."""
    screens = screens or Screens()
    joining = asyncio.create_task(join(world, existing.user, screens, **options))
    approving = asyncio.create_task(approve(existing, screens))
    actor, _ = await asyncio.gather(joining, approving)
    await within(actor.client.online())
    return actor


async def approve(existing: Actor, screens: Screens, confirm: Callable[[Signs], Awaitable[bool]] | None = None) -> None:
    """Run the existing device's half."""
    code = await within(screens.code)
    await within(existing.client.devices.approve(code, confirm or screens.confirm_on_existing, pace=SWIFT))
