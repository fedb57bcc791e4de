"""Contacts: what one device tells another of its own user about the people they know (protocol.md section 9.10).

Owns: the bytes of a contact and of a decision about one, which an export holds as well; the body of a link content.
Does not know about: sessions, who may send one, what it changes (contact_sharing.py).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from e2ee.errors import InvalidSignatureError, MalformedMessageError
from e2ee.limits import MAX_LINK_BODY
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import UserId, decode_ascii, parse_user_id
from e2ee.wire.public_keys import AccountKey

_CONTACTS: Final = 1


@final
@dataclass(frozen=True, slots=True)
class ContactEntry:
    """A contact as one device tells it: parsed, not verified."""

    user_id: UserId
    account_key: AccountKey
    """Pinned."""
    verified: bool
    """The safety number was compared, with this account key."""
    forked: bool
    device_list: SignedDeviceList
    """The newest known."""

    def encode_into(self, writer: Writer) -> None:
        """`user id u8 length | account key 32 | verified u8 | forked u8 | signed device list u16 length`."""
        writer.ascii8(self.user_id).raw(self.account_key.raw).u8(self.verified).u8(self.forked)
        writer.bytes16(self.device_list.encode())

    @classmethod
    def decode(cls, reader: Reader) -> "ContactEntry":
        """Take a contact off a reader.

        Raises:
            MalformedMessageError, InvalidPublicKeyError: it does not decode.
        """
        user_id, account_key = parse_user_id(decode_ascii(reader.bytes8())), AccountKey.decode(reader)
        verified, forked = reader.flag(), reader.flag()
        return cls(user_id, account_key, verified, forked, SignedDeviceList.decode(reader.bytes16()))

    def verify(self, owner: UserId) -> VerifiedDeviceList:
        """Check that the list is this contact's, under the pinned key, and that it is no contact with oneself.

        Raises:
            InvalidSignatureError: it is not.
        """
        verified = self.device_list.verify(self.user_id)
        if verified.content.account_key != self.account_key or self.user_id == owner:
            raise InvalidSignatureError("a contact's device list is under another account key")
        return verified


@final
@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """One line of the history of a contact (`stores.trust_records.TrustDecision`)."""

    user_id: UserId
    decision: int
    key: AccountKey
    at: int

    def encode_into(self, writer: Writer) -> None:
        """`user id u8 length | decision u8 | account key 32 | at u64`."""
        writer.ascii8(self.user_id).u8(self.decision).raw(self.key.raw).u64(self.at)

    @classmethod
    def decode(cls, reader: Reader) -> "DecisionEntry":
        """Take a decision off a reader.

        Raises:
            MalformedMessageError: it does not decode.
        """
        user_id = parse_user_id(decode_ascii(reader.bytes8()))
        return cls(user_id, reader.u8(), AccountKey.decode(reader), reader.u64())


@final
@dataclass(frozen=True, slots=True)
class LinkedContacts:
    """The body of a link content: some contacts, and what was decided about them."""

    policy: int
    """Whom the sending device sends to; 0 where the body is not for a device that has just been linked."""
    contacts: tuple[ContactEntry, ...]
    """In ascending order of user ids, each once."""
    decisions: tuple[DecisionEntry, ...]
    """About these contacts alone, oldest first."""

    def encode(self) -> bytes:
        """Encode, at most 61,440 bytes.

        | field | bytes |
        |---|---|
        | type | u8, 1 |
        | policy | u8 |
        | contacts | u16 count, then each |
        | decisions | u16 count, then each |

        Raises:
            ValueError: it is longer.
        """
        writer = Writer().u8(_CONTACTS).u8(self.policy).u16(len(self.contacts))
        for contact in self.contacts:
            contact.encode_into(writer)
        writer.u16(len(self.decisions))
        for decision in self.decisions:
            decision.encode_into(writer)
        body = writer.finish()
        if len(body) > MAX_LINK_BODY:
            raise ValueError(f"contacts take {len(body)} bytes, at most {MAX_LINK_BODY} fit")
        return body


def decode_linked(body: bytes) -> LinkedContacts | None:
    """Parse a link body; None for a type that this release does not know, which means nothing.

    Raises:
        MalformedMessageError, InvalidPublicKeyError: empty, too long, or it does not decode; contacts do not ascend; a
            decision is about somebody who is not among them.
    """
    if len(body) > MAX_LINK_BODY:
        raise MalformedMessageError("a link content is too long")
    reader = Reader(body)
    if reader.u8() != _CONTACTS:
        return None
    policy = reader.u8()
    # A count that is too high runs out of bytes: nothing is allocated by it.
    contacts = tuple(ContactEntry.decode(reader) for _ in range(reader.u16()))
    decisions = tuple(DecisionEntry.decode(reader) for _ in range(reader.u16()))
    reader.finish()
    check_contacts_ascend(contacts)
    users = {contact.user_id for contact in contacts}
    if any(decision.user_id not in users for decision in decisions):
        raise MalformedMessageError("a decision about a contact that is not told of")
    return LinkedContacts(policy, contacts, decisions)


def check_contacts_ascend(contacts: tuple[ContactEntry, ...]) -> None:
    """Check that contacts are in ascending order of user ids.

    Raises:
        MalformedMessageError: they are not, or one is there twice.
    """
    if any(later.user_id <= earlier.user_id for earlier, later in pairwise(contacts)):
        raise MalformedMessageError("contacts ascend, each once")
