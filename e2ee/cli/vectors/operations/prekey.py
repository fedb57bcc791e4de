"""Prekeys, bundles and login assertions: what the device signing key signs (protocol.md sections 3.3 and 5).

Owns: the operations of prekey.json.
Does not know about: cases, private halves of prekeys.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.operations.parts import ADDRESS, address_json, address_of
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import MAX_TIMESTAMP, Schema, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.private_keys import DeviceSigningKeyPair, SeedBytes32
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId
from e2ee.wire.login_assertion import LoginAssertion, LoginId, parse_origin
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, PreKeyBundle, SignedPreKey, VerifiedPreKeyBundle
from e2ee.wire.public_keys import DeviceSigningKey, KemPreKeyPublicKey, PreKeyPublicKey

_SIGNED: Final[dict[str, Schema]] = {
    "prekey_id": integer(),
    "expires_at": timestamp(),
    "public_key": hex_bytes(32),
    "signature": hex_bytes(64),
}
_KEM: Final[dict[str, Schema]] = {
    "kind": one_of(*KemPreKeyKind),
    "prekey_id": integer(),
    "expires_at": timestamp(),
    "public_key": hex_bytes(1568),
    "signature": hex_bytes(64),
}
_ONE_TIME: Final = record(prekey_id=integer(), public_key=hex_bytes(32))
_PREKEYS: Final[dict[str, Schema]] = {
    **ADDRESS,
    "signed_prekey": record(**_SIGNED),
    "one_time_prekey": _ONE_TIME,
    "kem_prekey": record(**_KEM),
}
_ASSERTION: Final[dict[str, Schema]] = {
    "origin": text(),
    **ADDRESS,
    "login_id": hex_bytes(16),
    "counter": integer(MAX_TIMESTAMP),
}


def _signing_pair(fields: Fields) -> DeviceSigningKeyPair:
    return DeviceSigningKeyPair(SeedBytes32(fields.hex("device_signing_seed")))


def _sign_signed_prekey(fields: Fields) -> JsonObject:
    pair, address = _signing_pair(fields), address_of(fields)
    public = PreKeyPublicKey.from_bytes(fields.hex("public_key"))
    unsigned = SignedPreKey(PreKeyId(fields.number("prekey_id")), fields.number("expires_at"), public, bytes(64))
    signed_bytes = unsigned.signed_bytes(address)
    signed = SignedPreKey(unsigned.prekey_id, unsigned.expires_at, public, pair.sign(signed_bytes))
    return _signed_json(pair, signed_bytes, signed.encode())


def _sign_kem_prekey(fields: Fields) -> JsonObject:
    pair, address = _signing_pair(fields), address_of(fields)
    kind, prekey_id = KemPreKeyKind(fields.number("kind")), PreKeyId(fields.number("prekey_id"))
    expires_at, public = fields.number("expires_at"), KemPreKeyPublicKey.from_bytes(fields.hex("public_key"))
    signed_bytes = KemPreKey(kind, prekey_id, expires_at, public, bytes(64)).signed_bytes(address)
    signed = KemPreKey(kind, prekey_id, expires_at, public, pair.sign(signed_bytes))
    return _signed_json(pair, signed_bytes, signed.encode())


def _signed_json(pair: DeviceSigningKeyPair, signed_bytes: bytes, encoded: bytes) -> JsonObject:
    return {"device_signing_key": str(pair.public), "signed_bytes": signed_bytes.hex(), "encoded": encoded.hex()}


def _decode_bundle(fields: Fields) -> JsonObject:
    with decoding():
        bundle = PreKeyBundle.decode(fields.hex("encoded"))
    return _prekeys_json(bundle)


def _prekeys_json(bundle: PreKeyBundle | VerifiedPreKeyBundle) -> JsonObject:
    signed, one_time, kem = bundle.signed_prekey, bundle.one_time_prekey, bundle.kem_prekey
    outcome: JsonObject = {
        **address_json(bundle.address),
        "signed_prekey": {
            "prekey_id": signed.prekey_id,
            "expires_at": signed.expires_at,
            "public_key": str(signed.public_key),
            "signature": signed.signature.hex(),
        },
    }
    if one_time is not None:
        outcome["one_time_prekey"] = {"prekey_id": one_time.prekey_id, "public_key": str(one_time.public_key)}
    outcome["kem_prekey"] = {
        "kind": int(kem.kind),
        "prekey_id": kem.prekey_id,
        "expires_at": kem.expires_at,
        "public_key": str(kem.public_key),
        "signature": kem.signature.hex(),
    }
    return outcome


def verified_bundle(fields: Fields) -> VerifiedPreKeyBundle:
    """Decode and verify `bundle` against `device_list` at the time `now`; both are of the bundle's user."""
    with decoding():
        device_list = SignedDeviceList.decode(fields.hex("device_list"))
        bundle = PreKeyBundle.decode(fields.hex("bundle"))
    user_id: UserId = device_list.unverified.user_id
    return bundle.verify(device_list.verify(user_id), fields.number("now"))


def _verify_bundle(fields: Fields) -> JsonObject:
    bundle = verified_bundle(fields)
    one_time = bundle.one_time_prekey
    return {
        "account_key": str(bundle.account_key),
        "device_signing_key": str(bundle.device_signing_key),
        "identity_key": str(bundle.identity_key),
        **({} if one_time is None else {"one_time_prekey": str(one_time.public_key)}),
        "prekey_ids": [each.prekey_id for each in (bundle.signed_prekey, one_time, bundle.kem_prekey) if each],
    }


def _assertion(fields: Fields) -> LoginAssertion:
    address: DeviceAddress = address_of(fields)
    return LoginAssertion(
        parse_origin(fields.text("origin")), address, LoginId(fields.hex("login_id")), fields.number("counter")
    )


def _sign_assertion(fields: Fields) -> JsonObject:
    pair, signed_bytes = _signing_pair(fields), _assertion(fields).signed_bytes()
    return {
        "device_signing_key": str(pair.public),
        "signed_bytes": signed_bytes.hex(),
        "signature": pair.sign(signed_bytes).hex(),
    }


def _verify_assertion(fields: Fields) -> JsonObject:
    key = DeviceSigningKey.from_bytes(fields.hex("device_signing_key"))
    _assertion(fields).verify(key, fields.hex("signature"))
    return {}


_SIGNING: Final[dict[str, Schema]] = {"device_signing_seed": hex_bytes(32), **ADDRESS}
_OUTCOME: Final = record(device_signing_key=hex_bytes(32), signed_bytes=hex_bytes(), encoded=hex_bytes())

SIGN_SIGNED_PREKEY = Operation(
    "SignedPreKeySign",
    "A signed prekey from its public key",
    record(**_SIGNING, prekey_id=integer(), expires_at=timestamp(), public_key=hex_bytes(32)),
    _OUTCOME,
    _sign_signed_prekey,
    ("signed_bytes",),
)
SIGN_KEM_PREKEY = Operation(
    "KemPreKeySign",
    "A KEM prekey from its public key; kind 1 is one-time, 2 is last-resort",
    record(
        **_SIGNING,
        kind=one_of(*KemPreKeyKind),
        prekey_id=integer(),
        expires_at=timestamp(),
        public_key=hex_bytes(1568),
    ),
    _OUTCOME,
    _sign_kem_prekey,
    ("signed_bytes",),
)
DECODE_BUNDLE = Operation(
    "BundleDecode",
    "Bytes to fields; says nothing about signatures",
    record(encoded=hex_bytes()),
    record(("one_time_prekey",), **_PREKEYS),
    _decode_bundle,
)
VERIFY_BUNDLE = Operation(
    "BundleVerify",
    "A bundle against its user's signed device list at a time (section 5.2, steps 3 to 6)",
    record(device_list=hex_bytes(), bundle=hex_bytes(), now=timestamp()),
    record(
        ("one_time_prekey",),
        account_key=hex_bytes(32),
        device_signing_key=hex_bytes(32),
        identity_key=hex_bytes(32),
        one_time_prekey=hex_bytes(32),
        prekey_ids={"type": "array", "items": integer()},
    ),
    _verify_bundle,
)
SIGN_ASSERTION = Operation(
    "LoginAssertionSign",
    "A login assertion (section 3.3)",
    record(device_signing_seed=hex_bytes(32), **_ASSERTION),
    record(device_signing_key=hex_bytes(32), signed_bytes=hex_bytes(), signature=hex_bytes(64)),
    _sign_assertion,
    ("signed_bytes",),
)
VERIFY_ASSERTION = Operation(
    "LoginAssertionVerify",
    "What a server checks of a login assertion, the counter's order aside",
    record(device_signing_key=hex_bytes(32), **_ASSERTION, signature=hex_bytes()),
    record(),
    _verify_assertion,
)

FILE = VectorFile(
    "prekey",
    ("Prekeys, bundles and login assertions (protocol.md sections 3.3 and 5).",),
    (SIGN_SIGNED_PREKEY, SIGN_KEM_PREKEY, DECODE_BUNDLE, VERIFY_BUNDLE, SIGN_ASSERTION, VERIFY_ASSERTION),
)
