"""The bytes of secrets on their way to another device of the same user, or to a later one, before they are sealed.

Owns: the layouts of what a link bundle seals, and of what an export seals.
Does not know about: how they are sealed (linking.py, recovery.py), secrets at rest (persist.py).

What is decoded here was authenticated as coming from a device of our own; it may still be hostile, so it fails like
any bytes from outside.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from e2ee.errors import MalformedMessageError, UnsupportedVersionError
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.contacts import ContactEntry, DecisionEntry, check_contacts_ascend
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import UserId, decode_ascii, parse_user_id

_LINK_VERSION: Final = 1
_EXPORT_VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True)
class LinkPayload:
    """What a new device needs to belong to an account."""

    user_id: UserId
    account_key_pair: AccountKeyPair
    device_list: SignedDeviceList
    """The newest, without the new device."""

    def encode(self) -> bytes:
        """`0x01 | user id u8 length | account private key 32 | signed device list u16 length`."""
        writer = Writer().u8(_LINK_VERSION).ascii8(self.user_id).raw(self.account_key_pair.seed.expose())
        return writer.bytes16(self.device_list.encode()).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkPayload":
        """Parse what was unsealed.

        Raises:
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: it is no payload.
        """
        reader = Reader(data)
        version = reader.u8()
        if version != _LINK_VERSION:
            raise UnsupportedVersionError("link payload", version)
        user_id, seed = parse_user_id(decode_ascii(reader.bytes8())), reader.fixed(SeedBytes32.LENGTH)
        device_list = SignedDeviceList.decode(reader.bytes16())
        reader.finish()
        return cls(user_id, AccountKeyPair(SeedBytes32(seed)), device_list)


@final
@dataclass(frozen=True, slots=True)
class ExportPayload:
    """What is left of an account without its devices. Sections of a kind that this release lacks are kept as bytes."""

    account_key_pair: AccountKeyPair
    device_list: SignedDeviceList
    """The newest of the account."""
    policy: int
    contacts: tuple[ContactEntry, ...]
    decisions: tuple[DecisionEntry, ...]
    sections: tuple[tuple[int, bytes], ...] = ()
    """For what comes later, such as the history: (kind, bytes), in ascending order of kinds, each once."""

    def encode(self) -> bytes:
        """Encode.

        | field | bytes |
        |---|---|
        | version | u8, 0x01 |
        | account private key | 32 |
        | newest device list | u16 length |
        | policy | u8 |
        | contacts | u32 count, then each |
        | decisions | u32 count, then each |
        | sections | u8 count, then kind u8 and bytes with u32 length each |
        """
        writer = Writer().u8(_EXPORT_VERSION).raw(self.account_key_pair.seed.expose())
        writer.bytes16(self.device_list.encode()).u8(self.policy).u32(len(self.contacts))
        for contact in self.contacts:
            contact.encode_into(writer)
        writer.u32(len(self.decisions))
        for decision in self.decisions:
            decision.encode_into(writer)
        writer.u8(len(self.sections))
        for kind, data in self.sections:
            writer.u8(kind).bytes32(data)
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> "ExportPayload":
        """Parse what was unsealed.

        Raises:
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: it is no payload.
        """
        reader = Reader(data)
        version = reader.u8()
        if version != _EXPORT_VERSION:
            raise UnsupportedVersionError("export payload", version)
        pair = AccountKeyPair(SeedBytes32(reader.fixed(SeedBytes32.LENGTH)))
        device_list, policy = SignedDeviceList.decode(reader.bytes16()), reader.u8()
        # A count that is too high runs out of bytes: nothing is allocated by it.
        contacts = tuple(ContactEntry.decode(reader) for _ in range(reader.u32()))
        decisions = tuple(DecisionEntry.decode(reader) for _ in range(reader.u32()))
        sections = tuple((reader.u8(), reader.bytes32(len(data))) for _ in range(reader.u8()))
        reader.finish()
        check_contacts_ascend(contacts)
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(sections)):
            raise MalformedMessageError("sections of an export ascend, each once")
        return cls(pair, device_list, policy, contacts, decisions, sections)
