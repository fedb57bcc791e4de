"""Cases of pqxdh.json."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import LOW_ORDER, invalid, non_canonical_keys, put, valid
from e2ee.cli.vectors.cases.people import NOW, kem_pair, list_of, person, signed, x25519_pair
from e2ee.cli.vectors.cases.prekey import kem_bundle, low_order_bundle
from e2ee.cli.vectors.drawn import drawn, encapsulation
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import pqxdh
from e2ee.cli.vectors.operations.parts import address_json, party_json
from e2ee.cli.vectors.refusals import Layer
from e2ee.limits import PREKEY_LIFETIME_MS
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.prekey_bundle import OneTimePreKey, PreKeyBundle
from e2ee.wire.public_keys import IdentityKey, PreKeyPublicKey

ALICE: Final = person("alice")
BOB: Final = person("bob")
_EPHEMERAL_KEY: Final = 106
"""Offset in the handshake header."""


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(pqxdh.INITIATE, "alice starts a session with bob", tuple(_initiate()))
    yield CaseGroup(pqxdh.RESPOND, "bob answers", tuple(_respond()))


def _given(
    bundle: PreKeyBundle,
    *,
    device_list: SignedDeviceList | None = None,
    now: int = NOW,
    created: int = NOW,
    number: int = 0,
) -> JsonObject:
    recorded_for = BOB.last_resort if bundle.kem_prekey.kind == 2 else BOB.one_time_kem
    shared_secret, ciphertext = encapsulation(kem_pair(recorded_for).public.raw, number)
    return {
        "initiator": party_json(ALICE.account.party),
        "identity_private_key": ALICE.account.identity_key_pair.private.expose().hex(),
        "device_list": (device_list or BOB.device_list().signed).encode().hex(),
        "bundle": bundle.encode().hex(),
        "now": now,
        "created": created,
        "ephemeral_private_key": drawn(f"pqxdh: ephemeral key {number}", 32).hex(),
        "kem_shared_secret": shared_secret.hex(),
        "kem_ciphertext": ciphertext.hex(),
    }


def _handshakes() -> Iterator[tuple[str, JsonObject, tuple[str, ...]]]:
    yield "with a one-time prekey of each kind", _given(BOB.bundle()), ("Normal",)
    yield "without a one-time X25519 prekey", _given(BOB.bundle(one_time=False), number=1), ("NoOneTimePreKey",)
    yield "with the last-resort KEM prekey", _given(BOB.bundle(last_resort=True)), ("LastResort",)
    neither = _given(BOB.bundle(one_time=False, last_resort=True), number=1)
    yield "with no one-time prekey at all", neither, ("NoOneTimePreKey", "LastResort")
    later = _given(BOB.bundle(), created=NOW + 5, number=2)
    yield "created is later than now: a session of this millisecond exists", later, ("Boundary",)


def _initiate() -> Iterator[Case]:
    for comment, given, flags in _handshakes():
        yield valid(comment, given, *flags)
    yield invalid("an expired bundle", "limit", _given(BOB.bundle(), now=NOW + PREKEY_LIFETIME_MS), "Expired")
    other = signed(BOB, list_of(BOB, [person("bob", 2).listed]))
    yield invalid("the device is not listed", "signature", _given(BOB.bundle(), device_list=other), "UnlistedDevice")
    for key in LOW_ORDER:
        yield invalid("the signed prekey is of low order", "dh", _given(low_order_bundle(key)), "LowOrderKey")
    bundle = BOB.bundle()
    for key in LOW_ORDER[:2]:
        changed = replace(bundle, one_time_prekey=OneTimePreKey(PreKeyId(0), PreKeyPublicKey(key)))
        yield invalid("the one-time prekey is of low order", "dh", _given(changed), "LowOrderKey")
    low = replace(BOB.listed, identity_key=IdentityKey(LOW_ORDER[3]))
    listed = signed(BOB, list_of(BOB, [low]))
    yield invalid("the identity key is of low order", "dh", _given(bundle, device_list=listed), "LowOrderKey")
    # 12 bits per coefficient, little-endian: the first becomes 4,095, and q is 3,329.
    beyond = put(bundle.kem_prekey.public_key.raw, 0, b"\xff\xff")
    yield invalid("a coefficient of the KEM prekey is q or more", "dh", _given(kem_bundle(beyond)), "InvalidKemKey")
    yield invalid("the bundle is cut", "decode", _cut(_given(bundle)), "Truncated")


def _cut(given: JsonObject) -> JsonObject:
    return {**given, "bundle": given["bundle"][:-2]}


def _responder(given: JsonObject) -> JsonObject:
    """Return the responder's case for an initiator's."""
    header = pqxdh.INITIATE.answer(given)["output"]["handshake_header"]
    bundle = PreKeyBundle.decode(bytes.fromhex(given["bundle"]))
    kem = BOB.last_resort if bundle.kem_prekey.kind == 2 else BOB.one_time_kem
    one_time = x25519_pair(BOB.one_time_prekeys[0]).private.expose().hex()
    named = {"one_time_prekey_private_key": one_time} if bundle.one_time_prekey else {}
    return {
        "responder": party_json(BOB.account.party),
        "identity_private_key": BOB.account.identity_key_pair.private.expose().hex(),
        "signed_prekey_private_key": x25519_pair(BOB.signed_prekey).private.expose().hex(),
        **named,
        "kem_prekey_seed": kem_pair(kem).seed.expose().hex(),
        "initiator": address_json(ALICE.address),
        "handshake_header": header,
    }


def _respond() -> Iterator[Case]:
    for comment, given, flags in _handshakes():
        yield valid(comment, _responder(given), *flags)
    good = _responder(_given(BOB.bundle()))
    header = bytes.fromhex(good["handshake_header"])
    changed = put(header, 151, bytes([header[151] ^ 1]))
    yield valid(
        "a changed KEM ciphertext: other keys, no error",
        {**good, "handshake_header": changed.hex()},
        "ImplicitRejection",
        "ModifiedHandshake",
    )
    yield valid(
        "another initiator's address: other keys, no error",
        {**good, "initiator": address_json(person("mallory").address)},
        "WrongIdentity",
    )

    def refused(comment: str, fails_at: Layer, data: bytes, flag: str) -> Case:
        return invalid(comment, fails_at, {**good, "handshake_header": data.hex()}, flag)

    for key in LOW_ORDER:
        yield refused("the ephemeral key is of low order", "dh", put(header, _EPHEMERAL_KEY, key), "LowOrderKey")
    for key in LOW_ORDER:
        yield refused("the identity key is of low order", "dh", put(header, 66, key), "LowOrderKey")
    for comment, key in non_canonical_keys(header[_EPHEMERAL_KEY : _EPHEMERAL_KEY + 32]):
        yield refused(f"ephemeral key: {comment}", "decode", put(header, _EPHEMERAL_KEY, key), "NonCanonicalKey")
    yield refused("the header is cut", "decode", header[:-1], "Truncated")
    yield refused("one more byte", "decode", header + b"\0", "TrailingBytes")
