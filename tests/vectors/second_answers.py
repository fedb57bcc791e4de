"""Answers of the second backend: from a vector's input to its output, for everything that holds a cryptographic value.

Owns: the byte layouts that are hashed, signed and encrypted, written anew from docs/protocol.md.
Does not know about: the e2ee package, refusals.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from tests.vectors import second_backend as second, second_linking, second_recovery
from tests.vectors.second_pq_ratchet import pq_conversation, pq_ratchet
from tests.vectors.second_ratchets import Json, double_ratchet, raw

PREFIX: Final = 97
"""Length of a RatchetMessage before its ciphertext, without a payload."""

# --- primitives ----------------------------------------------------------------------------------------------


def hkdf(given: Json) -> Json:
    okm = second.hkdf(raw(given, "salt"), raw(given, "ikm"), raw(given, "info"), given["length"])
    return {"okm": okm.hex()}


def kdf(given: Json) -> Json:
    return {"output": second.kdf(raw(given, "key"), given["label"], raw(given, "data")).hex()}


def mac(given: Json) -> Json:
    return {"tag": second.kdf(raw(given, "key"), given["label"], raw(given, "data"), 32).hex()}


def x25519(given: Json) -> Json:
    private = raw(given, "private_key")
    return {
        "public_key": second.x25519_public(private).hex(),
        "shared_secret": second.x25519(private, raw(given, "their_public_key")).hex(),
    }


def ed25519_sign(given: Json) -> Json:
    seed = raw(given, "seed")
    return {
        "public_key": second.ed25519_public(seed).hex(),
        "signature": second.sign(seed, raw(given, "message")).hex(),
    }


def ed25519_verify(given: Json) -> Json:
    assert second.verifies(raw(given, "public_key"), raw(given, "message"), raw(given, "signature"))
    return {}


def kem(given: Json) -> Json:
    seed = raw(given, "seed")
    return {
        "public_key": second.kem_public(seed).hex(),
        "shared_secret": second.decapsulate(seed, raw(given, "ciphertext")).hex(),
        "rejected_secret": second.decapsulate(seed, b"\x5a" * 1568).hex(),
    }


# --- what is signed ------------------------------------------------------------------------------------------


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def device_list(given: Json) -> Json:
    seed = raw(given, "account_seed")
    account_key = second.ed25519_public(seed)
    fields = len(given["user_id"]).to_bytes(1, "big") + given["user_id"].encode() + account_key + u64(given["seq"])
    fields += raw(given, "previous_hash") + u64(given["created_at"]) + u64(given["expires_at"])
    fields += len(given["devices"]).to_bytes(1, "big")
    for each in given["devices"]:
        fields += raw(each, "device_id") + raw(each, "device_signing_key") + raw(each, "identity_key")
    signed = second.labelled("E2EE/1 device list", fields)
    return {
        "account_key": account_key.hex(),
        "signed_bytes": signed.hex(),
        "hash": hashlib.sha256(signed).hexdigest(),
        "encoded": (fields + second.sign(seed, signed)).hex(),
    }


def prekey(label: str, given: Json, prefix: bytes = b"") -> Json:
    seed = raw(given, "device_signing_seed")
    fields = u32(given["prekey_id"]) + u64(given["expires_at"]) + raw(given, "public_key")
    signed = second.labelled(label, second.address(given["user_id"], raw(given, "device_id")) + fields)
    return {
        "device_signing_key": second.ed25519_public(seed).hex(),
        "signed_bytes": signed.hex(),
        "encoded": (prefix + fields + second.sign(seed, signed)).hex(),
    }


def signed_prekey(given: Json) -> Json:
    return prekey("E2EE/1 signed prekey", given)


def kem_prekey(given: Json) -> Json:
    label = {1: "E2EE/1 one-time KEM prekey", 2: "E2EE/1 last-resort KEM prekey"}[given["kind"]]
    return prekey(label, given, bytes((given["kind"],)))


def assertion_bytes(given: Json) -> bytes:
    fields = len(given["origin"]).to_bytes(2, "big") + given["origin"].encode()
    fields += second.address(given["user_id"], raw(given, "device_id")) + raw(given, "login_id") + u64(given["counter"])
    return second.labelled("E2EE/1 login assertion", fields)


def assertion_sign(given: Json) -> Json:
    seed, signed = raw(given, "device_signing_seed"), assertion_bytes(given)
    return {
        "device_signing_key": second.ed25519_public(seed).hex(),
        "signed_bytes": signed.hex(),
        "signature": second.sign(seed, signed).hex(),
    }


def assertion_verify(given: Json) -> Json:
    assert second.verifies(raw(given, "device_signing_key"), assertion_bytes(given), raw(given, "signature"))
    return {}


# --- handshake -----------------------------------------------------------------------------------------------


def derived(transcript: bytes, exchanged: list[bytes], kem_secret: bytes, header: bytes) -> Json:
    associated_data, sk_dr, sk_pq = second.handshake_secrets(transcript, exchanged, kem_secret)
    return {
        **{f"dh{number}": each.hex() for number, each in enumerate(exchanged, 1)},
        "transcript": transcript.hex(),
        "associated_data": associated_data.hex(),
        "sk_dr": sk_dr.hex(),
        "sk_pq": sk_pq.hex(),
        "handshake_hash": hashlib.sha256(header).hexdigest(),
    }


def party(fields: Json) -> bytes:
    keys = raw(fields, "account_key") + raw(fields, "device_signing_key") + raw(fields, "identity_key")
    return second.address(fields["user_id"], raw(fields, "device_id")) + keys


def initiate(given: Json) -> Json:
    signed_list, bundle = raw(given, "device_list"), raw(given, "bundle")
    name = 1 + signed_list[0]
    account_key = signed_list[name : name + 32]
    device = signed_list[name + 89 : name + 169]  # after account key, seq, previous hash, two times and the count
    responder = bundle[: name + 16] + account_key + device[16:]
    assert device[:16] == bundle[name : name + 16]
    prekey_id, signed, rest = bundle[name + 16 : name + 20], bundle[name + 28 : name + 60], bundle[name + 124 :]
    one_time, kem_part = (rest[:37], rest[37:]) if rest[0] else (rest[:1], rest[1:])
    identity, ephemeral = raw(given, "identity_private_key"), raw(given, "ephemeral_private_key")
    exchanged = [second.x25519(identity, signed), second.x25519(ephemeral, device[48:])]
    exchanged.append(second.x25519(ephemeral, signed))
    if rest[0]:
        exchanged.append(second.x25519(ephemeral, one_time[5:]))
    created, public, ciphertext = u64(given["created"]), second.x25519_public(ephemeral), raw(given, "kem_ciphertext")
    kem_id, kem_key = kem_part[1:5], kem_part[13:1581]
    transcript = b"\x06E2EE/1" + party(given["initiator"]) + responder + created + public + prekey_id + signed
    transcript += one_time + kem_id + kem_key + ciphertext
    keys = party(given["initiator"])[-96:]
    named = one_time[:5] if rest[0] else bytes(5)
    header = b"\x01\x01" + keys + created + public + prekey_id + named + kem_id + ciphertext
    outcome = derived(transcript, exchanged, raw(given, "kem_shared_secret"), header)
    return {**outcome, "handshake_header": header.hex()}


def respond(given: Json) -> Json:
    header = raw(given, "handshake_header")
    keys, created, ephemeral = header[2:98], header[98:106], header[106:138]
    signed, seed = raw(given, "signed_prekey_private_key"), raw(given, "kem_prekey_seed")
    exchanged = [
        second.x25519(signed, keys[64:]),
        second.x25519(raw(given, "identity_private_key"), ephemeral),
        second.x25519(signed, ephemeral),
    ]
    one_time = b"\0"
    if header[142]:
        private = raw(given, "one_time_prekey_private_key")
        exchanged.append(second.x25519(private, ephemeral))
        one_time = b"\1" + header[143:147] + second.x25519_public(private)
    initiator = second.address(given["initiator"]["user_id"], raw(given["initiator"], "device_id")) + keys
    transcript = b"\x06E2EE/1" + initiator + party(given["responder"]) + created + ephemeral + header[138:142]
    transcript += second.x25519_public(signed) + one_time + header[147:151] + second.kem_public(seed) + header[151:]
    secret = second.decapsulate(seed, header[151:])
    return {
        **derived(transcript, exchanged, secret, header),
        "kem_shared_secret": secret.hex(),
        "rejected_secret": second.decapsulate(seed, b"\x5a" * 1568).hex(),
    }


# --- messages ------------------------------------------------------------------------------------------------


def message_keys(given: Json, pq_index: int) -> tuple[Json, bytes, bytes]:
    _, message_key = second.chain_step(raw(given, "chain_key"))
    _, pq_message_key = second.pq_chain_step(raw(given, "pq_chain_key"), pq_index)
    aes_key, commitment = second.joint_key(pq_message_key, message_key)
    shown = {
        "message_key": message_key.hex(),
        "pq_message_key": pq_message_key.hex(),
        "aes_key": aes_key.hex(),
        "commitment": commitment.hex(),
    }
    return shown, aes_key, commitment


def seal(given: Json) -> Json:
    shown, aes_key, commitment = message_keys(given, given["pq_index"])
    numbers = (given[name] for name in ("previous_chain_length", "index", "pq_epoch", "pq_index"))
    header = b"\x01\x02" + raw(given, "ratchet_key") + b"".join(map(u32, numbers)) + bytes(3)
    prefix = header + commitment + raw(given, "nonce")
    data = raw(given, "associated_data") + prefix
    sealed = second.gcm_seal(aes_key, raw(given, "nonce"), raw(given, "plaintext"), data)
    return {**shown, "message": (prefix + sealed).hex()}


def opened(given: Json) -> Json:
    message = raw(given, "message")
    shown, aes_key, commitment = message_keys(given, int.from_bytes(message[46:50], "big"))
    prefix = message[:PREFIX]
    assert prefix[53:85] == commitment
    plaintext = second.gcm_open(aes_key, prefix[85:], message[PREFIX:], raw(given, "associated_data") + prefix)
    assert plaintext is not None
    return {**shown, "plaintext": plaintext.hex()}


# --- the rest ------------------------------------------------------------------------------------------------


def padded_length(given: Json) -> Json:
    return {"padded_length": second.padded_length(given["length"])}


def pad(given: Json) -> Json:
    return {"padded": second.pad(raw(given, "content")).hex()}


def unpad(given: Json) -> Json:
    content = raw(given, "padded").rstrip(b"\0")[:-1]
    assert second.pad(content) == raw(given, "padded")
    return {"content": content.hex()}


def safety_number(given: Json) -> Json:
    halves = [second.safety_half(given[who]["user_id"], raw(given[who], "account_key")) for who in ("one", "other")]
    return {"half_of_one": halves[0], "half_of_other": halves[1], "number": "".join(sorted(halves))}


def safety_qr_text(given: Json) -> Json:
    both = [(given[who]["user_id"], raw(given[who], "account_key")) for who in ("shower", "reader")]
    shown = b"".join(second.safety_digest(*each)[:32] for each in both)
    return {"text": "E2EE1-SAFETY:" + base64.b32encode(shown).decode().rstrip("=")}


ANSWERS: Final[dict[str, dict[str, Callable[[Json], Json]]]] = {
    "primitives": {
        "HkdfSha512": hkdf,
        "Kdf": kdf,
        "Mac": mac,
        "X25519": x25519,
        "Ed25519Sign": ed25519_sign,
        "Ed25519Verify": ed25519_verify,
        "MlKem1024Decapsulate": kem,
    },
    "device_list": {"DeviceListSign": device_list},
    "prekey": {
        "SignedPreKeySign": signed_prekey,
        "KemPreKeySign": kem_prekey,
        "LoginAssertionSign": assertion_sign,
        "LoginAssertionVerify": assertion_verify,
    },
    "pqxdh": {"PqxdhInitiate": initiate, "PqxdhRespond": respond},
    "double_ratchet": {"DoubleRatchet": double_ratchet},
    "pq_ratchet": {"PqRatchet": pq_ratchet, "PqConversation": pq_conversation},
    "aead": {"MessageSeal": seal, "MessageOpen": opened},
    "padding": {"PaddedLength": padded_length, "Pad": pad, "Unpad": unpad},
    "safety_number": {"SafetyNumber": safety_number, "SafetyQrText": safety_qr_text},
    "recovery": {
        "RecoveryCodeWrite": second_recovery.code_write,
        "RecoveryCodeRead": second_recovery.code_read,
        "ExportSeal": second_recovery.export_seal,
        "HistoryExportSeal": second_recovery.history_seal,
    },
    "linking": {
        "LinkOffer": second_linking.offer,
        "LinkCompare": second_linking.compare,
        "LinkBundleSign": second_linking.bundle_sign,
        "LinkBundleOpen": second_linking.bundle_open,
    },
}
