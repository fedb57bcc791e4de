"""What a client tells its application beside the messages themselves.

Owns: the event values that come of the network; those that come of the cryptography are `e2ee.notices`. Text for people
is the application's matter.
Does not know about: who causes them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from e2ee import notices
from e2ee.notices import Notice
from e2ee.wire.identifiers import CallId, ConversationId, DeviceAddress, EnvelopeId, MessageId, UserId
from transport_adapters.base import PresenceState

if TYPE_CHECKING:
    from transport_adapters.secure_client.calls import Call


@final
@dataclass(frozen=True, slots=True)
class Online:
    """The relay has answered; stored envelopes follow."""


@final
@dataclass(frozen=True, slots=True)
class MailboxRestarted:
    """The mailbox has another epoch: the server was restored from a backup. What it lost of this device it gets again.

    Messages that it had accepted after the backup, and had not delivered, are lost.
    """


@final
@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that waited in the inbox when we came online has been committed."""


@final
@dataclass(frozen=True, slots=True)
class Sent:
    """The server has stored a message for one device of its recipient, or its copy for another device of ours."""

    message_id: MessageId
    recipient: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class SendFailed:
    """A message will not reach one device of its recipient. `code` is stable, for example `contact_refused`.

    Told after a crash as well, then perhaps for the second time.
    """

    message_id: MessageId
    recipient: DeviceAddress
    code: str


@final
@dataclass(frozen=True, slots=True)
class DeviceSkipped:
    """A device of the recipient could not be encrypted to this time; it is tried again with the next message."""

    device: DeviceAddress
    code: str


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """A contact's device received or read messages of ours."""

    sender: UserId
    read: bool
    message_ids: tuple[MessageId, ...]


@final
@dataclass(frozen=True, slots=True)
class ReadElsewhere:
    """This user read messages of `author` on another device. Comes with the messages, while they are asked for."""

    author: UserId
    message_ids: tuple[MessageId, ...]


@final
@dataclass(frozen=True, slots=True)
class Unreadable:
    """An envelope was refused and recorded. `code` names the error; the sender is the envelope's claim."""

    sender: DeviceAddress | None
    envelope_id: EnvelopeId | None
    code: str


@final
@dataclass(frozen=True, slots=True)
class Expired:
    """An envelope for this device expired at the relay before we came online."""

    sender: DeviceAddress
    envelope_id: EnvelopeId


@final
@dataclass(frozen=True, slots=True)
class TrustNeeded:
    """A user's account key has changed, and a message of theirs waits as ciphertext, or one of ours for them; or
    another device of ours knows another key of the user than this one. A human must decide (`SecureClient.contacts`).

    The safety numbers of the pinned key and of the new one have 60 digits, and are empty if the server did not answer.
    """

    user_id: UserId
    old_safety_number: str = ""
    new_safety_number: str = ""


@final
@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A user we watch is there, away, or gone, as the server says. First told after `watch`, then when it changes."""

    user_id: UserId
    state: PresenceState


@final
@dataclass(frozen=True, slots=True)
class TypingStarted:
    """A user we watch writes to us, as the server says. Ended by `TypingStopped`, six seconds later at most if it is
    not repeated."""

    user_id: UserId
    conversation: ConversationId | None


@final
@dataclass(frozen=True, slots=True)
class TypingStopped:
    """They stopped, or nothing more was heard of it."""

    user_id: UserId
    conversation: ConversationId | None


@final
@dataclass(frozen=True, slots=True)
class CallRinging:
    """Somebody calls: `call.accept`, `call.decline`, or let it ring. If `call.glare`, we called them: just accept."""

    call: "Call"


@final
@dataclass(frozen=True, slots=True)
class CallChanged:
    """A call went on to `call.state`, or ended: `call.end` says why."""

    call: "Call"


@final
@dataclass(frozen=True, slots=True)
class CallMissed:
    """A user called and nobody answered, whether or not it rang here. Comes with the messages, while they are asked
    for, and like them perhaps twice after a crash."""

    user_id: UserId
    call_id: CallId
    at: int
    """The caller's clock, Unix milliseconds."""


OwnDevicesChanged = notices.OwnDevicesChanged
"""Comes of the network, or of what another device of ours says."""


@final
@dataclass(frozen=True, slots=True)
class Trouble:
    """Work in the background failed and is being tried again. `code` names the error."""

    code: str


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """Work in the background ended for good: nothing is sent or received until the client is opened anew.

    Asking for the next message raises the reason; `code` names it, for example `replaced` or `store_unavailable`.
    """

    code: str


Event = (
    Online
    | MailboxRestarted
    | CaughtUp
    | Sent
    | SendFailed
    | DeviceSkipped
    | Receipt
    | ReadElsewhere
    | Unreadable
    | Expired
    | TrustNeeded
    | PresenceChanged
    | TypingStarted
    | TypingStopped
    | CallRinging
    | CallChanged
    | CallMissed
    | Trouble
    | Ended
    | Notice
)
