"""The handshake, each side alone (protocol.md section 6).

Owns: the operations of pqxdh.json.
Does not know about: cases, ratchets, first messages.
"""

from typing import Final, NamedTuple

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import ADDRESS, PARTY, address_of, party_of
from e2ee.cli.vectors.operations.prekey import verified_bundle
from e2ee.cli.vectors.operations.primitives import rejected_secret
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import Schema, hex_bytes, record, timestamp
from e2ee.cli.vectors.script import Script
from e2ee.pqxdh import Party, PqxdhOutput, ResponderKeys, initiate, respond
from e2ee.primitives import kem
from e2ee.primitives.kdf import sha256
from e2ee.private_keys import (
    EphemeralKeyPair,
    HandshakeKeyPair,
    HandshakePublicKey,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
    SeedBytes32,
    SeedBytes64,
    SharedSecret,
    handshake_diffie_hellman,
)
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.message import HandshakeHeader
from e2ee.wire.public_keys import KemPreKeyPublicKey, PreKeyPublicKey

_DERIVED: Final[dict[str, Schema]] = {
    "dh1": hex_bytes(32),
    "dh2": hex_bytes(32),
    "dh3": hex_bytes(32),
    "dh4": hex_bytes(32),
    "transcript": hex_bytes(),
    "associated_data": hex_bytes(32, "T, the hash of the transcript"),
    "sk_dr": hex_bytes(32),
    "sk_pq": hex_bytes(32),
    "handshake_hash": hex_bytes(32, "H"),
}
_OPTIONAL: Final = ("dh4",)
_INTERMEDIATE: Final = ("dh1", "dh2", "dh3", "dh4", "transcript", "kem_shared_secret", "rejected_secret")


class PublicPreKeys(NamedTuple):
    """The responder's prekeys as the transcript names them."""

    signed: PreKeyPublicKey
    one_time: PreKeyPublicKey | None
    kem: KemPreKeyPublicKey


def recorded(shared_secret: bytes, ciphertext: bytes) -> tuple[SharedSecret, bytes]:
    """Return an encapsulation as `encapsulate` does: no library lets its randomness be fixed."""
    return SharedSecret(shared_secret), ciphertext


def _initiate(fields: Fields) -> JsonObject:
    ours = party_of(fields.record("initiator"))
    identity = IdentityKeyPair(SeedBytes32(fields.hex("identity_private_key")))
    if identity.public != ours.identity_key:
        raise ValueError("the identity key is not that of the private key")
    bundle, created = verified_bundle(fields), fields.number("created")
    script = Script(fields.hex("ephemeral_private_key"))

    def encapsulate(theirs: KemPreKeyPublicKey) -> tuple[SharedSecret, bytes]:
        kem.encapsulate_1024(theirs.raw)  # for its check of the key
        return recorded(fields.hex("kem_shared_secret"), fields.hex("kem_ciphertext"))

    output, header = initiate(ours, identity, bundle, created, script, encapsulate)
    script.finish()
    ephemeral = EphemeralKeyPair(SeedBytes32(fields.hex("ephemeral_private_key")))
    signed, one_time = bundle.signed_prekey.public_key, bundle.one_time_prekey
    exchanges: list[tuple[HandshakeKeyPair, HandshakePublicKey]] = [
        (identity, signed),
        (ephemeral, bundle.identity_key),
        (ephemeral, signed),
    ]
    if one_time is not None:
        exchanges.append((ephemeral, one_time.public_key))
    theirs = Party(bundle.address, bundle.account_key, bundle.device_signing_key, bundle.identity_key)
    prekeys = PublicPreKeys(signed, one_time.public_key if one_time else None, bundle.kem_prekey.public_key)
    transcript = _transcript(ours, theirs, header, prekeys)
    return {**_derived_json(exchanges, transcript, output, header), "handshake_header": header.encode().hex()}


def _respond(fields: Fields) -> JsonObject:
    ours = party_of(fields.record("responder"))
    with decoding():
        reader = Reader(fields.hex("handshake_header"))
        header = HandshakeHeader.decode(reader)
        reader.finish()
    one_time = fields.optional_hex("one_time_prekey_private_key")
    keys = ResponderKeys(
        IdentityKeyPair(SeedBytes32(fields.hex("identity_private_key"))),
        PreKeyPair(SeedBytes32(fields.hex("signed_prekey_private_key"))),
        None if one_time is None else PreKeyPair(SeedBytes32(one_time)),
        KemPreKeyPair(SeedBytes64(fields.hex("kem_prekey_seed"))),
    )
    if keys.identity_key_pair.public != ours.identity_key:
        raise ValueError("the identity key is not that of the private key")
    initiator = address_of(fields.record("initiator"))
    output = respond(ours, keys, initiator, header)
    exchanges: list[tuple[HandshakeKeyPair, HandshakePublicKey]] = [
        (keys.signed_prekey, header.identity_key),
        (keys.identity_key_pair, header.ephemeral_key),
        (keys.signed_prekey, header.ephemeral_key),
    ]
    if keys.one_time_prekey is not None:
        exchanges.append((keys.one_time_prekey, header.ephemeral_key))
    theirs = Party(initiator, header.account_key, header.device_signing_key, header.identity_key)
    one_time_public = keys.one_time_prekey.public if keys.one_time_prekey else None
    prekeys = PublicPreKeys(keys.signed_prekey.public, one_time_public, keys.kem_prekey.public)
    return {
        **_derived_json(exchanges, _transcript(theirs, ours, header, prekeys), output, header),
        "kem_shared_secret": keys.kem_prekey.decapsulate(header.kem_ciphertext).expose().hex(),
        "rejected_secret": rejected_secret(keys.kem_prekey.seed.expose()).hex(),
    }


def _derived_json(
    exchanges: list[tuple[HandshakeKeyPair, HandshakePublicKey]],
    transcript: bytes,
    output: PqxdhOutput,
    header: HandshakeHeader,
) -> JsonObject:
    if sha256(transcript) != output.associated_data:
        raise AssertionError("the transcript shown is not the one that was hashed")
    secrets = {
        f"dh{number}": handshake_diffie_hellman(ours, theirs).expose().hex()
        for number, (ours, theirs) in enumerate(exchanges, 1)
    }
    return {
        **secrets,
        "transcript": transcript.hex(),
        "associated_data": output.associated_data.hex(),
        "sk_dr": output.root_key.expose().hex(),
        "sk_pq": output.pq_secret.expose().hex(),
        "handshake_hash": header.hash().hex(),
    }


def _transcript(initiator: Party, responder: Party, header: HandshakeHeader, prekeys: PublicPreKeys) -> bytes:
    """Return what T is the hash of (section 6.3); e2ee.pqxdh keeps only the hash."""
    writer = Writer().ascii8("E2EE/1")
    for party in (initiator, responder):
        writer.raw(party.address.encode())
        for key in (party.account_key, party.device_signing_key, party.identity_key):
            writer.raw(key.raw)
    writer.u64(header.created).raw(header.ephemeral_key.raw)
    writer.u32(header.signed_prekey_id).raw(prekeys.signed.raw)
    writer.u8(prekeys.one_time is not None)
    if prekeys.one_time is not None:
        writer.u32(header.one_time_prekey_id or 0).raw(prekeys.one_time.raw)
    return writer.u32(header.kem_prekey_id).raw(prekeys.kem.raw).raw(header.kem_ciphertext).finish()


INITIATE = Operation(
    "PqxdhInitiate",
    "The initiator, from a bundle; the encapsulation is given, as no library lets its randomness be fixed",
    record(
        initiator=record(**PARTY),
        identity_private_key=hex_bytes(32),
        device_list=hex_bytes(None, "the responder's signed list"),
        bundle=hex_bytes(),
        now=timestamp(),
        created=timestamp(),
        ephemeral_private_key=hex_bytes(32),
        kem_shared_secret=hex_bytes(32),
        kem_ciphertext=hex_bytes(1568),
    ),
    record(_OPTIONAL, **_DERIVED, handshake_header=hex_bytes(1719)),
    _initiate,
    _INTERMEDIATE,
)
RESPOND = Operation(
    "PqxdhRespond",
    "The responder, from the header of a first message and the private halves that it names",
    record(
        ("one_time_prekey_private_key",),
        responder=record(**PARTY),
        identity_private_key=hex_bytes(32),
        signed_prekey_private_key=hex_bytes(32),
        one_time_prekey_private_key=hex_bytes(32),
        kem_prekey_seed=hex_bytes(64),
        initiator=record(**ADDRESS),
        handshake_header=hex_bytes(),
    ),
    record(_OPTIONAL, **_DERIVED, kem_shared_secret=hex_bytes(32), rejected_secret=hex_bytes(32)),
    _respond,
    _INTERMEDIATE,
)

FILE = VectorFile(
    "pqxdh",
    (
        "The handshake, each side alone (protocol.md section 6).",
        "rejected_secret is the decapsulation of 1,568 bytes 0x5a: it shows the half z of the seed.",
    ),
    (INITIATE, RESPOND),
)
