"""PQXDH: the handshake, key agreement only (protocol.md section 6; Signal's PQXDH revision 3).

    DH1 = DH(IKa, SPKb)   DH2 = DH(EKa, IKb)   DH3 = DH(EKa, SPKb)   DH4 = DH(EKa, OPKb) if one was served
    (ss, ct) = ML-KEM-1024.Encaps(PQPKb)
    T  = SHA-256(transcript: both parties' addresses and keys, and every public value of this handshake)
    SK = HKDF-SHA-512(salt = 64 zero bytes, IKM = 32 x 0xFF || DH1 || DH2 || DH3 [|| DH4] || ss,
                      info = "E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512" || T, L = 64)

Owns: initiate() and respond(), the transcript.
Does not know about: where prekeys come from, whether a first message is a repetition, what is trusted.
"""

from typing import Final, NamedTuple

from e2ee.primitives import kdf
from e2ee.primitives.rng import Rng
from e2ee.private_keys import (
    Encapsulate,
    EphemeralKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
    RootKey,
    SharedSecret,
    encapsulate,
    handshake_diffie_hellman,
)
from e2ee.wire.codec import Writer
from e2ee.wire.identifiers import DeviceAddress
from e2ee.wire.message import HandshakeHeader
from e2ee.wire.prekey_bundle import VerifiedPreKeyBundle
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey, KemPreKeyPublicKey, PreKeyPublicKey

PQXDH_INFO: Final = b"E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512"
"""Domain separation; changing it is a wire break."""

_PROTOCOL_NAME = "E2EE/1"
_F = b"\xff" * 32
"""F of X3DH section 2.2: keeps the input apart from any XEdDSA signature input."""


class Party(NamedTuple):
    """The public side of one end of a handshake."""

    address: DeviceAddress
    account_key: AccountKey
    device_signing_key: DeviceSigningKey
    identity_key: IdentityKey


class ResponderKeys(NamedTuple):
    """The private halves that a first message names. `one_time_prekey` is None if it names none."""

    identity_key_pair: IdentityKeyPair
    signed_prekey: PreKeyPair
    one_time_prekey: PreKeyPair | None
    kem_prekey: KemPreKeyPair


class PqxdhOutput(NamedTuple):
    """What both ends derive: SK split in two, and the transcript hash T (32 bytes), the session's associated data."""

    root_key: RootKey
    pq_secret: SharedSecret
    associated_data: bytes


def initiate(
    ours: Party,
    identity_key_pair: IdentityKeyPair,
    bundle: VerifiedPreKeyBundle,
    created: int,
    rng: Rng,
    encapsulate: Encapsulate = encapsulate,
) -> tuple[PqxdhOutput, HandshakeHeader]:
    """Derive the initiator's side and the header that lets the responder do the same (PQXDH section 3.3).

    `created` is Unix milliseconds, above any used with this device before.

    Raises:
        InvalidPublicKeyError: a key of the bundle is of low order or out of range.
    """
    ephemeral = EphemeralKeyPair.generate(rng)
    secrets = [
        handshake_diffie_hellman(identity_key_pair, bundle.signed_prekey.public_key),
        handshake_diffie_hellman(ephemeral, bundle.identity_key),
        handshake_diffie_hellman(ephemeral, bundle.signed_prekey.public_key),
    ]
    one_time = bundle.one_time_prekey
    if one_time is not None:
        secrets.append(handshake_diffie_hellman(ephemeral, one_time.public_key))
    kem_secret, ciphertext = encapsulate(bundle.kem_prekey.public_key)
    header = HandshakeHeader(
        account_key=ours.account_key,
        device_signing_key=ours.device_signing_key,
        identity_key=ours.identity_key,
        created=created,
        ephemeral_key=ephemeral.public,
        signed_prekey_id=bundle.signed_prekey.prekey_id,
        one_time_prekey_id=one_time.prekey_id if one_time else None,
        kem_prekey_id=bundle.kem_prekey.prekey_id,
        kem_ciphertext=ciphertext,
    )
    theirs = Party(bundle.address, bundle.account_key, bundle.device_signing_key, bundle.identity_key)
    prekeys = _PublicPreKeys(
        bundle.signed_prekey.public_key, one_time.public_key if one_time else None, bundle.kem_prekey.public_key
    )
    transcript = _transcript(ours, theirs, header, prekeys)
    return _derive([*secrets, kem_secret], transcript), header


def respond(ours: Party, keys: ResponderKeys, initiator: DeviceAddress, header: HandshakeHeader) -> PqxdhOutput:
    """Derive the responder's side from a first message's header (PQXDH section 3.4).

    `initiator` comes from the envelope, unauthenticated: a false one makes T differ, and the message fails.
    Deletes nothing: the caller removes one-time prekeys after the first message authenticated.

    Raises:
        InvalidPublicKeyError: a key of the header is of low order.
    """
    secrets = [
        handshake_diffie_hellman(keys.signed_prekey, header.identity_key),
        handshake_diffie_hellman(keys.identity_key_pair, header.ephemeral_key),
        handshake_diffie_hellman(keys.signed_prekey, header.ephemeral_key),
    ]
    if keys.one_time_prekey is not None:
        secrets.append(handshake_diffie_hellman(keys.one_time_prekey, header.ephemeral_key))
    secrets.append(keys.kem_prekey.decapsulate(header.kem_ciphertext))
    theirs = Party(initiator, header.account_key, header.device_signing_key, header.identity_key)
    one_time = keys.one_time_prekey.public if keys.one_time_prekey else None
    prekeys = _PublicPreKeys(keys.signed_prekey.public, one_time, keys.kem_prekey.public)
    return _derive(secrets, _transcript(theirs, ours, header, prekeys))


class _PublicPreKeys(NamedTuple):
    signed_prekey: PreKeyPublicKey
    one_time_prekey: PreKeyPublicKey | None
    kem_prekey: KemPreKeyPublicKey


def _transcript(initiator: Party, responder: Party, header: HandshakeHeader, prekeys: _PublicPreKeys) -> bytes:
    """Return T. It names every public value, so that both ends agree on all of them or on no key at all."""
    writer = Writer().ascii8(_PROTOCOL_NAME)
    for party in (initiator, responder):
        writer.raw(party.address.encode()).raw(party.account_key.raw)
        writer.raw(party.device_signing_key.raw).raw(party.identity_key.raw)
    writer.u64(header.created).raw(header.ephemeral_key.raw)
    writer.u32(header.signed_prekey_id).raw(prekeys.signed_prekey.raw)
    if header.one_time_prekey_id is None or prekeys.one_time_prekey is None:
        writer.u8(0)
    else:
        writer.u8(1).u32(header.one_time_prekey_id).raw(prekeys.one_time_prekey.raw)
    writer.u32(header.kem_prekey_id).raw(prekeys.kem_prekey.raw).raw(header.kem_ciphertext)
    return kdf.sha256(writer.finish())


def _derive(secrets: list[SharedSecret], transcript: bytes) -> PqxdhOutput:
    input_key_material = _F + b"".join(secret.expose() for secret in secrets)
    shared_secret = kdf.hkdf_sha512(bytes(64), input_key_material, PQXDH_INFO + transcript, 64)
    return PqxdhOutput(RootKey(shared_secret[:32]), SharedSecret(shared_secret[32:]), transcript)
