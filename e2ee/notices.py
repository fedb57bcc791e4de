"""What happened by itself and people may want to know. Values; an application turns them into text.

Owns: the notices.
Does not know about: who causes them, who shows them.
"""

from dataclasses import dataclass
from typing import final

from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, MessageId, UserId


@final
@dataclass(frozen=True, slots=True)
class SessionReplaced:
    """A device of a contact started a new session although there was one: it lost its state, or somebody has a copy."""

    peer: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class AskedAgain:
    """Messages of this device could not be read, and it was asked to send them again."""

    peer: DeviceAddress
    envelope_ids: tuple[EnvelopeId, ...]


@final
@dataclass(frozen=True, slots=True)
class MessageResent:
    """A message of ours was encrypted anew for a device: it could not read it, or is new in its user's list."""

    message_id: MessageId
    recipient: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class MessageNotResent:
    """A device could not read a message of ours, and it is not sent again: too late, or 3 times already."""

    message_id: MessageId
    recipient: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class StoreRolledBack:
    """The store is older than what this device did: somebody restored a copy. Sessions are made anew."""


@final
@dataclass(frozen=True, slots=True)
class EpochStalled:
    """Post-quantum secrets with this device are not renewed although messages pass: somebody may be dropping some."""

    peer: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class DeviceListExpired:
    """The server has no list of this user that has not expired: all devices have been away for weeks, or somebody keeps
    back that one of them was removed. Sending goes on; the user does not count as verified meanwhile."""

    user_id: UserId


@final
@dataclass(frozen=True, slots=True)
class OwnDevicesChanged:
    """The list of our own devices has changed, here or on another of them. Show it: a device that nobody added is not
    ours.
    """

    added: tuple[DeviceId, ...]
    removed: tuple[DeviceId, ...]


@final
@dataclass(frozen=True, slots=True)
class ContactsShared:
    """Another device of ours told of contacts: these are new here, or something else is known of them now."""

    device: DeviceAddress
    users: tuple[UserId, ...]


@final
@dataclass(frozen=True, slots=True)
class DeviceListsForked:
    """Two device lists of a user contradict each other: the server shows several, or somebody else signs them.

    Nothing more is sent to the user; if it is our own user, no copies to our other devices. Ask over another channel.
    """

    user_id: UserId


@final
@dataclass(frozen=True, slots=True)
class ContactsTold:
    """A device that was linked to our account was told of all contacts: that is queued for it."""

    device: DeviceAddress


@final
@dataclass(frozen=True, slots=True)
class AccountKeysDiffer:
    """Another device of ours knows a user under another account key than this one: a human must decide."""

    user_id: UserId


Notice = (
    SessionReplaced
    | AskedAgain
    | MessageResent
    | MessageNotResent
    | StoreRolledBack
    | EpochStalled
    | DeviceListExpired
    | DeviceListsForked
    | OwnDevicesChanged
    | ContactsShared
    | ContactsTold
    | AccountKeysDiffer
)
