"""What two devices of one user say to each other while one is linked (protocol.md section 15).

Owns: the bytes of the four messages, the commitment, the transcript, what is signed, the code that a person carries.
Does not know about: private keys, who may link what, the server that carries the messages.

    new device                                   existing device
      1 commit   link id, C            -------->
                 <--------  answer     2  user id, account key, device id, device signing key, nonce
      3 reveal   what C is of          -------->   checks C
        both derive L from 1, 2 and 3; two people compare what follows from it
                 <--------  bundle     4  sealed to the key in 3 with L, signed with L
"""

import hmac
from base64 import b32decode, b32encode
from binascii import Error as BadBase32
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, final

from e2ee.errors import LinkMismatchError, MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_LINK_MESSAGE
from e2ee.primitives import kdf
from e2ee.primitives.verify import SIGNATURE_LENGTH, verify
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import ListedDevice
from e2ee.wire.identifiers import DeviceId, FixedBytes, UserId, decode_ascii, parse_user_id
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey, LinkKey

COMMIT_LABEL: Final = b"E2EE/1 link commit"
TRANSCRIPT_LABEL: Final = b"E2EE/1 link transcript"
LINK_INFO: Final = b"E2EE/1 link"
"""In front of L as the info of HPKE."""

BUNDLE_LABEL: Final = b"E2EE/1 link bundle"
CODE_LABEL: Final = b"E2EE/1 link code"
CODE_PREFIX: Final = "E2EE1-LINK:"
"""In front of the base32 in a QR code; all of it is in the code's alphanumeric set."""

_VERSION: Final = 1
_CHECK: Final = 4
"""Bytes of the code that tell a mistyped one."""


@final
class LinkSlot(IntEnum):
    """The four messages, in their order. A server keeps each in a place that is written once."""

    COMMIT = 1
    ANSWER = 2
    REVEAL = 3
    BUNDLE = 4


@final
class LinkId(FixedBytes):
    """16 random bytes drawn by the new device: one attempt to link."""

    __slots__ = ()


@final
class LinkNonce(FixedBytes):
    """32 random bytes, so that neither end alone decides on L."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32


@final
class LinkCommitment(FixedBytes):
    """C: SHA-256 of what the new device will reveal, so that it cannot choose it after the answer."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32


@final
class LinkTranscript(FixedBytes):
    """L: SHA-256 over the first three messages. Both ends have the same, or somebody stands between."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32

    @property
    def info(self) -> bytes:
        """What the bundle is sealed with: `"E2EE/1 link" | L`."""
        return LINK_INFO + self.raw


@final
@dataclass(frozen=True, slots=True)
class LinkCommit:
    """Message 1, of the new device."""

    link_id: LinkId
    commitment: LinkCommitment

    def encode(self) -> bytes:
        """`0x01 0x01 | link id 16 | C 32`."""
        return _opened(LinkSlot.COMMIT, self.link_id).raw(self.commitment.raw).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkCommit":
        """Parse message 1.

        Raises:
            MalformedMessageError, UnsupportedVersionError: it is none.
        """
        reader, link_id = _reader(data, LinkSlot.COMMIT)
        parsed = cls(link_id, LinkCommitment.decode(reader))
        reader.finish()
        return parsed


@final
@dataclass(frozen=True, slots=True)
class LinkAnswer:
    """Message 2, of the existing device: whose account it is, and who answers."""

    link_id: LinkId
    user_id: UserId
    account_key: AccountKey
    device_id: DeviceId
    device_signing_key: DeviceSigningKey
    nonce: LinkNonce

    def encode(self) -> bytes:
        """`0x01 0x02 | link id 16 | user id | account key 32 | device id 16 | device signing key 32 | nonce 32`."""
        writer = _opened(LinkSlot.ANSWER, self.link_id).ascii8(self.user_id).raw(self.account_key.raw)
        return writer.raw(self.device_id.raw).raw(self.device_signing_key.raw).raw(self.nonce.raw).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkAnswer":
        """Parse message 2.

        Raises:
            MalformedMessageError, UnsupportedVersionError: it is none.
        """
        reader, link_id = _reader(data, LinkSlot.ANSWER)
        user_id, account_key = parse_user_id(decode_ascii(reader.bytes8())), AccountKey.decode(reader)
        device_id, signing_key = DeviceId.decode(reader), DeviceSigningKey.decode(reader)
        parsed = cls(link_id, user_id, account_key, device_id, signing_key, LinkNonce.decode(reader))
        reader.finish()
        return parsed


@final
@dataclass(frozen=True, slots=True)
class LinkReveal:
    """Message 3, of the new device: its keys, and the key to seal the bundle to."""

    link_id: LinkId
    link_key: LinkKey
    device: ListedDevice
    nonce: LinkNonce

    def encode(self) -> bytes:
        """`0x01 0x03 | link id 16 | HPKE key 1216 | device id 16 | signing key 32 | identity key 32 | nonce 32`."""
        return _opened(LinkSlot.REVEAL, self.link_id).raw(self._committed()).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkReveal":
        """Parse message 3.

        Raises:
            MalformedMessageError, UnsupportedVersionError: it is none.
            InvalidPublicKeyError: the identity key is not canonical.
        """
        reader, link_id = _reader(data, LinkSlot.REVEAL)
        link_key, device_id = LinkKey.decode(reader), DeviceId.decode(reader)
        device = ListedDevice(device_id, DeviceSigningKey.decode(reader), IdentityKey.decode(reader))
        parsed = cls(link_id, link_key, device, LinkNonce.decode(reader))
        reader.finish()
        return parsed

    def commitment(self) -> LinkCommitment:
        """Return C: SHA-256 of label and all fields after the link id."""
        return LinkCommitment(kdf.sha256(Writer().bytes8(COMMIT_LABEL).raw(self._committed()).finish()))

    def _committed(self) -> bytes:
        device = self.device
        writer = Writer().raw(self.link_key.raw).raw(device.device_id.raw).raw(device.device_signing_key.raw)
        return writer.raw(device.identity_key.raw).raw(self.nonce.raw).finish()


@final
@dataclass(frozen=True, slots=True)
class LinkBundle:
    """Message 4, of the existing device: the account, sealed. Parsed, not verified."""

    link_id: LinkId
    sealed: bytes
    signature: bytes

    def encode(self) -> bytes:
        """`0x01 0x04 | link id 16 | sealed (u16 length) | signature 64`."""
        return _opened(LinkSlot.BUNDLE, self.link_id).bytes16(self.sealed).raw(self.signature).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkBundle":
        """Parse message 4.

        Raises:
            MalformedMessageError, UnsupportedVersionError: it is none.
        """
        reader, link_id = _reader(data, LinkSlot.BUNDLE)
        parsed = cls(link_id, reader.bytes16(), reader.fixed(SIGNATURE_LENGTH))
        reader.finish()
        return parsed

    def verify(self, key: DeviceSigningKey, transcript: LinkTranscript) -> bytes:
        """Check that the device with this key signed it for this link; return what is sealed.

        Raises:
            InvalidSignatureError: it did not.
        """
        verify(key.raw, bundle_signed_bytes(transcript, self.sealed), self.signature, "link bundle")
        return self.sealed


def link_transcript(commit: LinkCommit, answer: LinkAnswer, reveal: LinkReveal) -> LinkTranscript:
    """Return L, after checking that the three messages are of one link and that C is of what was revealed.

    Raises:
        LinkMismatchError: they do not belong together.
    """
    if not commit.link_id == answer.link_id == reveal.link_id:
        raise LinkMismatchError("messages of two links")
    if not hmac.compare_digest(reveal.commitment().raw, commit.commitment.raw):
        raise LinkMismatchError("the new device has not revealed what it committed to")
    writer = Writer().bytes8(TRANSCRIPT_LABEL).raw(commit.encode()).raw(answer.encode()).raw(reveal.encode())
    return LinkTranscript(kdf.sha256(writer.finish()))


def bundle_signed_bytes(transcript: LinkTranscript, sealed: bytes) -> bytes:
    """What the existing device signs: `u8 len(label) | label | L | SHA-256(sealed)`."""
    return Writer().bytes8(BUNDLE_LABEL).raw(transcript.raw).raw(kdf.sha256(sealed)).finish()


def link_code(link_id: LinkId) -> str:
    """Return the code that a person carries from the new device to an existing one: 32 characters of base32.

    base32 of the link id and of the first 4 bytes of SHA-256(u8 len(label) | label | link id). It is no secret.
    """
    return b32encode(link_id.raw + _check(link_id)).decode()


def link_qr_text(link_id: LinkId) -> str:
    """Return what the QR code of a link says."""
    return CODE_PREFIX + link_code(link_id)


def parse_link_code(text: str) -> LinkId:
    """Read a code as people type it: in groups, in lower case, with or without the prefix of the QR code.

    Raises:
        MalformedMessageError: it is none, or was mistyped.
    """
    code = "".join(text.split()).upper().removeprefix(CODE_PREFIX).replace("-", "")
    try:
        raw = b32decode(code.encode("ascii")) if len(code) == 32 else b""
    except (BadBase32, UnicodeEncodeError):
        raw = b""
    if len(raw) != LinkId.LENGTH + _CHECK:
        raise MalformedMessageError("a link's code has 32 letters and digits")
    link_id = LinkId(raw[: LinkId.LENGTH])
    if raw[LinkId.LENGTH :] != _check(link_id):
        raise MalformedMessageError("the link's code was mistyped")
    return link_id


def _check(link_id: LinkId) -> bytes:
    return kdf.sha256(Writer().bytes8(CODE_LABEL).raw(link_id.raw).finish())[:_CHECK]


def _opened(slot: LinkSlot, link_id: LinkId) -> Writer:
    return Writer().u8(_VERSION).u8(slot).raw(link_id.raw)


def _reader(data: bytes, slot: LinkSlot) -> tuple[Reader, LinkId]:
    if len(data) > MAX_LINK_MESSAGE:
        raise MalformedMessageError(f"a message of a link has at most {MAX_LINK_MESSAGE} bytes")
    reader = Reader(data)
    version = reader.u8()
    if version != _VERSION:
        raise UnsupportedVersionError("link", version)
    found = reader.u8()
    if found != slot:
        raise MalformedMessageError(f"message {found} of a link in the place of message {slot.value}")
    return reader, LinkId.decode(reader)
