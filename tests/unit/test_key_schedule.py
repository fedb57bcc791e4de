"""The key schedule, written out once more from the document with the standard library and bare X25519 and ML-KEM.

Both ends run the same code, so a mistake in it would agree with itself.
"""

import hashlib
import hmac
from dataclasses import replace

import pytest

from e2ee.pqxdh import Party, ResponderKeys, respond
from e2ee.primitives import dh
from e2ee.private_keys import PqRootKey, PreKeyPair, RootKey, SharedSecret, encapsulate_in_ratchet
from e2ee.ratchet import double_ratchet, pq_ratchet, pq_turns
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.session import Clock, start_as_initiator
from e2ee.wire.message import PqPayloadType
from e2ee.wire.prekey_bundle import PreKeyBundle
from tests import ratchet_steps
from tests.wire_objects import NOW, make_device, seeded_rng, verified_list

ALICE, BOB = make_device("alice"), make_device("bob")
ALICE_PARTY, BOB_PARTY = (
    Party(each.address, each.account.public, each.signing.public, each.identity.public) for each in (ALICE, BOB)
)


def hkdf_sha512(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    key = hmac.digest(salt, secret, "sha512")
    first = hmac.digest(key, info + b"\x01", "sha512")
    return (first + hmac.digest(key, first + info + b"\x02", "sha512"))[:length]


def chain_step(chain_key: bytes, label: bytes, data: bytes = b"") -> tuple[bytes, bytes]:
    output = hashlib.blake2b(bytes([len(label)]) + label + data, key=chain_key).digest()
    return output[:32], output[32:]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def party(each: Party) -> bytes:
    user, device = each.address.user_id.encode(), each.address.device_id.raw
    keys = each.account_key.raw + each.device_signing_key.raw + each.identity_key.raw
    return bytes([len(user)]) + user + device + keys


@pytest.mark.parametrize("one_time", [True, False])
def test_the_handshake_is_that_of_section_6(one_time: bool) -> None:
    bundle: PreKeyBundle = BOB.bundle() if one_time else replace(BOB.bundle(), one_time_prekey=None)
    session = start_as_initiator(
        ALICE_PARTY, ALICE.identity, bundle.verify(verified_list(BOB), NOW), Clock(NOW, NOW), seeded_rng(1)
    )
    header = session.pending_handshake
    assert header is not None
    ephemeral = header.ephemeral_key.raw
    identity, prekey = BOB.identity.private.expose(), BOB.prekey.private.expose()
    secrets = [
        dh.exchange(prekey, ALICE.identity.public.raw),
        dh.exchange(identity, ephemeral),
        dh.exchange(prekey, ephemeral),
    ]
    if one_time:
        secrets.append(dh.exchange(BOB.one_time.private.expose(), ephemeral))
    secrets.append(BOB.kem.decapsulate(header.kem_ciphertext).expose())
    transcript = hashlib.sha256(
        b"\x06E2EE/1"
        + party(ALICE_PARTY)
        + party(BOB_PARTY)
        + NOW.to_bytes(8, "big")
        + ephemeral
        + u32(7)
        + BOB.prekey.public.raw
        + (b"\x01" + u32(8) + BOB.one_time.public.raw if one_time else b"\x00")
        + u32(9)
        + BOB.kem.public.raw
        + header.kem_ciphertext
    ).digest()
    info = b"E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512" + transcript
    shared_secret = hkdf_sha512(bytes(64), b"\xff" * 32 + b"".join(secrets), info, 64)

    keys = ResponderKeys(BOB.identity, BOB.prekey, BOB.one_time if one_time else None, BOB.kem)
    output = respond(BOB_PARTY, keys, ALICE.address, header)
    assert output.associated_data == session.session_id == transcript
    assert output.root_key.expose() + output.pq_secret.expose() == shared_secret


def test_a_root_step_and_a_chain_step_are_those_of_section_7() -> None:
    prekey = PreKeyPair.generate(seeded_rng("prekey"))
    sending = ratchet_steps.send(
        double_ratchet.start_as_initiator(RootKey(b"\x11" * 32), prekey.public), seeded_rng("ratchet key")
    )
    secret = dh.exchange(prekey.private.expose(), sending.header.ratchet_key.raw)
    output = hkdf_sha512(b"\x11" * 32, secret, b"E2EE/1 root", 64)
    chain_key, message_key = chain_step(output[32:], b"E2EE/1 chain")

    assert sending.state.root_key.expose() == output[:32]
    assert sending.state.sending == (chain_key, 1)
    assert sending.message_key == message_key


@pytest.mark.parametrize("initiator", [True, False])
def test_the_first_epoch_is_that_of_section_7(initiator: bool) -> None:
    state = pq_ratchet.start(SharedSecret(b"\x22" * 32), initiator=initiator, now=NOW)
    output = hkdf_sha512(bytes(32), b"\x22" * 32, b"E2EE/1 PQ root" + u32(0), 128)
    ours, theirs = (output[32:64], output[64:96]) if initiator else (output[64:96], output[32:64])

    assert (state.root_key.expose(), state.authentication_key.expose()) == (output[:32], output[96:])
    assert (state.sending, state.receiving) == ((ours, 0), ((0, theirs, 0),))
    assert (state.sent, state.received) == (0, 0)
    assert state.turn[1:] == (NOW, 0, False, False, False, False, False)
    sent = ratchet_steps.pq_send(state)
    assert (sent.state.sending.key, sent.message_key) == chain_step(ours, b"E2EE/1 PQ chain", u32(0))


def test_a_later_epoch_binds_its_number_and_both_public_values() -> None:
    bind = bytes(range(64))
    keys = pq_ratchet.derive_epoch(258, (PqRootKey(b"\x33" * 32), SharedSecret(b"\x22" * 32)), bind, initiator=True)
    output = hkdf_sha512(b"\x33" * 32, b"\x22" * 32, b"E2EE/1 PQ root" + u32(258) + bind, 128)

    assert keys.root_key.expose() + keys.sending.key + keys.receiving.key == output[:96]
    assert keys.authentication_key.expose() == output[96:]
    assert keys.receiving.epoch == 258


def test_payloads_are_authenticated_as_in_section_7() -> None:
    alice, bob = (pq_ratchet.start(SharedSecret(b"\x22" * 32), initiator=each, now=NOW) for each in (True, False))
    old = alice.authentication_key.expose()
    _, kind, offer = pq_turns.before_sending(pq_turns.ask_for_healing(alice), NOW, seeded_rng("offer"))
    arrived = PqHeader(0, 0, kind, offer)
    bob = pq_turns.after_authentication(bob, arrived, NOW, 0, encapsulate_in_ratchet)
    _, answer_kind, answer = pq_turns.before_sending(bob, NOW, seeded_rng("answer"))

    def tag(key: bytes, label: bytes, public: bytes) -> bytes:
        return hashlib.blake2b(bytes([len(label)]) + label + u32(1) + public, key=key, digest_size=32).digest()

    assert (kind, answer_kind) == (PqPayloadType.ENCAPSULATION_KEY, PqPayloadType.CIPHERTEXT)
    assert offer[-32:] == tag(old, b"E2EE/1 PQ ek", offer[:-32])
    assert answer[-32:] == tag(bob.authentication_key.expose(), b"E2EE/1 PQ ct", answer[:-32])
