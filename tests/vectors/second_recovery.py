"""Recovery codes and exports once more, from docs/protocol.md section 16 alone, the history included.

Owns: the layouts of section 16.
Does not know about: the e2ee package, refusals.
"""

import base64
import hashlib

from tests.vectors import second_backend as second
from tests.vectors.second_ratchets import Json, raw


def code_write(given: Json) -> Json:
    secret = raw(given, "secret")
    check = hashlib.sha256(second.labelled("E2EE/1 recovery check", secret)).digest()[:5]
    letters = base64.b32encode(secret + check).decode()
    return {"text": "-".join(letters[at : at + 5] for at in range(0, 40, 5))}


def code_read(given: Json) -> Json:
    letters = "".join(letter for letter in given["text"].upper() if letter.isalnum())
    return {"secret": base64.b32decode(letters)[:20].hex()}


def name(user_id: str) -> bytes:
    return bytes((len(user_id),)) + user_id.encode()


def sized(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def payload_of(given: Json) -> bytes:
    parts = [b"\x01", raw(given, "account_seed"), sized(raw(given, "device_list"), 2), bytes((given["policy"],))]
    parts.append(len(given["contacts"]).to_bytes(4, "big"))
    for each in given["contacts"]:
        flags = bytes((each["verified"], each["forked"]))
        parts += [name(each["user_id"]), raw(each, "account_key"), flags, sized(raw(each, "device_list"), 2)]
    parts.append(len(given["decisions"]).to_bytes(4, "big"))
    for each in given["decisions"]:
        decided = bytes((each["decision"],)) + raw(each, "account_key")
        parts += [name(each["user_id"]), decided, each["at"].to_bytes(8, "big")]
    parts.append(bytes((len(given["sections"]),)))
    parts += [bytes((each["kind"],)) + sized(raw(each, "bytes"), 4) for each in given["sections"]]
    return b"".join(parts)


def export_of(secret: bytes, purpose: str, user_id: str, nonce: bytes, payload: Json) -> bytes:
    header = b"\x01" + name(user_id) + second.ed25519_public(raw(payload, "account_seed"))
    key = second.hkdf(bytes(64), secret, b"E2EE/1 " + purpose.encode(), 32)
    return header + nonce + second.gcm_seal(key, nonce, payload_of(payload), header)


def export_seal(given: Json) -> Json:
    named = given["purpose"], given["user_id"]
    export = export_of(raw(given, "secret"), *named, raw(given, "nonce"), given["payload"])
    return {"payload": payload_of(given["payload"]).hex(), "export": export.hex()}


def opens_to(given: Json, output: Json) -> bool:
    """Say whether sealing the output again gives the export."""
    export = raw(given, "export")
    nonce = export[2 + export[1] + 32 :][:12]
    return export_of(raw(given, "secret"), given["purpose"], output["user_id"], nonce, output) == export


# --- with a history ------------------------------------------------------------------------------------------


def message_of(given: Json) -> bytes:
    numbers = [given[each].to_bytes(8, "big") for each in ("sent_at", "written_at", "received_at")]
    parts = [raw(given, "message_id"), name(given["author"]), raw(given, "device"), name(given["peer"])]
    conversation = given["conversation_id"]
    parts += [bytes((len(conversation),)) + conversation.encode(), bytes((given["kind"],)), *numbers]
    parts += [bytes((given["state"],)), given["position"].to_bytes(8, "big"), sized(raw(given, "body"), 4)]
    return b"".join(parts)


def history_seal(given: Json) -> Json:
    payload, nonce = payload_of(given["payload"]), raw(given, "nonce")
    header = b"\x02" + name(given["user_id"]) + second.ed25519_public(raw(given["payload"], "account_seed"))
    key = second.hkdf(bytes(64), raw(given, "secret"), b"E2EE/1 export", 32)
    export = header + nonce + sized(second.gcm_seal(key, nonce, payload, header), 4)
    history_key = bytes.fromhex(given["payload"]["sections"][0]["bytes"])[:32]
    for number, messages in enumerate(given["chunks"]):
        is_last = number == len(given["chunks"]) - 1
        chunk_nonce = number.to_bytes(8, "big") + int(is_last).to_bytes(4, "big")
        plaintext = b"".join(map(message_of, messages))
        export += sized(second.gcm_seal(history_key, chunk_nonce, plaintext, header), 4)
    return {"payload": payload.hex(), "export": export.hex()}
