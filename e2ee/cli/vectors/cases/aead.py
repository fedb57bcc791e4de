"""Cases of aead.json."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.mutations import flip, invalid, put, valid
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import aead
from e2ee.primitives import aead as gcm, dh
from e2ee.wire.padding import pad

_PREFIX: Final = 97
"""Length of the bytes before the ciphertext, without a payload."""
_COMMITMENT: Final = 53
_NONCE: Final = 85


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(aead.SEAL, "a message is made", tuple(valid(c, g, f) for c, g, f in _messages()))
    opened = (valid(comment, _to_open(given), flag) for comment, given, flag in _messages())
    yield CaseGroup(aead.OPEN, "a message is opened", (*opened, *_refused()))


def _given(plaintext: bytes, **changes: object) -> JsonObject:
    return {
        "associated_data": drawn("aead: T", 32).hex(),
        "chain_key": drawn("aead: chain key", 32).hex(),
        "pq_chain_key": drawn("aead: pq chain key", 32).hex(),
        "ratchet_key": dh.public_key(drawn("aead: ratchet key", 32)).hex(),
        "previous_chain_length": 2,
        "index": 5,
        "pq_epoch": 0,
        "pq_index": 9,
        "nonce": drawn("aead: nonce", 12).hex(),
        "plaintext": plaintext.hex(),
        **changes,
    }


def _messages() -> Iterator[tuple[str, JsonObject, str]]:
    short = pad(b"hello")
    yield "the smallest plaintext", _given(short), "Normal"
    yield "a longer one", _given(pad(drawn("aead: content", 700))), "Normal"
    yield "all indices zero", _given(short, previous_chain_length=0, index=0, pq_index=0), "Boundary"
    highest = (1 << 32) - 2
    last = _given(short, previous_chain_length=highest, index=highest, pq_index=highest)
    yield "the highest indices that leave a next one", last, "Boundary"
    yield "the index enters the post-quantum chain step", _given(short, pq_index=10), "Normal"
    yield "a later epoch", _given(short, pq_epoch=3), "Normal"


def _to_open(given: JsonObject) -> JsonObject:
    message = aead.SEAL.answer(given)["output"]["message"]
    names = ("associated_data", "chain_key", "pq_chain_key")
    return {**{name: given[name] for name in names}, "message": message}


def _refused() -> Iterator[Case]:
    sealing = _given(pad(b"hello"))
    good = _to_open(sealing)
    message = bytes.fromhex(good["message"])

    def refused(comment: str, changed: bytes, flag: str) -> Case:
        return invalid(comment, "authentication", {**good, "message": changed.hex()}, flag)

    for comment, at in (
        ("ratchet key", 2),
        ("previous chain length", 37),
        ("index", 41),
        ("post-quantum epoch", 45),
        ("post-quantum index", 49),
    ):
        yield refused(f"a bit of the {comment} is turned", flip(message, at), "ModifiedHeader")
    yield refused("the payload type is 3", put(message, 50, b"\3"), "ModifiedHeader")
    for comment, at in (("first", _COMMITMENT), ("last", _NONCE - 1)):
        yield refused(f"a bit of the commitment's {comment} byte is turned", flip(message, at), "ModifiedCommitment")
    yield refused("the commitment is zero", put(message, _COMMITMENT, bytes(32)), "ModifiedCommitment")
    for comment, at in (
        ("nonce", _NONCE),
        ("ciphertext's first byte", _PREFIX),
        ("ciphertext's last byte", len(message) - 17),
        ("tag's first byte", len(message) - 16),
        ("tag's last byte", len(message) - 1),
    ):
        yield refused(f"a bit of the {comment} is turned", flip(message, at), "ModifiedCiphertext")
    yield refused("one more byte", message + b"\0", "TrailingBytes")
    for name, comment in (
        ("associated_data", "another session's associated data"),
        ("chain_key", "another chain key"),
        ("pq_chain_key", "another post-quantum chain key"),
    ):
        changed = {**good, name: drawn(f"aead: another {name}", 32).hex()}
        yield invalid(comment, "authentication", changed, "WrongKey")
    yield refused("sealed under another key, with this key's commitment", _not_committed(sealing, True), "WrongKey")
    yield refused("sealed under this key, with another commitment", _not_committed(sealing, False), "KeyNotCommitted")
    yield invalid("a tag of 15 bytes", "decode", {**good, "message": message[:-1].hex()}, "ShortTag")
    longer = bytes.fromhex(_to_open(_given(pad(drawn("aead: content", 700))))["message"])
    cut = {**good, "message": longer[:-1].hex()}
    yield invalid("a longer message with a tag of 15 bytes", "authentication", cut, "ShortTag")


def _not_committed(given: JsonObject, right_commitment: bool) -> bytes:
    """Return a message whose commitment and AES key do not belong together; its tag fits either way."""
    output = aead.SEAL.answer(given)["output"]
    message = bytes.fromhex(output["message"])
    other = drawn("aead: another key or commitment", 32)
    key = other if right_commitment else bytes.fromhex(output["aes_key"])
    prefix = message[:_PREFIX] if right_commitment else put(message[:_PREFIX], _COMMITMENT, other)
    associated_data = bytes.fromhex(given["associated_data"]) + prefix
    return prefix + gcm.seal(key, prefix[_NONCE:], bytes.fromhex(given["plaintext"]), associated_data)
