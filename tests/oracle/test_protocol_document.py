"""The examples of docs/protocol.md, computed again from the text alone: nothing of this project is imported.

So the document is enough to build the protocol from, and stays true.
"""

import hashlib
import hmac
import math
import re
import struct
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
APPENDIX = DOCUMENT[DOCUMENT.index("## Appendix A") :]
NOW = 1_800_000_000_000
DAY = 86_400_000
CIPHERTEXT = b"\x5a" * 1_568


def example(name: str) -> bytes:
    return hashlib.sha256(b"E2EE/1 example: " + name.encode()).digest()


def x25519(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(example(name))


def public(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def dh(ours: X25519PrivateKey, theirs: bytes) -> bytes:
    return ours.exchange(X25519PublicKey.from_public_bytes(theirs))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def kdf(key: bytes, label: bytes, data: bytes = b"") -> bytes:
    return hashlib.blake2b(bytes([len(label)]) + label + data, key=key, digest_size=64).digest()


def hkdf(salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    key, output, block, counter = hmac.digest(salt, ikm, "sha512"), b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha512")
        output, counter = output + block, counter + 1
    return output[:length]


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def labelled(label: bytes) -> bytes:
    return bytes([len(label)]) + label


def pad(content: bytes) -> bytes:
    length = len(content) + 1
    exponent = int(math.log2(length))
    step = 1 << (exponent - (int(math.log2(exponent)) + 1))
    return (content + b"\x80").ljust(max(256, -(-length // step) * step), b"\0")


class User(NamedTuple):
    """One user with one device."""

    address: bytes
    account: Ed25519PrivateKey
    signing: Ed25519PrivateKey
    identity: X25519PrivateKey

    @property
    def keys(self) -> bytes:
        return public(self.account) + public(self.signing) + public(self.identity)

    def list_bytes(self) -> bytes:
        user_id, device_id = self.address[:-16], self.address[-16:]
        head = user_id + public(self.account) + u64(1) + bytes(32) + u64(NOW) + u64(NOW + 30 * DAY)
        return head + b"\1" + device_id + public(self.signing) + public(self.identity)

    def list_signed_bytes(self) -> bytes:
        return labelled(b"E2EE/1 device list") + self.list_bytes()

    def signed_list(self) -> bytes:
        return self.list_bytes() + self.account.sign(self.list_signed_bytes())

    def position(self) -> bytes:
        return u64(1) + sha256(self.list_signed_bytes())


def make_user(name: str) -> User:
    return User(
        labelled(name.encode()) + example(f"{name} device id")[:16],
        Ed25519PrivateKey.from_private_bytes(example(f"{name} account key")),
        Ed25519PrivateKey.from_private_bytes(example(f"{name} device signing key")),
        x25519(f"{name} identity key"),
    )


ALICE, BOB = make_user("alice"), make_user("bob")
SIGNED_PREKEY, ONE_TIME_PREKEY = x25519("bob signed prekey"), x25519("bob one-time prekey")
KEM = MLKEM1024PrivateKey.from_seed_bytes(example("bob KEM prekey d") + example("bob KEM prekey z"))
EPHEMERAL = x25519("alice ephemeral key")
RATCHET_1, RATCHET_2 = x25519("alice ratchet key 1"), x25519("bob ratchet key 1")
IDS = u32(0x01020304), u32(0), u32(0xFFFEFDFC)


def stated(section: int, name: str) -> bytes:
    """Return a value of the appendix, whose hex may go over several lines."""
    text = APPENDIX[APPENDIX.index(f"### A.{section}") :]
    text = text[: text.find("\n### ", 4)] if "\n### " in text[4:] else text
    found = re.search(rf"^{re.escape(name)} *= ((?:[0-9a-f]+\n? *)+)$", text, re.MULTILINE)
    assert found is not None, name
    return bytes.fromhex(re.sub(r"\s", "", found[1]))


def transcript() -> bytes:
    one_time = b"\1" + IDS[1] + public(ONE_TIME_PREKEY)
    ours = u64(NOW) + public(EPHEMERAL) + IDS[0] + public(SIGNED_PREKEY) + one_time
    parties = ALICE.address + ALICE.keys + BOB.address + BOB.keys
    return labelled(b"E2EE/1") + parties + ours + IDS[2] + KEM.public_key().public_bytes_raw() + CIPHERTEXT


def handshake_header() -> bytes:
    return b"\1\1" + ALICE.keys + u64(NOW) + public(EPHEMERAL) + IDS[0] + b"\1" + IDS[1] + IDS[2] + CIPHERTEXT


def shared_secret() -> bytes:
    secrets = (
        dh(ALICE.identity, public(SIGNED_PREKEY))
        + dh(EPHEMERAL, public(BOB.identity))
        + dh(EPHEMERAL, public(SIGNED_PREKEY))
        + dh(EPHEMERAL, public(ONE_TIME_PREKEY))
        + KEM.decapsulate(CIPHERTEXT)
    )
    info = b"E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512" + sha256(transcript())
    return hkdf(bytes(64), b"\xff" * 32 + secrets, info, 64)


def first_turn() -> bytes:
    return hkdf(shared_secret()[:32], dh(RATCHET_1, public(SIGNED_PREKEY)), b"E2EE/1 root", 64)


def message_key(chain_key: bytes, pq_chain_key: bytes) -> bytes:
    pq = kdf(pq_chain_key, b"E2EE/1 PQ chain", u32(0))[32:]
    return kdf(pq, b"E2EE/1 message", kdf(chain_key, b"E2EE/1 chain")[32:])


def pq_epoch_0() -> bytes:
    return hkdf(bytes(32), shared_secret()[32:], b"E2EE/1 PQ root" + u32(0), 128)


def ratchet_message(key: bytes, ratchet_key: X25519PrivateKey, nonce: bytes, content: bytes) -> bytes:
    prefix = b"\1\2" + public(ratchet_key) + u32(0) * 4 + bytes(3) + key[32:] + nonce
    return prefix + AESGCM(key[:32]).encrypt(nonce, pad(content), sha256(transcript()) + prefix)


def test_identities_and_lists() -> None:
    for name, user in (("alice", ALICE), ("bob", BOB)):
        assert stated(1, f"{name} device id") == user.address[-16:]
        assert stated(1, f"{name} account key") == public(user.account)
        assert stated(1, f"{name} device signing key") == public(user.signing)
        assert stated(1, f"{name} identity key") == public(user.identity)
        assert stated(1, f"{name}: hash of list") == user.position()[8:]
    assert stated(1, "bob: signed bytes of list") == BOB.list_signed_bytes()
    assert stated(1, "bob: signature of list") == BOB.account.sign(BOB.list_signed_bytes())


def test_bundle() -> None:
    expiry, kem = u64(NOW + 90 * DAY), KEM.public_key().public_bytes_raw()
    signed = labelled(b"E2EE/1 signed prekey") + BOB.address + IDS[0] + expiry + public(SIGNED_PREKEY)
    kem_signed = labelled(b"E2EE/1 one-time KEM prekey") + BOB.address + IDS[2] + expiry + kem
    kem_signature = BOB.signing.sign(kem_signed)
    bundle = (
        BOB.address
        + IDS[0]
        + expiry
        + public(SIGNED_PREKEY)
        + BOB.signing.sign(signed)
        + b"\1"
        + IDS[1]
        + public(ONE_TIME_PREKEY)
        + b"\1"
        + IDS[2]
        + expiry
        + kem
        + kem_signature
    )

    assert stated(2, "signed prekey") == public(SIGNED_PREKEY)
    assert stated(2, "SHA-256(KEM prekey)") == sha256(kem)
    assert stated(2, "SHA-256(its signed bytes)") == sha256(kem_signed)
    assert stated(2, "its signature") == kem_signature
    assert len(bundle) == 1_810
    assert stated(2, "SHA-256(bundle)") == sha256(bundle)


def test_handshake() -> None:
    assert stated(3, "DH1") == dh(ALICE.identity, public(SIGNED_PREKEY))
    assert stated(3, "ss = Decaps(ct)") == KEM.decapsulate(CIPHERTEXT)
    assert len(transcript()) == 3_494
    assert stated(3, "T") == sha256(transcript())
    assert stated(3, "SK_dr") + stated(3, "SK_pq") == shared_secret()
    assert len(handshake_header()) == 1_719
    assert stated(3, "H") == sha256(handshake_header())


def test_first_message() -> None:
    key = message_key(first_turn()[32:], pq_epoch_0()[32:64])
    positions = ALICE.position() + BOB.position()
    signed_list = ALICE.signed_list()
    content = example("message id 1")[:16] + b"\1\0" + u64(NOW) + positions
    content += b"\1" + u32(len(signed_list)) + signed_list + u32(6) + b"\1hello"
    message = ratchet_message(key, RATCHET_1, example("nonce 1")[:12], content)
    body = handshake_header() + u32(len(message)) + message
    head = b"\1" + example("envelope id 1")[:16] + ALICE.address + BOB.address + b"\1" + u32(2_419_200)

    assert stated(4, "RK after the root step") + stated(4, "CK after the root step") == first_turn()
    assert stated(4, "AES key") + stated(4, "commitment") == key
    assert stated(4, "  Content") == content
    assert stated(4, "  SHA-256(PreKeyMessage)") == sha256(body)
    assert stated(4, "  SHA-256(envelope)") == sha256(head + u32(len(body)) + body)


def test_answer() -> None:
    turn = hkdf(first_turn()[:32], dh(RATCHET_2, public(RATCHET_1)), b"E2EE/1 root", 64)
    key = message_key(turn[32:], pq_epoch_0()[64:96])
    content = example("message id 2")[:16] + b"\1" + labelled(b"team-7") + u64(NOW + 1_000)
    content += BOB.position() + ALICE.position() + b"\0" + u32(4) + b"\0\1\2\3"

    assert stated(5, "  Content") == content
    assert stated(5, "  RatchetMessage") == ratchet_message(key, RATCHET_2, example("nonce 2")[:12], content)
