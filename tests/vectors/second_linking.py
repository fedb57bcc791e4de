"""Linking once more, from docs/protocol.md section 15 alone: HPKE by hand, messages by slicing.

Owns: the hybrid KEM, the key schedule of RFC 9180, the layouts of section 15.
Does not know about: the e2ee package, refusals.
"""

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from tests.vectors import second_backend as second
from tests.vectors.second_ratchets import Json, raw

KEM_ID: Final = b"\x64\x7a"
SUITE: Final = b"HPKE" + KEM_ID + b"\x00\x03\x00\x02"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "protocol.md"


def stretched(seed: bytes) -> tuple[bytes, bytes]:
    data = hashlib.shake_256(seed).digest(96)
    return data[:64], data[64:]


def link_key(seed: bytes) -> bytes:
    mlkem, x25519 = stretched(seed)
    return MLKEM768PrivateKey.from_seed_bytes(mlkem).public_key().public_bytes_raw() + second.x25519_public(x25519)


def extract(salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hmac.digest(salt or bytes(64), b"HPKE-v1" + SUITE + label + key_material, "sha512")


def expand(key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info
    return hmac.digest(key, labelled + b"\x01", "sha512")[:length]


def hpke_open(seed: bytes, sealed: bytes, info: bytes) -> bytes:
    mlkem, x25519 = stretched(seed)
    mlkem_part, x25519_part, ciphertext = sealed[:1088], sealed[1088:1120], sealed[1120:]
    secrets = MLKEM768PrivateKey.from_seed_bytes(mlkem).decapsulate(mlkem_part) + second.x25519(x25519, x25519_part)
    ours = second.x25519_public(x25519)
    shared = hashlib.sha3_256(secrets + x25519_part + ours + b"\\.//^\\").digest()
    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
    plaintext = second.gcm_open(key, nonce, ciphertext, b"")
    assert plaintext is not None
    return plaintext


def device(given: Json) -> tuple[bytes, bytes]:
    """Return link id and what is committed to."""
    signing, identity = raw(given, "device_signing_seed"), raw(given, "identity_private_key")
    keys = second.ed25519_public(signing) + second.x25519_public(identity)
    committed = link_key(raw(given, "link_seed")) + raw(given, "device_id") + keys + raw(given, "nonce")
    return raw(given, "link_id"), committed


def messages(given: Json) -> tuple[bytes, bytes, bytes]:
    """Return commitment, commit and reveal of a new device."""
    link_id, committed = device(given)
    commitment = hashlib.sha256(second.labelled("E2EE/1 link commit", committed)).digest()
    return commitment, b"\x01\x01" + link_id + commitment, b"\x01\x03" + link_id + committed


def offer(given: Json) -> Json:
    commitment, commit, reveal = messages(given)
    link_id = raw(given, "link_id")
    check = hashlib.sha256(second.labelled("E2EE/1 link code", link_id)).digest()[:4]
    code = base64.b32encode(link_id + check).decode()
    return {
        "link_key": reveal[18 : 18 + 1216].hex(),
        "commitment": commitment.hex(),
        "commit": commit.hex(),
        "reveal": reveal.hex(),
        "code": code,
        "qr_text": "E2EE1-LINK:" + code,
    }


def transcript_of(commit: bytes, answer: bytes, reveal: bytes) -> bytes:
    return hashlib.sha256(second.labelled("E2EE/1 link transcript", commit + answer + reveal)).digest()


def picture_names() -> list[str]:
    """Read the table of section 15.3: a number and a name in each cell."""
    section = DOCUMENT.read_text().partition("### 15.3")[2].partition("### 15.4")[0]
    named = {int(number): name for number, name in re.findall(r"(\d+) \S (\w+)", section)}
    return [named[number] for number in range(64)]


def compare(given: Json) -> Json:
    transcript = transcript_of(raw(given, "commit"), raw(given, "answer"), raw(given, "reveal"))
    signs = second.kdf(transcript, "E2EE/1 link signs")
    bits = "".join(f"{byte:08b}" for byte in signs[:6])
    numbers = [int(bits[at : at + 6], 2) for at in range(0, 42, 6)]
    names = picture_names()
    return {
        "link_transcript": transcript.hex(),
        "numbers": numbers,
        "names": [names[number] for number in numbers],
        "digits": str(int.from_bytes(signs[8:16], "big") % 1_000_000).zfill(6),
    }


def bundle_sign(given: Json) -> Json:
    fields = raw(given, "transcript") + hashlib.sha256(raw(given, "sealed")).digest()
    signed_bytes = second.labelled("E2EE/1 link bundle", fields)
    signature = second.sign(raw(given, "device_signing_seed"), signed_bytes)
    sealed = len(raw(given, "sealed")).to_bytes(2, "big") + raw(given, "sealed")
    bundle = b"\x01\x04" + raw(given, "link_id") + sealed + signature
    return {"signed_bytes": signed_bytes.hex(), "bundle": bundle.hex()}


def bundle_open(given: Json) -> Json:
    _, commit, reveal = messages(given["device"])
    answer, bundle = raw(given, "answer"), raw(given, "bundle")
    transcript = transcript_of(commit, answer, reveal)
    sealed = bundle[20:-64]
    signed_bytes = second.labelled("E2EE/1 link bundle", transcript + hashlib.sha256(sealed).digest())
    assert second.verifies(answer[-64:-32], signed_bytes, bundle[-64:])
    payload = hpke_open(raw(given["device"], "link_seed"), sealed, b"E2EE/1 link" + transcript)
    at = 2 + payload[1]
    return {"account_seed": payload[at : at + 32].hex(), "device_list": payload[at + 34 :].hex()}
