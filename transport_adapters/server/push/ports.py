"""What the push gateway needs of others, and what it hands to a provider.

Owns: the values and protocols.
Does not know about: who keeps subscriptions, how a provider is spoken to.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, final

from sqlalchemy import Connection

from e2ee.wire.identifiers import DeviceAddress


@final
class PushKind(StrEnum):
    """Whose service wakes a device."""

    WEB = "web"
    """Web Push (RFC 8030); UnifiedPush speaks it, too."""
    FCM = "fcm"
    APNS = "apns"


@final
@dataclass(frozen=True, slots=True)
class Subscription:
    """Where a device is woken. Whoever knows `target` can disturb its owner, so `repr` keeps it."""

    address: DeviceAddress
    kind: PushKind
    target: str = field(repr=False)
    """An https URL (WEB), or the device's token at the provider."""
    public_key: bytes = field(default=b"", repr=False)
    """WEB: p256dh, 65 bytes."""
    auth: bytes = field(default=b"", repr=False)
    """WEB: 16 bytes."""

    @property
    def host(self) -> str:
        """Whom the server speaks to: the host and port of an endpoint, or the name of a provider that has but one."""
        if self.kind is not PushKind.WEB:
            return self.kind.value
        return self.target.removeprefix("https://").partition("/")[0]


class Paused(NamedTuple):
    """The device was woken a short while ago; it may be again in so many milliseconds."""

    left_ms: int


class Subscriptions(Protocol):
    """Keeps at most one subscription of each device."""

    def claim(
        self, connection: Connection, address: DeviceAddress, now: int, pause_ms: int
    ) -> Subscription | Paused | None:
        """Return a device's subscription and note that it is woken now; None if it has none.

        Of several nodes that ask at once, one gets it, and the others a pause.
        """
        ...

    def remove(self, connection: Connection, subscription: Subscription) -> None:
        """Forget a subscription that its provider calls dead, unless the device has a newer one."""
        ...


@final
class Verdict(NamedTuple):
    """What a provider said. `retry_after` is in seconds: try again then; None: it is done with."""

    is_gone: bool = False
    retry_after: float | None = None


TAKEN = Verdict()
GONE = Verdict(is_gone=True)


class Provider(Protocol):
    """One push service."""

    async def wake(self, subscription: Subscription, *, urgent: bool) -> Verdict:
        """Ask the service to wake a device: a constant payload, whatever has come. Never raises."""
        ...

    async def aclose(self) -> None:
        """Release its connections."""
        ...
