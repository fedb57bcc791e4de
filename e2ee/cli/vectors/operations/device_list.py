"""Device lists and chains of them (protocol.md section 4).

Owns: the operations of device_list.json.
Does not know about: cases, what messages say about lists.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import MAX_TIMESTAMP, Schema, array, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.private_keys import AccountKeyPair, SeedBytes32
from e2ee.stores.memory import MemoryStore
from e2ee.stores.records import load_contact
from e2ee.trust import learn_device_list
from e2ee.wire.device_list import DeviceList, DeviceListHash, ListedDevice, SignedDeviceList
from e2ee.wire.identifiers import DeviceId, UserId, parse_user_id
from e2ee.wire.public_keys import DeviceSigningKey, IdentityKey

_DEVICE = record(device_id=hex_bytes(16), device_signing_key=hex_bytes(32), identity_key=hex_bytes(32))
_LIST: Final[dict[str, Schema]] = {
    "user_id": text(),
    "seq": integer(MAX_TIMESTAMP),
    "previous_hash": hex_bytes(32),
    "created_at": timestamp(),
    "expires_at": timestamp(),
    "devices": array(_DEVICE),
}


def _sign(fields: Fields) -> JsonObject:
    account = AccountKeyPair(SeedBytes32(fields.hex("account_seed")))
    devices = tuple(
        ListedDevice(
            DeviceId(each.hex("device_id")),
            DeviceSigningKey.from_bytes(each.hex("device_signing_key")),
            IdentityKey.from_bytes(each.hex("identity_key")),
        )
        for each in fields.records("devices")
    )
    content = DeviceList(
        parse_user_id(fields.text("user_id")),
        account.public,
        fields.number("seq"),
        DeviceListHash(fields.hex("previous_hash")),
        fields.number("created_at"),
        fields.number("expires_at"),
        devices,
    )
    signed = SignedDeviceList(content, account.sign(content.signed_bytes()))
    return {
        "account_key": str(account.public),
        "signed_bytes": content.signed_bytes().hex(),
        "hash": str(content.hash()),
        "encoded": signed.encode().hex(),
    }


def _decode(fields: Fields) -> JsonObject:
    with decoding():
        signed = SignedDeviceList.decode(fields.hex("encoded"))
    content = signed.unverified
    devices = [
        {
            "device_id": str(each.device_id),
            "device_signing_key": str(each.device_signing_key),
            "identity_key": str(each.identity_key),
        }
        for each in content.devices
    ]
    return {
        "user_id": content.user_id,
        "account_key": str(content.account_key),
        "seq": content.seq,
        "previous_hash": str(content.previous_hash),
        "created_at": content.created_at,
        "expires_at": content.expires_at,
        "devices": devices,
        "signature": signed.signature.hex(),
        "hash": str(content.hash()),
    }


def _verify(fields: Fields) -> JsonObject:
    with decoding():
        signed = SignedDeviceList.decode(fields.hex("encoded"))
    verified = signed.verify(parse_user_id(fields.text("user_id")))
    return {"account_key": str(verified.content.account_key), "hash": str(verified.position.hash)}


def _judge(fields: Fields) -> JsonObject:
    user_id = parse_user_id(fields.text("user_id"))
    store = MemoryStore()
    with decoding():
        lists = [SignedDeviceList.decode(each) for each in fields.hexes("lists")]
    return {"verdicts": [_judge_one(store, user_id, each) for each in lists]}


def _judge_one(store: MemoryStore, user_id: UserId, signed: SignedDeviceList) -> JsonObject:
    with store.write() as tx:
        before = load_contact(tx, user_id)
        after = learn_device_list(tx, user_id, signed, 0)
    is_newer = before is not None and before.device_list != after.device_list
    verdict = "first" if before is None else "newer" if is_newer else "known"
    position = after.device_list.position
    return {"verdict": verdict, "newest_seq": position.seq, "newest_hash": str(position.hash)}


SIGN = Operation(
    "DeviceListSign",
    "Fields to a signed list",
    record(account_seed=hex_bytes(32), **_LIST),
    record(account_key=hex_bytes(32), signed_bytes=hex_bytes(), hash=hex_bytes(32), encoded=hex_bytes()),
    _sign,
    ("signed_bytes",),
)
DECODE = Operation(
    "DeviceListDecode",
    "Bytes to fields; says nothing about the signature",
    record(encoded=hex_bytes()),
    record(account_key=hex_bytes(32), **_LIST, signature=hex_bytes(64), hash=hex_bytes(32)),
    _decode,
)
VERIFY = Operation(
    "DeviceListVerify",
    "A list is a given user's, and signed by the account key that it names",
    record(user_id=text(), encoded=hex_bytes()),
    record(account_key=hex_bytes(32), hash=hex_bytes(32)),
    _verify,
)
JUDGE = Operation(
    "DeviceListChain",
    "Lists of one user in the order in which a device sees them, from nothing (section 4.2); "
    "of an invalid case the last one is refused",
    record(user_id=text(), lists=array(hex_bytes(), 1)),
    record(
        verdicts=array(
            record(
                verdict=one_of("first", "newer", "known"), newest_seq=integer(MAX_TIMESTAMP), newest_hash=hex_bytes(32)
            )
        )
    ),
    _judge,
)

FILE = VectorFile(
    "device_list",
    ("Signed device lists and chains of them (protocol.md section 4).",),
    (SIGN, DECODE, VERIFY, JUDGE),
)
