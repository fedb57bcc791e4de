"""The relay's numbers.

Owns: durations (seconds), sizes (bytes) and rates, with the defaults that docs/protocol.md names.
Does not know about: who enforces them.
"""

from dataclasses import dataclass
from typing import Final, final

from e2ee.limits import LATE_ENVELOPE_MS

KIB: Final = 1024
MIB: Final = 1024 * KIB


@final
@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """What one inbox may hold. Refused beyond it, never evicted."""

    max_envelopes: int = 20_000
    max_bytes: int = 64 * MIB
    max_dropped: int = 20_000
    """Bodiless rows that wait for delivery; beyond it the oldest are purged."""
    tombstone_ms: int = LATE_ENVELOPE_MS
    control_ttl_seconds: int = 60
    """Longest time to live in lane 0."""


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` at once, then `per_second`."""

    per_second: float
    burst: int


@final
@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How the relay treats one connection."""

    hello_timeout: float = 10.0
    token_grace: float = 25.0
    """From a token's expiry to the end of the connection."""
    reread_interval: float = 10.0
    """The safety re-read: a lost hint costs at most this, and so does a lost word of a revocation."""
    send_timeout: float = 10.0
    close_timeout: float = 2.0
    """For the last frames of a connection that the relay ends."""
    max_queued: int = 256 * KIB
    """Frames waiting for one connection, with what its transport may hold of them (`Carriage.held`)."""
    ping_interval: float = 15.0
    silence_timeout: float = 40.0
    """Without a sign of life, on transports that have no heartbeat of their own."""
    max_inbound_frames: int = 256
    max_inbound_bytes: int = 2 * MIB
    """What one client may have sent and not yet seen answered."""
    max_bad_frames: int = 10
    max_control_body: int = 8 * KIB
    control_rate: Rate = Rate(per_second=20, burst=60)
    send_rate: Rate = Rate(per_second=100, burst=1_000)
    presence_interval: float = 5.0
    """Between two renewals of the leases of all devices connected here, in one statement."""
    presence_grace: float = 2.0
    """A device that is back by then was never shown as offline; and an application's states that change faster are not
    shown one by one."""
    typing_rate: Rate = Rate(per_second=1, burst=5)
    housekeeping_interval: float = 30.0
    drain_timeout: float = 10.0
    """For what was begun when the relay closes."""


DEFAULT_MAILBOX: Final = MailboxSettings()
DEFAULT_RELAY: Final = RelaySettings()
