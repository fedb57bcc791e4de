"""Linking a second device, as the two clients see it: messages by way of the key server, people asked in between.

Owns: the order of the steps, waiting for the other device, that nothing goes on without a person's word.
Does not know about: what the steps check (e2ee.linking), how a person is asked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar, final

from e2ee.errors import LinkDeclinedError, LinkExpiredError, LinkMismatchError
from e2ee.linking import ApprovalComparison, ConfirmedApproval, JoinComparison, LinkedAccount, Offer
from e2ee.primitives.rng import system_rng
from e2ee.short_authentication import Signs
from e2ee.wire.identifiers import DeviceId, UserId
from e2ee.wire.link import LinkAnswer, LinkBundle, LinkCommit, LinkId, LinkReveal, LinkSlot, parse_link_code
from keyserver.client import KeyServerClient, KeyServerRefusedError
from transport_adapters.secure_client.directory import DeviceNotListedError, Directory
from transport_adapters.secure_client.parts import Parts, TokenProvider, checked

T = TypeVar("T")

ShowCode = Callable[[LinkId], None]
"""Shows the code of a link (`e2ee.wire.link.link_code`, `link_qr_text`) to the person, who carries it over."""

Confirm = Callable[[Signs], Awaitable[bool]]
"""Shows the signs, and returns whether the person said that the other device shows the same."""

_OVER: Final = frozenset({"link_not_found", "link_slot_taken"})
"""What the server says when a link's time is up, or when somebody was there before us."""


@final
@dataclass(frozen=True, slots=True)
class LinkPace:
    """How often the server is asked for the other device's next message, in seconds."""

    poll: float = 0.5


DEFAULT_LINK_PACE: Final = LinkPace()


def milliseconds() -> int:
    """Return the system's time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@final
class Rendezvous:
    """The four places of one link at the server."""

    def __init__(self, key_server: KeyServerClient, link_id: LinkId, expires_at: int, pace: LinkPace) -> None:
        self._key_server, self._link_id, self._expires_at, self._pace = key_server, link_id, expires_at, pace

    async def put(self, slot: LinkSlot, message: bytes) -> None:
        """Write our next message.

        Raises:
            LinkExpiredError: the time is up, or the place is taken.
        """
        await self._asked(self._key_server.put_link_message(self._link_id, slot, message))

    async def take(self, slot: LinkSlot) -> bytes:
        """Wait for the other device's next message.

        Raises:
            LinkExpiredError: the time is up.
        """
        while True:
            message = await self._asked(self._key_server.link_message(self._link_id, slot))
            if message is not None:
                return message
            await self.pause()

    async def pause(self) -> None:
        """Wait before asking again.

        Raises:
            LinkExpiredError: the time is up.
        """
        if milliseconds() >= self._expires_at:
            raise LinkExpiredError
        await asyncio.sleep(self._pace.poll)

    async def _asked(self, step: Awaitable[T]) -> T:
        try:
            return await step
        except KeyServerRefusedError as refusal:
            if refusal.code in _OVER:
                raise LinkExpiredError from None
            raise


async def join(
    user_id: UserId, server: str, token_provider: TokenProvider, show: ShowCode, confirm: Confirm, pace: LinkPace
) -> tuple[LinkedAccount, int]:
    """As the new device: show a code, compare, and return what the link brought, and until when it may be finished.

    Nothing is stored. The device is neither registered nor in the list yet.

    Raises:
        LinkDeclinedError: the person did not confirm.
        LinkExpiredError, LinkMismatchError, InvalidSignatureError, AuthenticationError, MalformedMessageError: see
            `e2ee.linking`. Nothing was taken over.
        KeyServerError, TokenProviderError: the server was not reached, or refused.
    """
    offer = Offer.make(user_id, milliseconds(), system_rng)

    async def no_counter() -> int:
        raise RuntimeError("a link is carried under the host application's token alone")

    key_server = KeyServerClient(
        server, offer.address, host_token=checked(token_provider), sign=offer.sign, next_counter=no_counter
    )
    try:
        places = Rendezvous(key_server, offer.link_id, offer.expires_at, pace)
        await places.put(LinkSlot.COMMIT, offer.commit.encode())
        show(offer.link_id)
        answer = LinkAnswer.decode(await places.take(LinkSlot.ANSWER))
        comparison = offer.compare(answer, milliseconds())
        await places.put(LinkSlot.REVEAL, offer.reveal.encode())
        await _ask(comparison, confirm)
        bundle = LinkBundle.decode(await places.take(LinkSlot.BUNDLE))
        return comparison.confirm().open(bundle, milliseconds()), offer.expires_at
    finally:
        await key_server.aclose()


async def until_listed(directory: Directory, until: int, pace: LinkPace) -> None:
    """As the new device: register, publish prekeys, and wait until the approving device has put us into the list.

    Raises:
        DeviceNotListedError: it did not, until that moment (Unix milliseconds).
        KeyServerError, TokenProviderError: the server was not reached, or refused.
    """
    while True:
        try:
            return await directory.register()
        except DeviceNotListedError:
            if milliseconds() >= until:
                raise
        await asyncio.sleep(pace.poll)


async def approve(parts: Parts, directory: Directory, code: str, confirm: Confirm, pace: LinkPace) -> DeviceId:
    """As an existing device: let the device in that shows this code; return its id.

    The order matters: the account's key leaves only after a person confirmed, and the new device enters the list only
    after it was registered, which it does only after its own person confirmed.

    Raises:
        See `join`. TooManyDevicesError: there is no room.
    """
    link_id, own = parse_link_code(code), parts.messenger.own_devices
    # Its expiry is not known yet; the answer below names it.
    commit_bytes = await parts.key_server.link_message(link_id, LinkSlot.COMMIT)
    if commit_bytes is None:
        raise LinkMismatchError("the server has no first message")
    commit = LinkCommit.decode(commit_bytes)
    if commit.link_id != link_id:
        raise LinkMismatchError("a message of another link")
    await directory.sync_own_lists()
    approval = await parts.call(own.approve, commit)
    places = Rendezvous(parts.key_server, link_id, approval.expires_at, pace)
    await places.put(LinkSlot.ANSWER, approval.answer.encode())
    reveal = LinkReveal.decode(await places.take(LinkSlot.REVEAL))
    comparison = approval.compare(reveal, milliseconds())
    await _ask(comparison, confirm)
    confirmed = comparison.confirm(milliseconds())
    await places.put(LinkSlot.BUNDLE, confirmed.bundle.encode())
    await _until_registered(parts, places, confirmed)
    await directory.change_own_list(lambda: own.draft_with(confirmed.device))
    return confirmed.device.device_id


async def _ask(comparison: JoinComparison | ApprovalComparison, confirm: Confirm) -> None:
    if not await confirm(comparison.signs):
        raise LinkDeclinedError


async def _until_registered(parts: Parts, places: Rendezvous, confirmed: ConfirmedApproval) -> None:
    while True:
        registered = await parts.key_server.own_devices()
        if any(each.device_id == confirmed.device.device_id for each in registered):
            return
        await places.pause()
