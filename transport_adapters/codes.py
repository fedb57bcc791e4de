"""Why the server refuses a frame, and why it ends a connection: the codes that `error` frames hold.

Owns: the codes.
Does not know about: frames, what either end does about a code.
"""

from enum import IntEnum, StrEnum
from typing import final


@final
class ErrorCode(StrEnum):
    """Why the server refuses a frame or a connection."""

    MALFORMED_FRAME = "malformed_frame"
    HELLO_REQUIRED = "hello_required"
    HELLO_TIMEOUT = "hello_timeout"
    SILENT = "silent"
    UNKNOWN_CONNECTION = "unknown_connection"
    BODY_TIMEOUT = "body_timeout"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - the name of an error, not a secret
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of an error, not a secret
    DEVICE_REVOKED = "device_revoked"
    REPLACED = "replaced"
    TOO_LARGE = "too_large"
    SLOW_CONSUMER = "slow_consumer"
    FLOODING = "flooding"
    DRAINING = "draining"
    STALE_DEVICE_LIST = "stale_device_list"
    DEVICE_UNAVAILABLE = "device_unavailable"
    INBOX_FULL = "inbox_full"
    CONTACT_REFUSED = "contact_refused"
    RATE_LIMITED = "rate_limited"
    WRONG_SENDER = "wrong_sender"
    ACK_REFUSED = "ack_refused"
    INTERNAL = "internal"


@final
class CloseCode(IntEnum):
    """Why a connection ends. WebSocket close codes; elsewhere they ride in the last `error` frame."""

    TOKEN_EXPIRED = 4401
    REVOKED = 4403
    TIMEOUT = 4408
    REPLACED = 4409
    TOO_LARGE = 4413
    TOO_FAST_OR_SLOW = 4429
    DRAINING = 4503

    @property
    def terminal(self) -> bool:
        """True if reconnecting cannot help."""
        return self in (CloseCode.REVOKED, CloseCode.REPLACED, CloseCode.TOO_LARGE)
