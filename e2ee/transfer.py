"""The bytes of secrets on their way to another device of the same user, before they are sealed.

Owns: the layout of what a link bundle seals.
Does not know about: how it is sealed and signed (linking.py), secrets at rest (persist.py).

What is decoded here was authenticated as coming from a device of our own; it may still be hostile, so it fails like
any bytes from outside.
"""

from dataclasses import dataclass
from typing import Final, final

from e2ee.errors import UnsupportedVersionError
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import UserId, decode_ascii, parse_user_id

_LINK_VERSION: Final = 1


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
