"""PQXDH: both ends derive the same keys from the same transcript, and from no other."""

from dataclasses import replace
from typing import Final

import pytest

from e2ee.errors import InvalidPublicKeyError
from e2ee.pqxdh import Party, PqxdhOutput, ResponderKeys, initiate, respond
from e2ee.private_keys import AccountKeyPair, DeviceSigningKeyPair, IdentityKeyPair, KemPreKeyPair, PreKeyPair
from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from e2ee.wire.message import HandshakeHeader
from e2ee.wire.prekey_bundle import KemPreKeyKind, VerifiedPreKeyBundle
from e2ee.wire.public_keys import IdentityKey, KemPreKeyPublicKey, PreKeyPublicKey
from tests.wire_objects import NOW, make_device, seeded_rng, verified_list

ALICE: Final = make_device("alice")
BOB: Final = make_device("bob")
ALICE_PARTY: Final = Party(ALICE.address, ALICE.account.public, ALICE.signing.public, ALICE.identity.public)
BOB_PARTY: Final = Party(BOB.address, BOB.account.public, BOB.signing.public, BOB.identity.public)
BOB_KEYS: Final = ResponderKeys(BOB.identity, BOB.prekey, BOB.one_time, BOB.kem)


def bundle(*, one_time: bool = True, kind: KemPreKeyKind = KemPreKeyKind.ONE_TIME) -> VerifiedPreKeyBundle:
    parsed = replace(BOB.bundle(), kem_prekey=BOB.kem_prekey(kind))
    if not one_time:
        parsed = replace(parsed, one_time_prekey=None)
    return parsed.verify(verified_list(BOB), NOW)


def initiated(verified: VerifiedPreKeyBundle | None = None, seed: int = 1) -> tuple[PqxdhOutput, HandshakeHeader]:
    return initiate(ALICE_PARTY, ALICE.identity, verified or bundle(), NOW, seeded_rng(seed))


@pytest.mark.parametrize("kind", KemPreKeyKind)
@pytest.mark.parametrize("one_time", [True, False])
def test_both_ends_derive_the_same_secrets_and_transcript(one_time: bool, kind: KemPreKeyKind) -> None:
    ours, header = initiated(bundle(one_time=one_time, kind=kind))
    keys = BOB_KEYS if one_time else BOB_KEYS._replace(one_time_prekey=None)
    assert respond(BOB_PARTY, keys, ALICE.address, header) == ours
    assert (header.one_time_prekey_id is None) is not one_time


def test_the_shared_secret_is_split_into_two_different_halves() -> None:
    ours, _ = initiated()
    assert ours.root_key.expose() != ours.pq_secret.expose()
    assert len(ours.root_key.expose() + ours.pq_secret.expose()) == 64
    assert len(ours.associated_data) == 32


def test_two_handshakes_with_one_bundle_share_nothing() -> None:
    (first, first_header), (second, second_header) = initiated(seed=1), initiated(seed=2)
    assert first.root_key != second.root_key
    assert first.pq_secret != second.pq_secret
    assert first.associated_data != second.associated_data
    assert first_header.hash() != second_header.hash()


def test_the_same_randomness_gives_another_secret_because_the_encapsulation_is_fresh() -> None:
    assert initiated(seed=1)[0].root_key != initiated(seed=1)[0].root_key


OTHER_USER: Final = DeviceAddress(UserId("mallory"), ALICE.address.device_id)
OTHER_DEVICE: Final = DeviceAddress(ALICE.address.user_id, DeviceId(bytes(16)))
RNG: Final = seeded_rng("other keys")
OTHER_ACCOUNT: Final = AccountKeyPair.generate(RNG).public
OTHER_SIGNING: Final = DeviceSigningKeyPair.generate(RNG).public
OTHER_IDENTITY: Final = IdentityKeyPair.generate(RNG)
OTHER_PREKEY: Final = PreKeyPair.generate(RNG)
OTHER_KEM: Final = KemPreKeyPair.generate(RNG)


def assert_disagreement(ours: PqxdhOutput, theirs: PqxdhOutput) -> None:
    assert ours.associated_data != theirs.associated_data
    assert ours.root_key != theirs.root_key
    assert ours.pq_secret != theirs.pq_secret


@pytest.mark.parametrize(
    "change",
    [
        {"account_key": OTHER_ACCOUNT},
        {"device_signing_key": OTHER_SIGNING},
        {"identity_key": OTHER_IDENTITY.public},
        {"created": NOW + 1},
        {"ephemeral_key": type(initiated()[1].ephemeral_key)(OTHER_PREKEY.public.raw)},
        {"signed_prekey_id": PreKeyId(1)},
        {"one_time_prekey_id": PreKeyId(1)},
        {"one_time_prekey_id": None},
        {"kem_prekey_id": PreKeyId(1)},
        {"kem_ciphertext": bytes(1568)},
    ],
    ids=lambda change: " ".join(f"{name} {type(value).__name__}" for name, value in change.items()),
)
def test_every_field_of_the_header_is_bound(change: dict[str, object]) -> None:
    ours, header = initiated()
    tampered = replace(header, **change)  # type: ignore[arg-type]  # one field each, of its own type
    assert_disagreement(ours, respond(BOB_PARTY, BOB_KEYS, ALICE.address, tampered))


@pytest.mark.parametrize("initiator", [OTHER_USER, OTHER_DEVICE], ids=["user", "device"])
def test_the_address_of_the_initiator_is_bound(initiator: DeviceAddress) -> None:
    ours, header = initiated()
    assert_disagreement(ours, respond(BOB_PARTY, BOB_KEYS, initiator, header))


@pytest.mark.parametrize(
    "responder",
    [
        BOB_PARTY._replace(address=DeviceAddress(UserId("carol"), BOB.address.device_id)),
        BOB_PARTY._replace(address=DeviceAddress(BOB.address.user_id, DeviceId(bytes(16)))),
        BOB_PARTY._replace(account_key=OTHER_ACCOUNT),
        BOB_PARTY._replace(device_signing_key=OTHER_SIGNING),
        BOB_PARTY._replace(identity_key=OTHER_IDENTITY.public),
    ],
    ids=["user", "device", "account key", "device signing key", "identity key"],
)
def test_every_field_of_the_responder_is_bound(responder: Party) -> None:
    ours, header = initiated()
    assert_disagreement(ours, respond(responder, BOB_KEYS, ALICE.address, header))


@pytest.mark.parametrize(
    "keys",
    [
        BOB_KEYS._replace(identity_key_pair=OTHER_IDENTITY),
        BOB_KEYS._replace(signed_prekey=OTHER_PREKEY),
        BOB_KEYS._replace(one_time_prekey=OTHER_PREKEY),
        BOB_KEYS._replace(one_time_prekey=None),
        BOB_KEYS._replace(kem_prekey=OTHER_KEM),
    ],
    ids=["DH2", "DH1 and DH3", "DH4", "no DH4", "KEM"],
)
def test_every_private_key_of_the_responder_is_needed(keys: ResponderKeys) -> None:
    ours, header = initiated()
    assert respond(BOB_PARTY, keys, ALICE.address, header).root_key != ours.root_key


def test_the_identity_key_of_the_initiator_is_needed() -> None:
    output, header = initiate(ALICE_PARTY, OTHER_IDENTITY, bundle(), NOW, seeded_rng(1))
    assert respond(BOB_PARTY, BOB_KEYS, ALICE.address, header).root_key != output.root_key


def test_a_kem_key_out_of_range_in_a_bundle_is_refused() -> None:
    verified = bundle()
    broken = replace(verified.kem_prekey, public_key=KemPreKeyPublicKey(b"\xff" * 1568))
    with pytest.raises(InvalidPublicKeyError):
        initiated(replace(verified, kem_prekey=broken))


@pytest.mark.parametrize("field", ["signed_prekey", "identity_key", "one_time_prekey"])
def test_a_low_order_key_in_a_bundle_is_refused(field: str) -> None:
    verified = bundle()
    assert verified.one_time_prekey is not None
    low = PreKeyPublicKey(bytes(32))
    broken = {
        "signed_prekey": replace(verified.signed_prekey, public_key=low),
        "identity_key": IdentityKey(bytes(32)),
        "one_time_prekey": replace(verified.one_time_prekey, public_key=low),
    }[field]
    with pytest.raises(InvalidPublicKeyError):
        initiated(replace(verified, **{field: broken}))  # type: ignore[arg-type]  # one field, of its own type


def test_outputs_redact_themselves() -> None:
    ours, _ = initiated()
    text = repr(ours) + repr(BOB_KEYS)
    for secret in (ours.root_key, ours.pq_secret, BOB.identity.private, BOB.prekey.private, BOB.kem.seed):
        assert secret.expose().hex() not in text
        assert repr(secret.expose()) not in text
