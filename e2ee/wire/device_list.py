"""Signed device lists: which devices a user has, as the user's own devices say (protocol.md section 4).

Owns: the bytes of a list, its signature check, the hash chain from one list to the next.
Does not know about: private keys, what lists a device has seen before, the network.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Final, final

from e2ee.errors import DeviceListForkError, InvalidSignatureError, MalformedMessageError, UnlistedDeviceError
from e2ee.limits import MAX_DEVICES
from e2ee.primitives import kdf
from e2ee.primitives.verify import verify
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import DeviceAddress, DeviceId, FixedBytes, UserId, decode_ascii, parse_user_id
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey

DEVICE_LIST_LABEL: Final = b"E2EE/1 device list"


@final
class DeviceListHash(FixedBytes):
    """SHA-256 of a list's signed bytes. Not of the signature: a signature is never an identifier."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32


NO_PREVIOUS_LIST: Final = DeviceListHash(bytes(32))
"""The previous hash of a user's first list."""


@final
@dataclass(frozen=True, slots=True)
class ListPosition:
    """(seq, hash): one point in a user's chain of lists. Travels in every Content and with every `send`."""

    seq: int
    hash: DeviceListHash

    def encode_into(self, writer: Writer) -> None:
        """`seq u64 | hash 32`."""
        writer.u64(self.seq).raw(self.hash.raw)

    @classmethod
    def decode(cls, reader: Reader) -> "ListPosition":
        """Take a position off a reader."""
        return cls(reader.u64(), DeviceListHash.decode(reader))


@final
@dataclass(frozen=True, slots=True)
class ListedDevice:
    """One entry of a device list."""

    device_id: DeviceId
    device_signing_key: DeviceSigningKey
    identity_key: IdentityKey


@final
@dataclass(frozen=True, slots=True)
class DeviceList:
    """The unsigned content of a list. Times are Unix milliseconds; devices are in ascending order of id."""

    user_id: UserId
    account_key: AccountKey
    seq: int
    previous_hash: DeviceListHash
    created_at: int
    expires_at: int
    devices: tuple[ListedDevice, ...]

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def encode(self) -> bytes:
        """Encode the fields.

        | field | bytes |
        |---|---|
        | user id | u8 length, ASCII |
        | account key | 32 |
        | seq | u64, from 1 |
        | hash of the previous list | 32, zero in the first |
        | created at, expires at | u64, u64 |
        | devices | u8 count, then device id 16, device signing key 32, identity key 32 each, ascending by id |
        """
        writer = Writer().ascii8(self.user_id).raw(self.account_key.raw).u64(self.seq).raw(self.previous_hash.raw)
        writer.u64(self.created_at).u64(self.expires_at).u8(len(self.devices))
        for device in self.devices:
            writer.raw(device.device_id.raw).raw(device.device_signing_key.raw).raw(device.identity_key.raw)
        return writer.finish()

    @classmethod
    def decode(cls, reader: Reader) -> "DeviceList":
        """Take a list off a reader.

        Raises:
            MalformedMessageError: truncated, unordered, too many devices, seq 0, or a first list with a predecessor.
            InvalidPublicKeyError: an identity key is not canonical.
        """
        user_id = parse_user_id(decode_ascii(reader.bytes8()))
        account_key = AccountKey.decode(reader)
        seq, previous_hash = reader.u64(), DeviceListHash.decode(reader)
        created_at, expires_at = reader.u64(), reader.u64()
        devices = tuple(
            ListedDevice(DeviceId.decode(reader), DeviceSigningKey.decode(reader), IdentityKey.decode(reader))
            for _ in range(_device_count(reader))
        )
        try:
            return cls(user_id, account_key, seq, previous_hash, created_at, expires_at, devices)
        except ValueError as problem:
            raise MalformedMessageError(str(problem)) from None

    def signed_bytes(self) -> bytes:
        """What the account key signs."""
        return Writer().bytes8(DEVICE_LIST_LABEL).raw(self.encode()).finish()

    def hash(self) -> DeviceListHash:
        """SHA-256 of the signed bytes: what the next list names as its predecessor."""
        return DeviceListHash(kdf.sha256(self.signed_bytes()))

    @property
    def position(self) -> ListPosition:
        """Where this list stands in its user's chain."""
        return ListPosition(self.seq, self.hash())

    def device(self, device_id: DeviceId) -> ListedDevice | None:
        """Return the entry of a device, or None if it is not listed."""
        return next((device for device in self.devices if device.device_id == device_id), None)

    @property
    def closes(self) -> bool:
        """Whether this is the last list of its account key: it holds no device."""
        return not self.devices

    def addresses(self) -> tuple[DeviceAddress, ...]:
        """Return the addresses of all listed devices, by device id."""
        return tuple(DeviceAddress(self.user_id, device.device_id) for device in self.devices)

    def _problem(self) -> str | None:
        ids = [device.device_id.raw for device in self.devices]
        if len(ids) > MAX_DEVICES:
            return f"a device list holds at most {MAX_DEVICES} devices"
        if any(later <= earlier for earlier, later in pairwise(ids)):
            return "devices are listed in ascending order of id, each once"
        if self.seq < 1:
            return "seq starts at 1"
        if (self.seq == 1) != (self.previous_hash == NO_PREVIOUS_LIST):
            return "only the first list, and no other, has no previous hash"
        return None


@final
@dataclass(frozen=True, slots=True)
class SignedDeviceList:
    """A list as it travels: parsed, not trusted. `verify` turns it into the type that may be used."""

    unverified: DeviceList
    signature: bytes

    def encode(self) -> bytes:
        """`DeviceList | signature 64`."""
        return self.unverified.encode() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> "SignedDeviceList":
        """Parse a list.

        Raises:
            MalformedMessageError, InvalidPublicKeyError: see `DeviceList.decode`.
        """
        reader = Reader(data)
        parsed = cls(DeviceList.decode(reader), reader.fixed(64))
        reader.finish()
        return parsed

    def verify(self, user_id: UserId) -> "VerifiedDeviceList":
        """Check that the list is `user_id`'s and carries a valid signature of the account key that it names.

        Whether that account key is the one to trust is the caller's question (pinning, safety numbers).

        Raises:
            InvalidSignatureError: another user's list, or a wrong signature.
        """
        if self.unverified.user_id != user_id:
            raise InvalidSignatureError("device list: it belongs to another user")
        verify(self.unverified.account_key.raw, self.unverified.signed_bytes(), self.signature, "device list")
        return VerifiedDeviceList(self.unverified, self)


@final
@dataclass(frozen=True, slots=True)
class VerifiedDeviceList:
    """Proof that `SignedDeviceList.verify` succeeded; nothing else makes one."""

    content: DeviceList
    signed: SignedDeviceList
    position: ListPosition = field(init=False)
    """Where this list stands in its user's chain; kept, because every message names it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", self.content.position)

    def listed(self, address: DeviceAddress) -> ListedDevice:
        """Return the entry of a device.

        Raises:
            UnlistedDeviceError: another user's device, or not in the list.
        """
        device = self.content.device(address.device_id)
        if device is None or address.user_id != self.content.user_id:
            raise UnlistedDeviceError(str(address))
        return device

    def follows(self, known: "VerifiedDeviceList") -> bool:
        """Judge this list against the newest one known of the same user (protocol.md section 4.2).

        Returns True if it is newer, False if it is the same or older. A gap in seq is accepted on the signature;
        whether an older list is a prefix of the known chain is known only to who keeps the chain.

        Raises:
            DeviceListForkError: same seq with another hash, neighbours of which the later names another predecessor,
                a device id with other keys, or one after the last list of its account key.
        """
        ours, theirs = known.content, self.content
        if theirs.user_id != ours.user_id:
            raise ValueError("lists of two users do not follow one another")
        if theirs.seq == ours.seq and theirs.hash() != ours.hash():
            raise DeviceListForkError(theirs.user_id)
        earlier, later = sorted((ours, theirs), key=lambda each: each.seq)
        if later.seq == earlier.seq + 1 and later.previous_hash != earlier.hash():
            raise DeviceListForkError(theirs.user_id)
        if earlier.closes and earlier.seq < later.seq and earlier.account_key == later.account_key:
            raise DeviceListForkError(theirs.user_id)
        if any(ours.device(each.device_id) not in (None, each) for each in theirs.devices):
            # A device id keeps its keys for ever; one that changed them would be silently encrypted to.
            raise DeviceListForkError(theirs.user_id)
        return theirs.seq > ours.seq


def ordered(devices: Iterable[ListedDevice]) -> tuple[ListedDevice, ...]:
    """Sort entries as a list holds them."""
    return tuple(sorted(devices, key=lambda device: device.device_id.raw))


def _device_count(reader: Reader) -> int:
    count = reader.u8()
    if count > MAX_DEVICES:
        raise MalformedMessageError(f"{count} devices, at most {MAX_DEVICES} allowed")
    return count
