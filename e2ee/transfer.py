"""The bytes of secrets on their way to another device of the same user, or to a later one, before they are sealed.

Owns: the layouts of what a link bundle seals, and of what an export seals.
Does not know about: how they are sealed (linking.py, recovery.py), secrets at rest (persist.py).

What is decoded here was authenticated as coming from a device of our own; it may still be hostile, so it fails like
any bytes from outside.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from e2ee.errors import InvalidSignatureError, MalformedMessageError, UnsupportedVersionError
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import UserId, decode_ascii, parse_user_id
from e2ee.wire.public_keys import AccountKey

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
class ExportedContact:
    """A contact as an export holds it: parsed, not verified."""

    user_id: UserId
    account_key: AccountKey
    """Pinned."""
    verified: bool
    """The safety number was compared, with this account key."""
    forked: bool
    device_list: SignedDeviceList

    def encode_into(self, writer: Writer) -> None:
        """`user id u8 length | account key 32 | verified u8 | forked u8 | signed device list u16 length`."""
        writer.ascii8(self.user_id).raw(self.account_key.raw).u8(self.verified).u8(self.forked)
        writer.bytes16(self.device_list.encode())

    @classmethod
    def decode(cls, reader: Reader) -> "ExportedContact":
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
            raise InvalidSignatureError("export: a contact's device list is under another account key")
        return verified


@final
@dataclass(frozen=True, slots=True)
class ExportedDecision:
    """One line of the history of a contact (`stores.trust_records.TrustDecision`)."""

    user_id: UserId
    decision: int
    key: AccountKey
    at: int

    def encode_into(self, writer: Writer) -> None:
        """`user id u8 length | decision u8 | account key 32 | at u64`."""
        writer.ascii8(self.user_id).u8(self.decision).raw(self.key.raw).u64(self.at)

    @classmethod
    def decode(cls, reader: Reader) -> "ExportedDecision":
        """Take a decision off a reader.

        Raises:
            MalformedMessageError: it does not decode.
        """
        user_id = parse_user_id(decode_ascii(reader.bytes8()))
        return cls(user_id, reader.u8(), AccountKey.decode(reader), reader.u64())


@final
@dataclass(frozen=True, slots=True)
class ExportPayload:
    """What is left of an account without its devices. Sections of a kind that this release lacks are kept as bytes."""

    account_key_pair: AccountKeyPair
    device_list: SignedDeviceList
    """The newest of the account."""
    policy: int
    contacts: tuple[ExportedContact, ...]
    decisions: tuple[ExportedDecision, ...]
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
        contacts = tuple(ExportedContact.decode(reader) for _ in range(reader.u32()))
        decisions = tuple(ExportedDecision.decode(reader) for _ in range(reader.u32()))
        sections = tuple((reader.u8(), reader.bytes32(len(data))) for _ in range(reader.u8()))
        reader.finish()
        _check_ascending([each.user_id for each in contacts], "contacts")
        _check_ascending([kind for kind, _ in sections], "sections")
        return cls(pair, device_list, policy, contacts, decisions, sections)


def _check_ascending(keys: "list[UserId] | list[int]", what: str) -> None:
    if any(later <= earlier for earlier, later in pairwise(keys)):  # type: ignore[operator]  # both are of one kind
        raise MalformedMessageError(f"{what} of an export ascend, each once")
