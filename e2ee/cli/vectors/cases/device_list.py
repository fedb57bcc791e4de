"""Cases of device_list.json."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import LOW_ORDER, flip, invalid, non_canonical_keys, put, valid
from e2ee.cli.vectors.cases.people import NOW, list_of, person, signed
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import device_list
from e2ee.limits import MAX_DEVICES, MAX_TIMESTAMP
from e2ee.primitives.kdf import sha256
from e2ee.private_keys import AccountKeyPair, DeviceSigningKeyPair, IdentityKeyPair, SeedBytes32
from e2ee.wire.device_list import DeviceList, DeviceListHash, ListedDevice, SignedDeviceList, ordered
from e2ee.wire.identifiers import DeviceId, UserId
from e2ee.wire.public_keys import IdentityKey

ALICE: Final = person("alice")
_COUNT: Final = 1 + 5 + 32 + 8 + 32 + 8 + 8
"""Offset of the number of devices in a list of `alice`."""
_SEQ: Final = 1 + 5 + 32


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(device_list.SIGN, "fields to signed lists", tuple(_sign()))
    yield CaseGroup(device_list.DECODE, "bytes to fields", tuple(_decode()))
    yield CaseGroup(device_list.VERIFY, "whose list is it", tuple(_verify()))
    yield CaseGroup(device_list.JUDGE, "one list after another", tuple(_chains()))
    yield CaseGroup(device_list.JUDGE, "a list below the newest one known", tuple(_older()))
    yield CaseGroup(device_list.JUDGE, "the last list of an account key holds no device", tuple(_closed()))
    yield CaseGroup(device_list.JUDGE, "a device id keeps its keys for ever", tuple(_kept_keys()))


def entry(number: int) -> ListedDevice:
    """Return the `number`th further device of alice."""
    return ListedDevice(
        DeviceId(bytes((number,)) + drawn(f"device {number}: id", 15)),
        DeviceSigningKeyPair(SeedBytes32(drawn(f"device {number}: signing", 32))).public,
        IdentityKeyPair(SeedBytes32(drawn(f"device {number}: identity", 32))).public,
    )


def _lists() -> Iterator[tuple[str, DeviceList, str]]:
    previous = DeviceListHash(drawn("device list: previous", 32))
    yield "the first list, one device", list_of(ALICE, [ALICE.listed]), "Normal"
    yield "two devices", list_of(ALICE, [ALICE.listed, entry(1)], 2, previous), "Normal"
    most = [entry(number) for number in range(1, MAX_DEVICES + 1)]
    yield "ten devices", list_of(ALICE, most, 3, previous), "Boundary"
    yield "no devices", list_of(ALICE, [], 4, previous), "Boundary"
    low = replace(entry(1), identity_key=IdentityKey(LOW_ORDER[1]))
    yield "an identity key of low order decodes; the handshake refuses it", list_of(ALICE, [low]), "LowOrderKey"
    latest = replace(
        list_of(ALICE, [ALICE.listed], 2, previous), seq=MAX_TIMESTAMP, created_at=0, expires_at=MAX_TIMESTAMP
    )
    yield "the highest seq and time", latest, "Boundary"


def _sign() -> Iterator[Case]:
    for comment, each, flag in _lists():
        devices = [
            {
                "device_id": str(device.device_id),
                "device_signing_key": str(device.device_signing_key),
                "identity_key": str(device.identity_key),
            }
            for device in each.devices
        ]
        given: JsonObject = {
            "account_seed": ALICE.account.account_key_pair.seed.expose().hex(),
            "user_id": each.user_id,
            "seq": each.seq,
            "previous_hash": str(each.previous_hash),
            "created_at": each.created_at,
            "expires_at": each.expires_at,
            "devices": devices,
        }
        yield valid(comment, given, flag)


def _decode() -> Iterator[Case]:
    for comment, each, flag in _lists():
        yield valid(comment, {"encoded": signed(ALICE, each).encode().hex()}, flag)
    unsigned = SignedDeviceList(list_of(ALICE, [ALICE.listed]), bytes(64))
    yield valid("decoding does not verify", {"encoded": unsigned.encode().hex()}, "ModifiedSignature")
    for comment, encoded, flag in _undecodable():
        yield invalid(comment, "decode", {"encoded": encoded.hex()}, flag)


def _undecodable() -> Iterator[tuple[str, bytes, str]]:
    """All of these carry a valid signature: a verifier that does not decode first would accept them."""
    first = list_of(ALICE, [ALICE.listed]).encode()
    two = list_of(ALICE, [entry(1), entry(2)]).encode()
    head, one, other = two[: _COUNT + 1], two[_COUNT + 1 : _COUNT + 81], two[_COUNT + 81 :]
    yield "devices in descending order", _resigned(head + other + one), "DeviceOrder"
    yield "a device twice", _resigned(head + one + one), "DeviceOrder"
    same_id = put(one, 16, other[16:])
    yield "two entries with one device id and different keys", _resigned(head + one + same_id), "DeviceOrder"
    yield "seq 0", _resigned(put(first, _SEQ, bytes(8))), "ListStart"
    yield "the first list names a predecessor", _resigned(put(first, _SEQ + 8, drawn("ls", 32))), "ListStart"
    yield "a later list names none", _resigned(put(first, _SEQ + 7, b"\2")), "ListStart"
    for comment, offset in (("seq", _SEQ), ("created at", _COUNT - 16), ("expires at", _COUNT - 8)):
        yield f"{comment} is 2^63 or more", _resigned(put(first, offset, b"\x80")), "BeyondLimit"
    eleven = b"".join(_entry_bytes(entry(number)) for number in range(1, MAX_DEVICES + 2))
    yield "eleven devices", _resigned(first[:_COUNT] + b"\x0b" + eleven), "BeyondLimit"
    yield "a count of 255", _resigned(put(first, _COUNT, b"\xff")), "BeyondLimit"
    yield "an empty user id", _resigned(b"\0" + first[6:]), "BeyondLimit"
    yield "a space in the user id", _resigned(put(first, 3, b" ")), "InvalidText"
    yield "a byte above 0x7F in the user id", _resigned(put(first, 3, b"\xe4")), "InvalidText"
    for comment, key in non_canonical_keys(ALICE.listed.identity_key.raw):
        yield f"identity key: {comment}", _resigned(put(first, len(first) - 32, key)), "NonCanonicalKey"
    whole = _resigned(first)
    yield "one more byte", whole + b"\0", "TrailingBytes"
    yield "no bytes", b"", "Truncated"
    yield "cut in the account key", whole[:20], "Truncated"
    yield "cut in the devices", whole[: _COUNT + 40], "Truncated"
    yield "no signature", first, "Truncated"
    yield "a signature of 63 bytes", whole[:-1], "Truncated"


def _resigned(content: bytes) -> bytes:
    label = b"\x12E2EE/1 device list"
    return content + ALICE.account.account_key_pair.sign(label + content)


def _entry_bytes(device: ListedDevice) -> bytes:
    return device.device_id.raw + device.device_signing_key.raw + device.identity_key.raw


def _verify() -> Iterator[Case]:
    content = list_of(ALICE, [ALICE.listed])
    good = signed(ALICE, content)

    def given(encoded: bytes, user_id: str = "alice") -> JsonObject:
        return {"user_id": user_id, "encoded": encoded.hex()}

    def refused(comment: str, encoded: bytes, flag: str) -> Case:
        return invalid(comment, "signature", given(encoded), flag)

    yield valid("one device", given(good.encode()))
    yield valid("no devices", given(signed(ALICE, list_of(ALICE, [])).encode()), "Boundary")
    for comment, at in (("R", -64), ("S", -32)):
        yield refused(f"a bit of {comment} is turned", flip(good.encode(), at), "ModifiedSignature")
    for comment, at in (
        ("the account key", 6),
        ("created at", _COUNT - 9),
        ("a device id", _COUNT + 1),
        ("a device signing key", _COUNT + 17),
        ("an identity key", _COUNT + 49),
    ):
        yield refused(f"a bit of {comment} is turned", flip(good.encode(), at), "SignedOtherwise")
    yield invalid("another user's list", "signature", given(good.encode(), "bob"), "WrongSigner")
    mallory = person("mallory").account.account_key_pair
    foreign = SignedDeviceList(content, mallory.sign(content.signed_bytes()))
    yield refused("signed by another account key than the one it names", foreign.encode(), "WrongSigner")
    yield refused(
        "signed by the device signing key", content.encode() + _by_device(content.signed_bytes()), "WrongSigner"
    )
    fields = content.encode()
    for comment, signed_bytes in (
        ("no label", fields),
        ("the label of a signed prekey", b"\x14E2EE/1 signed prekey" + fields),
        ("the label without its length", b"E2EE/1 device list" + fields),
        ("the hash instead of the signed bytes", content.hash().raw),
    ):
        signature = ALICE.account.account_key_pair.sign(signed_bytes)
        yield refused(f"signed: {comment}", fields + signature, "WrongLabel")


def _by_device(signed_bytes: bytes) -> bytes:
    return ALICE.account.device_signing_key_pair.sign(signed_bytes)


def _chains() -> Iterator[Case]:
    first = list_of(ALICE, [ALICE.listed])
    second = list_of(ALICE, [ALICE.listed, entry(1)], 2, first.hash())
    third = list_of(ALICE, [ALICE.listed], 3, second.hash())
    fifth = list_of(ALICE, [entry(1)], 5, DeviceListHash(drawn("chain: hash of the fourth", 32)))
    yield valid("three lists in order", _seen(first, second, third))
    yield valid("the same list twice", _seen(first, second, second), "Replay")
    yield valid("an older list changes nothing", _seen(second, third, second, first), "Replay")
    yield valid("a gap", _seen(first, third), "ListGap")
    yield valid("two gaps", _seen(second, fifth), "ListGap")
    yield valid("begins with a later list", _seen(fifth), "ListGap")
    other_first = replace(first, created_at=NOW)
    other_second = replace(second, devices=(entry(2),))
    yield invalid("same seq, another list", "signature", _seen(first, other_first), "ListFork")
    yield invalid("same seq later in the chain", "signature", _seen(first, second, other_second), "ListFork")
    wrong = replace(second, previous_hash=other_first.hash())
    yield invalid("the next list names another predecessor", "signature", _seen(first, wrong), "ListFork")
    below = _seen(second, other_first)
    yield invalid("an older list is not the predecessor that the newest one names", "signature", below, "ListFork")
    by_signature = replace(second, previous_hash=DeviceListHash(_hash_of_signature(first)))
    yield invalid(
        "the next list names the hash of bytes and signature", "signature", _seen(first, by_signature), "ListFork"
    )
    mallory = AccountKeyPair(SeedBytes32(drawn("mallory: account key", 32)))
    taken = replace(second, account_key=mallory.public)
    changed = SignedDeviceList(taken, mallory.sign(taken.signed_bytes())).encode()
    yield invalid("the next list is under another account key", "signature", _seen(first, changed), "AccountKeyChanged")
    forged = SignedDeviceList(second, mallory.sign(second.signed_bytes())).encode()
    yield invalid("the next list is signed by another key", "signature", _seen(first, forged), "WrongSigner")
    others = replace(second, user_id=UserId("bob"))
    yield invalid("the next list is another user's", "signature", _seen(first, others), "WrongSigner")
    yield invalid("the next list is cut", "decode", _seen(first, signed(ALICE, second).encode()[:-1]), "Truncated")


def _older() -> Iterator[Case]:
    """Rule 4: only the list just below the newest one can be told from a false one; what is below that is rule 7's."""
    first = list_of(ALICE, [ALICE.listed])
    second = list_of(ALICE, [ALICE.listed, entry(1)], 2, first.hash())
    third = list_of(ALICE, [ALICE.listed], 3, second.hash())
    other_first = replace(first, created_at=NOW)
    other_second = replace(second, devices=ordered((ALICE.listed, entry(2))))
    yield valid("the link that a gap left out comes later", _seen(first, third, second), "ListGap")
    yield valid("begins with a later list, its predecessor comes after it", _seen(second, first), "ListGap")
    below = _seen(third, other_first)
    yield valid("another list two below: no hash is known that it contradicts", below, "ListGap")
    false_link = _seen(first, third, other_second)
    yield invalid("the link that a gap left out is not the one named", "signature", false_link, "ListFork")
    before = _seen(third, other_second)
    yield invalid("begins with a later list, which names another predecessor", "signature", before, "ListFork")
    again = _seen(third, second, other_second)
    yield invalid("after the right predecessor comes a false one", "signature", again, "ListFork")


def _closed() -> Iterator[Case]:
    """Rule 8: nothing follows under the same key. That a list was the last shows only by what comes after it."""
    first = list_of(ALICE, [ALICE.listed])
    closing = list_of(ALICE, [], 2, first.hash())
    yield valid("a last list", _seen(first, closing))
    yield valid("what came before it, seen afterwards", _seen(closing, first), "Replay")
    after = list_of(ALICE, [ALICE.listed], 3, closing.hash())
    yield invalid("a list that follows the last one", "signature", _seen(first, closing, after), "ClosedKey")
    later = list_of(ALICE, [ALICE.listed], 7, DeviceListHash(drawn("closed: hash of the sixth", 32)))
    yield invalid("a list that follows it over a gap", "signature", _seen(first, closing, later), "ClosedKey")
    yield invalid("a second empty list", "signature", _seen(closing, replace(after, devices=())), "ClosedKey")
    yield invalid("an empty list below the newest one", "signature", _seen(after, closing), "ClosedKey")


def _kept_keys() -> Iterator[Case]:
    """Rule 7: in the next list, over a gap, and below the newest one, where every hash fits."""
    first = list_of(ALICE, [ALICE.listed])
    for comment, other in (
        ("another identity key", replace(ALICE.listed, identity_key=entry(3).identity_key)),
        ("another device signing key", replace(ALICE.listed, device_signing_key=entry(3).device_signing_key)),
    ):
        rekeyed = list_of(ALICE, [other, entry(1)], 2, first.hash())
        yield invalid(f"{comment} in the next list", "signature", _seen(first, rekeyed), "ListFork")
        yield invalid(
            f"{comment} in the list before, which the newest one names", "signature", _seen(rekeyed, first), "ListFork"
        )
        far = replace(rekeyed, seq=5)
        yield invalid(f"{comment} over a gap", "signature", _seen(first, far), "ListFork")
        yield invalid(f"{comment} below a gap", "signature", _seen(far, first), "ListFork")
    one, two = entry(1), entry(2)
    both = list_of(ALICE, [one, two])
    swapped = [replace(one, device_id=two.device_id), replace(two, device_id=one.device_id)]
    exchanged = list_of(ALICE, swapped, 2, both.hash())
    yield invalid("two devices with each other's keys", "signature", _seen(both, exchanged), "ListFork")
    kept = list_of(ALICE, [entry(3), two], 5, DeviceListHash(drawn("kept keys: hash of the fourth", 32)))
    yield valid("one device goes, another comes, the third keeps its keys", _seen(both, kept), "ListGap")
    yield valid("the same, seen from its end", _seen(kept, both), "ListGap")


def _seen(*lists: DeviceList | bytes) -> JsonObject:
    """Return alice's lists in the order in which a device sees them."""
    encoded = [each if isinstance(each, bytes) else signed(ALICE, each).encode() for each in lists]
    return {"user_id": "alice", "lists": [each.hex() for each in encoded]}


def _hash_of_signature(content: DeviceList) -> bytes:
    return sha256(content.signed_bytes() + signed(ALICE, content).signature)
