"""Prekeys and the bundle that starts a session (protocol.md section 5).

Owns: the bytes and signatures of published prekeys, and the bundle's way from parsed to verified.
Does not know about: private halves, who claims a bundle, what the key server stores.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from e2ee.errors import MalformedMessageError, PreKeyExpiredError
from e2ee.primitives.verify import verify
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, PreKeyId
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey, KemPreKeyPublicKey, PreKeyPublicKey

SIGNED_PREKEY_LABEL: Final = b"E2EE/1 signed prekey"
ONE_TIME_KEM_PREKEY_LABEL: Final = b"E2EE/1 one-time KEM prekey"
LAST_RESORT_KEM_PREKEY_LABEL: Final = b"E2EE/1 last-resort KEM prekey"

_SIGNATURE_LENGTH = 64


@final
class KemPreKeyKind(IntEnum):
    """A one-time KEM prekey is claimed at most once; the last-resort one serves when those have run out."""

    ONE_TIME = 1
    LAST_RESORT = 2


@final
@dataclass(frozen=True, slots=True)
class SignedPreKey:
    """SPK with its signature by the device signing key. `expires_at` is Unix milliseconds."""

    prekey_id: PreKeyId
    expires_at: int
    public_key: PreKeyPublicKey
    signature: bytes

    def signed_bytes(self, address: DeviceAddress) -> bytes:
        """What the signing key of the device at `address` signs."""
        return prekey_signed_bytes(SIGNED_PREKEY_LABEL, address, self.prekey_id, self.expires_at, self.public_key.raw)

    def verify(self, address: DeviceAddress, key: DeviceSigningKey) -> None:
        """Check the signature.

        Raises:
            InvalidSignatureError: it is not this device's prekey.
        """
        verify(key.raw, self.signed_bytes(address), self.signature, "signed prekey")

    def encode(self) -> bytes:
        """`id u32 | expires at u64 | public key 32 | signature 64`."""
        writer = Writer().u32(self.prekey_id).u64(self.expires_at).raw(self.public_key.raw)
        return writer.raw(self.signature).finish()

    @classmethod
    def decode(cls, reader: Reader) -> "SignedPreKey":
        """Take a prekey off a reader.

        Raises:
            MalformedMessageError: truncated.
            InvalidPublicKeyError: the key is not canonical.
        """
        prekey_id, expires_at = PreKeyId(reader.u32()), reader.u64()
        return cls(prekey_id, expires_at, PreKeyPublicKey.decode(reader), reader.fixed(_SIGNATURE_LENGTH))


@final
@dataclass(frozen=True, slots=True)
class OneTimePreKey:
    """OPK. Unsigned, as in X3DH: the transcript binds it."""

    prekey_id: PreKeyId
    public_key: PreKeyPublicKey

    def encode(self) -> bytes:
        """`id u32 | public key 32`."""
        return Writer().u32(self.prekey_id).raw(self.public_key.raw).finish()

    @classmethod
    def decode(cls, reader: Reader) -> "OneTimePreKey":
        """Take a prekey off a reader.

        Raises:
            MalformedMessageError: truncated.
            InvalidPublicKeyError: the key is not canonical.
        """
        return cls(PreKeyId(reader.u32()), PreKeyPublicKey.decode(reader))


@final
@dataclass(frozen=True, slots=True)
class KemPreKey:
    """PQPK with its signature by the device signing key; the label of the signature tells the kind."""

    kind: KemPreKeyKind
    prekey_id: PreKeyId
    expires_at: int
    public_key: KemPreKeyPublicKey
    signature: bytes

    def signed_bytes(self, address: DeviceAddress) -> bytes:
        """What the signing key of the device at `address` signs."""
        label = kem_prekey_label(self.kind)
        return prekey_signed_bytes(label, address, self.prekey_id, self.expires_at, self.public_key.raw)

    def verify(self, address: DeviceAddress, key: DeviceSigningKey) -> None:
        """Check the signature.

        Raises:
            InvalidSignatureError: it is not this device's prekey, or of the other kind.
        """
        verify(key.raw, self.signed_bytes(address), self.signature, "KEM prekey")

    def encode(self) -> bytes:
        """`kind u8 | id u32 | expires at u64 | public key 1568 | signature 64`."""
        writer = Writer().u8(self.kind).u32(self.prekey_id).u64(self.expires_at)
        return writer.raw(self.public_key.raw).raw(self.signature).finish()

    @classmethod
    def decode(cls, reader: Reader) -> "KemPreKey":
        """Take a prekey off a reader.

        Raises:
            MalformedMessageError: truncated.
            InvalidPublicKeyError: the key is not canonical.
        """
        kind = _kem_prekey_kind(reader.u8())
        prekey_id, expires_at = PreKeyId(reader.u32()), reader.u64()
        return cls(kind, prekey_id, expires_at, KemPreKeyPublicKey.decode(reader), reader.fixed(_SIGNATURE_LENGTH))


@final
@dataclass(frozen=True, slots=True)
class PreKeyBundle:
    """What the key server hands out for one device: parsed, not trusted. Starts no session before `verify`."""

    address: DeviceAddress
    signed_prekey: SignedPreKey
    one_time_prekey: OneTimePreKey | None
    kem_prekey: KemPreKey

    def encode(self) -> bytes:
        """`address | signed prekey | u8 present [one-time prekey] | KEM prekey`."""
        one_time = None if self.one_time_prekey is None else self.one_time_prekey.encode()
        return bundle_of_encoded(self.address, self.signed_prekey.encode(), one_time, self.kem_prekey.encode())

    @classmethod
    def decode(cls, data: bytes) -> "PreKeyBundle":
        """Parse a bundle. A bundle without a KEM prekey does not parse: there is no downgrade.

        Raises:
            MalformedMessageError: truncated, trailing bytes, unknown kind.
            InvalidPublicKeyError: a key is not canonical.
        """
        reader = Reader(data)
        address = DeviceAddress.decode(reader)
        signed_prekey = SignedPreKey.decode(reader)
        one_time_prekey = OneTimePreKey.decode(reader) if reader.flag() else None
        bundle = cls(address, signed_prekey, one_time_prekey, KemPreKey.decode(reader))
        reader.finish()
        return bundle

    def verify(self, device_list: VerifiedDeviceList, now: int) -> "VerifiedPreKeyBundle":
        """Check the bundle against its user's device list; `now` is Unix milliseconds.

        Raises:
            UnlistedDeviceError: the device is not in the list.
            InvalidSignatureError: a prekey is not signed by the listed device.
            PreKeyExpiredError: a prekey has expired.
        """
        device = device_list.listed(self.address)
        self.signed_prekey.verify(self.address, device.device_signing_key)
        self.kem_prekey.verify(self.address, device.device_signing_key)
        for prekey in (self.signed_prekey, self.kem_prekey):
            if prekey.expires_at <= now:
                raise PreKeyExpiredError(prekey.prekey_id)
        return VerifiedPreKeyBundle(
            address=self.address,
            account_key=device_list.content.account_key,
            device_signing_key=device.device_signing_key,
            identity_key=device.identity_key,
            signed_prekey=self.signed_prekey,
            one_time_prekey=self.one_time_prekey,
            kem_prekey=self.kem_prekey,
        )


@final
@dataclass(frozen=True, slots=True)
class VerifiedPreKeyBundle:
    """Proof that `PreKeyBundle.verify` succeeded; nothing else makes one, and only this starts a session."""

    address: DeviceAddress
    account_key: AccountKey
    device_signing_key: DeviceSigningKey
    identity_key: IdentityKey
    signed_prekey: SignedPreKey
    one_time_prekey: OneTimePreKey | None
    kem_prekey: KemPreKey


def bundle_of_encoded(address: DeviceAddress, signed: bytes, one_time: bytes | None, kem: bytes) -> bytes:
    """Return the bytes of a `PreKeyBundle` of prekeys that are encoded already, as a server keeps them."""
    writer = Writer().raw(address.encode()).raw(signed).u8(one_time is not None)
    return writer.raw(one_time or b"").raw(kem).finish()


def prekey_signed_bytes(label: bytes, address: DeviceAddress, prekey_id: int, expires_at: int, key: bytes) -> bytes:
    """`u8 length, label | address | id u32 | expires at u64 | public key`: what a prekey signature covers."""
    return Writer().bytes8(label).raw(address.encode()).u32(prekey_id).u64(expires_at).raw(key).finish()


def kem_prekey_label(kind: KemPreKeyKind) -> bytes:
    """Return the signature label of a kind, so that one kind is never taken for the other."""
    return ONE_TIME_KEM_PREKEY_LABEL if kind is KemPreKeyKind.ONE_TIME else LAST_RESORT_KEM_PREKEY_LABEL


def _kem_prekey_kind(value: int) -> KemPreKeyKind:
    try:
        return KemPreKeyKind(value)
    except ValueError:
        raise MalformedMessageError("kind of KEM prekey") from None
