"""Cases of linking.json: alice's first device lets a second one in, and everything that may be put in between."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.account import Account
from e2ee.cli.vectors.cases.mutations import flip, invalid, non_canonical_keys, put, valid
from e2ee.cli.vectors.cases.people import list_of, person, signed
from e2ee.cli.vectors.drawn import drawn, sealed
from e2ee.cli.vectors.model import Case, CaseGroup, Fields, JsonObject
from e2ee.cli.vectors.operations import linking
from e2ee.limits import MAX_LINK_MESSAGE
from e2ee.transfer import LinkPayload
from e2ee.wire.identifiers import UserId
from e2ee.wire.link import (
    LinkAnswer,
    LinkBundle,
    LinkCommit,
    LinkId,
    LinkNonce,
    LinkReveal,
    LinkTranscript,
    bundle_signed_bytes,
    link_code,
    link_qr_text,
    link_transcript,
)

ALICE: Final = person("alice")
MALLORY: Final = person("mallory")


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(linking.OFFER, "a new device", tuple(_offers()))
    yield CaseGroup(linking.CODE, "codes", tuple(_codes()))
    yield CaseGroup(linking.COMPARE, "what both devices show", tuple(_compared()))
    yield CaseGroup(linking.COMPARE, "messages that are none, or do not belong together", tuple(_not_compared()))
    yield CaseGroup(linking.SIGN, "bundles", tuple(_bundles()))
    yield CaseGroup(linking.OPEN, "an honest bundle", tuple(_opened()))
    yield CaseGroup(linking.OPEN, "bundles that are refused", tuple(_refused()))


def sealings() -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (public key, plaintext, info) of everything that is sealed in these cases."""
    for payload in (each for _, each, _, _ in _payloads()):
        yield _reveal().link_key.raw, payload, _transcript().info
    yield _reveal().link_key.raw, _payload().encode(), LinkTranscript(bytes(32)).info
    yield _reveal(2).link_key.raw, _payload().encode(), _transcript().info
    yield _reveal().link_key.raw, _payload().encode(), _transcript(2).info


def _device(number: int = 1, **changes: str) -> JsonObject:
    tag = f"link {number}"
    made = {
        "user_id": "alice",
        "link_id": drawn(f"{tag}: id", 16).hex(),
        "link_seed": drawn(f"{tag}: HPKE seed", 32).hex(),
        "device_id": drawn(f"{tag}: device id", 16).hex(),
        "device_signing_seed": drawn(f"{tag}: device signing key", 32).hex(),
        "identity_private_key": drawn(f"{tag}: identity key", 32).hex(),
        "nonce": drawn(f"{tag}: nonce of the new device", 32).hex(),
    }
    return {**made, **changes}


def _reveal(number: int = 1) -> LinkReveal:
    return linking.offer_of(Fields(_device(number))).reveal


def _commit(number: int = 1) -> LinkCommit:
    return LinkCommit(_reveal(number).link_id, _reveal(number).commitment())


def _answer(number: int = 1, account: Account = ALICE.account) -> LinkAnswer:
    party, nonce = account.party, LinkNonce(drawn(f"link {number}: nonce of the existing device", 32))
    address = account.address
    return LinkAnswer(
        _reveal().link_id, address.user_id, party.account_key, address.device_id, party.device_signing_key, nonce
    )


def _transcript(number: int = 1) -> LinkTranscript:
    return link_transcript(_commit(), _answer(number), _reveal())


def _payload(**changes: object) -> LinkPayload:
    honest = LinkPayload(ALICE.user_id, ALICE.account.account_key_pair, ALICE.device_list().signed)
    return replace(honest, **changes)  # type: ignore[arg-type]  # names and types are the cases'


def _bundle(payload: bytes, *, account: Account = ALICE.account) -> LinkBundle:
    text = sealed(_reveal().link_key.raw, payload, _transcript().info)
    return _signed(text, account=account)


def _signed(text: bytes, transcript: LinkTranscript | None = None, *, account: Account = ALICE.account) -> LinkBundle:
    signature = account.device_signing_key_pair.sign(bundle_signed_bytes(transcript or _transcript(), text))
    return LinkBundle(_reveal().link_id, text, signature)


# --- messages and signs --------------------------------------------------------------------------------------


def _offers() -> Iterator[Case]:
    yield valid("a device", _device())
    yield valid("another one", _device(2))
    yield valid("the same keys under another link id: the same commitment", _device(link_id="00" * 16))


def _codes() -> Iterator[Case]:
    link_id = _reveal().link_id
    code = link_code(link_id)
    groups = "-".join(code[at : at + 4] for at in range(0, 32, 4))
    yield valid("as it is shown", {"text": code})
    yield valid("in lower case", {"text": code.lower()})
    yield valid("in groups with hyphens", {"text": groups})
    yield valid("in groups with spaces", {"text": groups.replace("-", " ")})
    yield valid("the text of the QR code", {"text": link_qr_text(link_id)})
    yield valid("an id of zeros", {"text": link_code(LinkId(bytes(16)))}, "Boundary")
    yield invalid("another letter", "decode", {"text": ("B" if code[0] == "A" else "A") + code[1:]}, "InvalidText")
    yield invalid("two letters exchanged", "decode", {"text": code[1] + code[0] + code[2:]}, "InvalidText")
    yield invalid("a letter less", "decode", {"text": code[:-1]}, "Truncated")
    yield invalid("a letter more", "decode", {"text": code + "A"}, "TrailingBytes")
    yield invalid("a digit that base32 lacks", "decode", {"text": "1" + code[1:]}, "InvalidText")
    yield invalid("another prefix", "decode", {"text": f"E2EE1-SAFETY:{code}"}, "InvalidText")
    yield invalid("nothing", "decode", {"text": ""}, "Truncated")


def _three(**changes: bytes) -> JsonObject:
    honest = {"commit": _commit().encode(), "answer": _answer().encode(), "reveal": _reveal().encode()}
    return {name: each.hex() for name, each in {**honest, **changes}.items()}


def _compared() -> Iterator[Case]:
    yield valid("an honest exchange", _three())
    yield valid("another nonce of the existing device", _three(answer=_answer(2).encode()))
    mallory = replace(_answer(), account_key=MALLORY.account.party.account_key)
    yield valid("another account: other signs", _three(answer=mallory.encode()))
    longest = replace(_answer(), user_id=UserId("u" * 128))
    yield valid("the longest user id", _three(answer=longest.encode()), "Boundary")


def _not_compared() -> Iterator[Case]:
    honest = {"commit": _commit().encode(), "answer": _answer().encode(), "reveal": _reveal().encode()}
    for name, message in honest.items():
        yield invalid(f"{name}: version 2", "decode", _three(**{name: b"\x02" + message[1:]}), "UnknownVersion")
        yield invalid(f"{name}: another message", "decode", _three(**{name: put(message, 1, b"\x04")}), "WrongKind")
        yield invalid(f"{name}: a byte less", "decode", _three(**{name: message[:-1]}), "Truncated")
        yield invalid(f"{name}: a byte more", "decode", _three(**{name: message + b"\0"}), "TrailingBytes")
        other = put(message, 2, bytes(16))
        yield invalid(f"{name}: of another link", "authentication", _three(**{name: other}), "WrongLink")
    too_long = _commit().encode() + bytes(MAX_LINK_MESSAGE)
    yield invalid("more than 8 KiB", "decode", _three(commit=too_long), "BeyondLimit")
    for comment, key in non_canonical_keys(_reveal().device.identity_key.raw):
        message = put(_reveal().encode(), len(_reveal().encode()) - 64, key)
        yield invalid(f"identity key: {comment}", "decode", _three(reveal=message), "NonCanonicalKey")
    fields = {"HPKE key": 20, "device id": 1240, "device signing key": 1260, "identity key": 1290, "nonce": 1330}
    for name, at in fields.items():
        changed = _three(reveal=flip(_reveal().encode(), at))
        yield invalid(f"{name}: not what was committed to", "authentication", changed, "NotCommitted")
    committed = _three(commit=flip(_commit().encode(), -1))
    yield invalid("another commitment", "authentication", committed, "NotCommitted")


# --- bundles -------------------------------------------------------------------------------------------------


def _bundles() -> Iterator[Case]:
    seed = ALICE.account.device_signing_key_pair.seed.expose().hex()
    for comment, text in (("a bundle", _bundle(_payload().encode()).sealed), ("nothing sealed", b"")):
        given = {
            "device_signing_seed": seed,
            "link_id": str(_reveal().link_id),
            "transcript": str(_transcript()),
            "sealed": text.hex(),
        }
        yield valid(comment, given)


def _given(bundle: LinkBundle | bytes, **changes: JsonObject | str) -> JsonObject:
    encoded = bundle if isinstance(bundle, bytes) else bundle.encode()
    return {"device": _device(), "answer": _answer().encode().hex(), "bundle": encoded.hex(), **changes}


def _opened() -> Iterator[Case]:
    yield valid("an honest exchange", _given(_bundle(_payload().encode())))


def _payloads() -> Iterator[tuple[str, bytes, str, str]]:
    """Comment, payload, the layer that refuses, flag; the honest one first."""
    yield "honest", _payload().encode(), "", ""
    other_user = _payload(user_id=UserId("bob")).encode()
    yield "a payload for another user", other_user, "authentication", "WrongIdentity"
    other_key = _payload(account_key_pair=MALLORY.account.account_key_pair).encode()
    yield "the private key of another account", other_key, "authentication", "WrongIdentity"
    other_list = _payload(device_list=MALLORY.device_list().signed).encode()
    yield "another user's list", other_list, "signature", "WrongSigner"
    badly = _payload(device_list=replace(ALICE.device_list().signed, signature=bytes(64))).encode()
    yield "a list with a wrong signature", badly, "signature", "ModifiedSignature"
    unlisted = _payload(device_list=signed(ALICE, list_of(ALICE, []))).encode()
    yield "a list without the device that answered", unlisted, "authentication", "UnlistedDevice"
    early = _payload(device_list=signed(ALICE, list_of(ALICE, [ALICE.listed, _reveal().device]))).encode()
    yield "a list with the new device", early, "authentication", "UnlistedDevice"
    yield "version 2 of the payload", b"\x02" + _payload().encode()[1:], "decode", "UnknownVersion"
    yield "a payload with a byte more", _payload().encode() + b"\0", "decode", "TrailingBytes"
    yield "an empty payload", b"", "decode", "Truncated"


def _refused() -> Iterator[Case]:
    honest = _bundle(_payload().encode())
    encoded = honest.encode()
    yield invalid("version 2", "decode", _given(b"\x02" + encoded[1:]), "UnknownVersion")
    yield invalid("another message", "decode", _given(put(encoded, 1, b"\x03")), "WrongKind")
    yield invalid("a byte less", "decode", _given(encoded[:-1]), "Truncated")
    yield invalid("a byte more", "decode", _given(encoded + b"\0"), "TrailingBytes")
    yield invalid("of another link", "authentication", _given(put(encoded, 2, bytes(16))), "WrongLink")
    yield invalid("a changed signature", "signature", _given(flip(encoded, -1)), "ModifiedSignature")
    yield invalid("a changed byte of what is sealed", "signature", _given(flip(encoded, 30)), "SignedOtherwise")
    by_server = _bundle(_payload().encode(), account=MALLORY.account)
    yield invalid("signed by another device", "signature", _given(by_server), "WrongSigner")
    replayed = _signed(sealed(_reveal().link_key.raw, _payload().encode(), _transcript(2).info), _transcript(2))
    yield invalid("of an earlier exchange of the same devices", "signature", _given(replayed), "Replay")
    other_info = _signed(sealed(_reveal().link_key.raw, _payload().encode(), LinkTranscript(bytes(32)).info))
    yield invalid("sealed with another L", "authentication", _given(other_info), "WrongKey")
    other_key = _signed(sealed(_reveal(2).link_key.raw, _payload().encode(), _transcript().info))
    yield invalid("sealed to another key", "authentication", _given(other_key), "WrongKey")
    yield invalid("nothing sealed", "authentication", _given(_signed(b"")), "Truncated")
    for comment, payload, layer, flag in _payloads():
        if layer:
            yield Case(comment, _given(_bundle(payload)), (flag,), layer)  # type: ignore[arg-type]  # a Layer
    another = _answer(2).encode().hex()
    yield invalid(
        "another answer than the bundle was made for", "signature", _given(honest, answer=another), "WrongKey"
    )
    bob = replace(_answer(), user_id=UserId("bob")).encode().hex()
    yield invalid("an answer of another user", "authentication", _given(honest, answer=bob), "WrongIdentity")
