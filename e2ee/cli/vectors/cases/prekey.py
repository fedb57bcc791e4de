"""Cases of prekey.json."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import LOW_ORDER, flip, invalid, non_canonical_keys, put, valid
from e2ee.cli.vectors.cases.people import NOW, kem_pair, list_of, person, signed, x25519_pair
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import prekey
from e2ee.cli.vectors.operations.parts import address_json
from e2ee.limits import MAX_TIMESTAMP, PREKEY_LIFETIME_MS
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, PreKeyBundle, SignedPreKey

ALICE: Final = person("alice")
BOB: Final = person("bob")
EXPIRY: Final = NOW + PREKEY_LIFETIME_MS
_SIGNED: Final = 1 + 3 + 16
"""Offset of the signed prekey in a bundle of `bob`."""
_FLAG: Final = _SIGNED + 108
_KEM: Final = _FLAG + 1 + 36
"""Offset of the KEM prekey in a bundle of `bob` with a one-time prekey."""


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(prekey.SIGN_SIGNED_PREKEY, "signed prekeys", tuple(_signed_prekeys()))
    yield CaseGroup(prekey.SIGN_KEM_PREKEY, "KEM prekeys of both kinds", tuple(_kem_prekeys()))
    yield CaseGroup(prekey.DECODE_BUNDLE, "bundles", tuple(_decode()))
    yield CaseGroup(prekey.VERIFY_BUNDLE, "bundles against device lists", tuple(_verify()))
    yield CaseGroup(prekey.SIGN_ASSERTION, "login assertions", tuple(_sign_assertions()))
    yield CaseGroup(prekey.VERIFY_ASSERTION, "login assertions", tuple(_verify_assertions()))


def _signing() -> JsonObject:
    seed = BOB.account.device_signing_key_pair.seed.expose().hex()
    return {"device_signing_seed": seed, **address_json(BOB.address)}


def _signed_prekeys() -> Iterator[Case]:
    own = x25519_pair(BOB.signed_prekey)
    for comment, prekey_id, expires_at, key, flag in (
        ("a prekey", BOB.signed_prekey.prekey_id, EXPIRY, own.public.raw, "Normal"),
        ("id 0, expired for ever", 0, 0, own.public.raw, "Boundary"),
        ("the highest id and time", (1 << 32) - 1, MAX_TIMESTAMP, own.public.raw, "Boundary"),
        ("a key of low order is signed; the handshake refuses it", 1, EXPIRY, LOW_ORDER[2], "LowOrderKey"),
    ):
        given = {**_signing(), "prekey_id": prekey_id, "expires_at": expires_at, "public_key": key.hex()}
        yield valid(comment, given, flag)


def _kem_prekeys() -> Iterator[Case]:
    for comment, kind, own, flag in (
        ("one-time", KemPreKeyKind.ONE_TIME, BOB.one_time_kem, "Normal"),
        ("last-resort", KemPreKeyKind.LAST_RESORT, BOB.last_resort, "LastResort"),
    ):
        public = str(kem_pair(own).public)
        yield valid(
            comment,
            {
                **_signing(),
                "kind": int(kind),
                "prekey_id": own.prekey_id,
                "expires_at": EXPIRY,
                "public_key": public,
            },
            flag,
        )


def _decode() -> Iterator[Case]:
    yield valid("with a one-time prekey", {"encoded": BOB.bundle().encode().hex()})
    yield valid("without", {"encoded": BOB.bundle(one_time=False).encode().hex()}, "NoOneTimePreKey")
    last_resort = BOB.bundle(one_time=False, last_resort=True).encode()
    yield valid("with the last-resort KEM prekey", {"encoded": last_resort.hex()}, "LastResort", "NoOneTimePreKey")
    good = BOB.bundle().encode()
    own = x25519_pair(BOB.signed_prekey).public.raw
    for comment, encoded, flag in (
        ("an empty user id", b"\0" + good[4:], "BeyondLimit"),
        ("the signed prekey expires at 2^63", put(good, _SIGNED + 4, b"\x80"), "BeyondLimit"),
        ("the KEM prekey expires at 2^63", put(good, _KEM + 5, b"\x80"), "BeyondLimit"),
        ("the flag of the one-time prekey is 2", put(good, _FLAG, b"\2"), "NonCanonical"),
        ("the flag says that there is none, and one follows", put(good, _FLAG, b"\0"), "UnknownVersion"),
        ("kind 0 of KEM prekey", put(good, _KEM, b"\0"), "UnknownVersion"),
        ("kind 3 of KEM prekey", put(good, _KEM, b"\3"), "UnknownVersion"),
        ("no KEM prekey", good[:_KEM], "Truncated"),
        ("cut in the KEM prekey", good[: _KEM + 900], "Truncated"),
        ("the last byte is missing", good[:-1], "Truncated"),
        ("no bytes", b"", "Truncated"),
        ("one more byte", good + b"\0", "TrailingBytes"),
        *((f"signed prekey: {c}", put(good, _SIGNED + 12, k), "NonCanonicalKey") for c, k in non_canonical_keys(own)),
        *((f"one-time prekey: {c}", put(good, _FLAG + 5, k), "NonCanonicalKey") for c, k in non_canonical_keys(own)),
    ):
        yield invalid(comment, "decode", {"encoded": encoded.hex()}, flag)


def _given(bundle: PreKeyBundle | bytes, device_list: SignedDeviceList | None = None, now: int = NOW) -> JsonObject:
    encoded = bundle if isinstance(bundle, bytes) else bundle.encode()
    against = device_list or BOB.device_list().signed
    return {"device_list": against.encode().hex(), "bundle": encoded.hex(), "now": now}


def _verify() -> Iterator[Case]:
    yield valid("with a one-time prekey", _given(BOB.bundle()))
    yield valid("without", _given(BOB.bundle(one_time=False)), "NoOneTimePreKey")
    yield valid("with the last-resort KEM prekey", _given(BOB.bundle(last_resort=True)), "LastResort")
    yield valid("a millisecond before expiry", _given(BOB.bundle(), now=EXPIRY - 1), "Boundary")
    yield from _expired()
    yield from _unlisted()
    yield from _badly_signed()


def _expired() -> Iterator[Case]:
    yield invalid("at expiry", "limit", _given(BOB.bundle(), now=EXPIRY), "Expired", "Boundary")
    early = BOB.account.signed_prekey(replace(BOB.signed_prekey, created_at=NOW - PREKEY_LIFETIME_MS))
    yield invalid(
        "only the signed prekey has expired", "limit", _given(replace(BOB.bundle(), signed_prekey=early)), "Expired"
    )
    kem = BOB.account.kem_prekey(replace(BOB.one_time_kem, created_at=NOW - PREKEY_LIFETIME_MS))
    yield invalid("only the KEM prekey has expired", "limit", _given(replace(BOB.bundle(), kem_prekey=kem)), "Expired")


def _unlisted() -> Iterator[Case]:
    bundle, other = BOB.bundle(), person("bob", 2)
    for comment, device_list in (
        ("the list holds another device", signed(BOB, list_of(BOB, [other.listed]))),
        ("the list holds no device", signed(BOB, list_of(BOB, []))),
        ("another user's list with this device", signed(ALICE, list_of(ALICE, [BOB.listed]))),
    ):
        yield invalid(comment, "signature", _given(bundle, device_list), "UnlistedDevice")
    keys = replace(BOB.listed, device_signing_key=other.listed.device_signing_key)
    listed_otherwise = signed(BOB, list_of(BOB, [keys]))
    yield invalid(
        "the device is listed with another signing key", "signature", _given(bundle, listed_otherwise), "UnlistedDevice"
    )
    broken = replace(BOB.device_list().signed, signature=bytes(64))
    yield invalid("the list's signature is wrong", "signature", _given(bundle, broken), "ModifiedSignature")


def _badly_signed() -> Iterator[Case]:
    bundle = BOB.bundle()
    signed_prekey, kem_prekey = bundle.signed_prekey, bundle.kem_prekey

    def refused(comment: str, changed: PreKeyBundle | bytes, flag: str) -> Case:
        return invalid(comment, "signature", _given(changed), flag)

    good = bundle.encode()
    for comment, at, flag in (
        ("signed prekey: its id", _SIGNED + 3, "SignedOtherwise"),
        ("signed prekey: its expiry", _SIGNED + 11, "SignedOtherwise"),
        ("signed prekey: its key", _SIGNED + 12, "SignedOtherwise"),
        ("signed prekey: its signature", _SIGNED + 44, "ModifiedSignature"),
        ("KEM prekey: its id", _KEM + 4, "SignedOtherwise"),
        ("KEM prekey: its expiry", _KEM + 12, "SignedOtherwise"),
        ("KEM prekey: its key", _KEM + 13, "SignedOtherwise"),
        ("KEM prekey: its signature", len(good) - 1, "ModifiedSignature"),
    ):
        yield refused(f"a bit of the {comment} is turned", flip(good, at), flag)
    one_time = replace(kem_prekey, kind=KemPreKeyKind.LAST_RESORT)
    yield refused(
        "a one-time KEM prekey in the place of the last-resort one", replace(bundle, kem_prekey=one_time), "WrongLabel"
    )
    last = replace(BOB.bundle(last_resort=True).kem_prekey, kind=KemPreKeyKind.ONE_TIME)
    yield refused("the last-resort KEM prekey as a one-time one", replace(bundle, kem_prekey=last), "WrongLabel")
    unlabelled = signed_prekey.signed_bytes(BOB.address)[21:]
    signature = BOB.account.device_signing_key_pair.sign(unlabelled)
    no_label = replace(signed_prekey, signature=signature)
    yield refused("signed without a label", replace(bundle, signed_prekey=no_label), "WrongLabel")
    by_account = BOB.account.account_key_pair.sign(signed_prekey.signed_bytes(BOB.address))
    yield refused(
        "the signed prekey is signed by the account key",
        replace(bundle, signed_prekey=replace(signed_prekey, signature=by_account)),
        "WrongSigner",
    )
    by_alice = ALICE.account.signed_prekey(ALICE.signed_prekey)
    yield refused("another device's signed prekey", replace(bundle, signed_prekey=by_alice), "WrongSigner")
    theirs = ALICE.account.kem_prekey(ALICE.one_time_kem)
    yield refused("another device's KEM prekey", replace(bundle, kem_prekey=theirs), "WrongSigner")
    for prekey_address in (person("bob", 2).address, ALICE.address):
        moved = signed_for(prekey_address.encode(), signed_prekey)
        yield refused(
            "signed by the right key for another address", replace(bundle, signed_prekey=moved), "SignedOtherwise"
        )


def signed_for(address: bytes, prekey_: SignedPreKey) -> SignedPreKey:
    """Return the prekey, signed by bob's device for another address."""
    label = b"\x14E2EE/1 signed prekey"
    tail = prekey_.signed_bytes(BOB.address)[len(label) + len(BOB.address.encode()) :]
    return replace(prekey_, signature=BOB.account.device_signing_key_pair.sign(label + address + tail))


def low_order_bundle(key: bytes) -> PreKeyBundle:
    """Return bob's bundle with a signed prekey of low order, signed by bob's device."""
    bundle = BOB.bundle()
    unsigned = replace(bundle.signed_prekey, public_key=type(bundle.signed_prekey.public_key)(key))
    signature = BOB.account.device_signing_key_pair.sign(unsigned.signed_bytes(BOB.address))
    return replace(bundle, signed_prekey=replace(unsigned, signature=signature))


def kem_bundle(key: bytes) -> PreKeyBundle:
    """Return bob's bundle with another KEM key, signed by bob's device."""
    bundle = BOB.bundle()
    public = type(bundle.kem_prekey.public_key)(key)
    unsigned = KemPreKey(KemPreKeyKind.ONE_TIME, PreKeyId(5), EXPIRY, public, bytes(64))
    signature = BOB.account.device_signing_key_pair.sign(unsigned.signed_bytes(BOB.address))
    return replace(bundle, kem_prekey=replace(unsigned, signature=signature))


def _assertion(**changes: object) -> JsonObject:
    return {
        "origin": "https://chat.example",
        **address_json(BOB.address),
        "login_id": drawn("login id", 16).hex(),
        "counter": NOW,
        **changes,
    }


def _sign_assertions() -> Iterator[Case]:
    seed = {"device_signing_seed": BOB.account.device_signing_key_pair.seed.expose().hex()}
    yield valid("an origin without a port", {**seed, **_assertion()})
    for origin in ("https://chat.example:8443", "http://127.0.0.1:8440", "http://[::1]:8440", "https://a"):
        yield valid(f"origin {origin}", {**seed, **_assertion(origin=origin)})
    yield valid("the highest counter", {**seed, **_assertion(counter=MAX_TIMESTAMP)}, "Boundary")
    for origin in (
        "https://chat.example/",
        "https://chat.example/path",
        "https://chat.example:443",
        "http://chat.example:80",
        "https://chat.example:08443",
        "https://chat.example:65536",
        "HTTPS://chat.example",
        "https://Chat.example",
        "https://-chat.example",
        "https://user@chat.example",
        "wss://chat.example",
        "https://",
        "",
    ):
        yield invalid(f"origin {origin!r}", "decode", {**seed, **_assertion(origin=origin)}, "NonCanonical")


def _verify_assertions() -> Iterator[Case]:
    pair = BOB.account.device_signing_key_pair
    made = prekey.SIGN_ASSERTION.answer({"device_signing_seed": pair.seed.expose().hex(), **_assertion()})["output"]
    signature = bytes.fromhex(made["signature"])

    def given(signed_with: bytes = signature, key: str = str(pair.public), **changes: object) -> JsonObject:
        return {"device_signing_key": key, **_assertion(**changes), "signature": signed_with.hex()}

    yield valid("an assertion", given())
    for comment, changes in (
        ("another origin", {"origin": "https://other.example"}),
        ("another port", {"origin": "https://chat.example:8443"}),
        ("another user", {"user_id": "rob"}),
        ("another device", {"device_id": str(ALICE.address.device_id)}),
        ("another login", {"login_id": drawn("login id 2", 16).hex()}),
        ("another counter", {"counter": NOW + 1}),
    ):
        yield invalid(comment, "signature", given(**changes), "SignedOtherwise")
    yield invalid("a bit of the signature is turned", "signature", given(flip(signature, 7)), "ModifiedSignature")
    yield invalid("a signature of 63 bytes", "signature", given(signature[:-1]), "ModifiedSignature")
    yield invalid("another device's key", "signature", given(key=str(ALICE.listed.device_signing_key)), "WrongSigner")
    without_label = bytes.fromhex(made["signed_bytes"])[23:]
    yield invalid("signed without a label", "signature", given(pair.sign(without_label)), "WrongLabel")
