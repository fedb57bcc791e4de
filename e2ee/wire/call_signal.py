"""Call signals: the bodies of contents of kind 7 (protocol.md section 9.8).

Owns: their bytes, which of them carry what.
Does not know about: which signal is allowed when (the application's side), media.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_CALL_DATA
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import CallId, DeviceId


@final
class CallAction(IntEnum):
    """What a signal says."""

    RING = 1
    """From the calling device to all devices of the other user."""
    ACCEPT = 2
    DECLINE = 3
    """One device's answer, to all devices of the caller."""
    HANG_UP = 4
    """From either end: the call is over, or is not wanted any more."""
    ANSWERED = 5
    """From the calling device: whose answer counts; all other devices stop ringing."""
    MISSED = 6
    """From the calling device, for whoever comes online later: there was a call that nobody answered."""


@final
@dataclass(frozen=True, slots=True)
class CallSignal:
    """One signal. `device_id` is there for ANSWERED and only there; `data` is the application's, opaque."""

    call_id: CallId
    action: CallAction
    data: bytes = field(default=b"", repr=False)
    device_id: DeviceId | None = None

    def __post_init__(self) -> None:
        if len(self.data) > MAX_CALL_DATA:
            raise ValueError(f"a call signal holds at most {MAX_CALL_DATA} bytes, not {len(self.data)}")
        if (self.device_id is not None) is not (self.action is CallAction.ANSWERED):
            raise ValueError("a device is named by ANSWERED, and by nothing else")

    def encode(self) -> bytes:
        """`call id 16 | action u8 | device id 16, if ANSWERED | data`: the rest, 0 to 3,840 bytes."""
        writer = Writer().raw(self.call_id.raw).u8(self.action)
        if self.device_id is not None:
            writer.raw(self.device_id.raw)
        return writer.raw(self.data).finish()

    @classmethod
    def decode(cls, body: bytes) -> "CallSignal":
        """Parse a body.

        Raises:
            MalformedMessageError: unknown action, truncated, or more than 3,840 bytes of data.
        """
        reader = Reader(body)
        call_id, action = CallId.decode(reader), reader.u8()
        if action not in set(CallAction):
            raise MalformedMessageError("action of a call signal")
        device_id = DeviceId.decode(reader) if action == CallAction.ANSWERED else None
        data = body[reader.position() :]
        if len(data) > MAX_CALL_DATA:
            raise MalformedMessageError("data of a call signal is too long")
        return cls(call_id, CallAction(action), data, device_id)
