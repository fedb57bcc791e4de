"""Parts that several kinds of vectors share: addresses, list positions, devices, contacts; as schema, from and to JSON.

Owns: how these parts are written in a vector.
Does not know about: the operations.
"""

from typing import Final

from e2ee.cli.vectors.model import Fields, JsonObject
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import MAX_TIMESTAMP, Schema, hex_bytes, integer, one_of, record, text, timestamp
from e2ee.pqxdh import Party
from e2ee.wire.contacts import ContactEntry, DecisionEntry
from e2ee.wire.device_list import DeviceListHash, ListPosition, SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey

ADDRESS: Final[dict[str, Schema]] = {"user_id": text(), "device_id": hex_bytes(16)}
POSITION: Final = record(seq=integer(MAX_TIMESTAMP), hash=hex_bytes(32))
PARTY: Final[dict[str, Schema]] = {
    **ADDRESS,
    "account_key": hex_bytes(32),
    "device_signing_key": hex_bytes(32),
    "identity_key": hex_bytes(32),
}
"""The public side of one end of a handshake."""


def address_of(fields: Fields) -> DeviceAddress:
    return DeviceAddress(parse_user_id(fields.text("user_id")), DeviceId(fields.hex("device_id")))


def address_json(address: DeviceAddress) -> JsonObject:
    return {"user_id": address.user_id, "device_id": str(address.device_id)}


def position_of(fields: Fields) -> ListPosition:
    return ListPosition(fields.number("seq"), DeviceListHash(fields.hex("hash")))


def position_json(position: ListPosition) -> JsonObject:
    return {"seq": position.seq, "hash": str(position.hash)}


def party_of(fields: Fields) -> Party:
    with decoding():
        return Party(
            address_of(fields),
            AccountKey.from_bytes(fields.hex("account_key")),
            DeviceSigningKey.from_bytes(fields.hex("device_signing_key")),
            IdentityKey.from_bytes(fields.hex("identity_key")),
        )


def party_json(party: Party) -> JsonObject:
    return {
        **address_json(party.address),
        "account_key": str(party.account_key),
        "device_signing_key": str(party.device_signing_key),
        "identity_key": str(party.identity_key),
    }


CONTACT: Final = record(
    user_id=text(), account_key=hex_bytes(32), verified=one_of(0, 1), forked=one_of(0, 1), device_list=hex_bytes()
)
DECISION: Final = record(user_id=text(), decision=integer(255), account_key=hex_bytes(32), at=timestamp())


def contact_of(fields: Fields) -> ContactEntry:
    return ContactEntry(
        parse_user_id(fields.text("user_id")),
        AccountKey(fields.hex("account_key")),
        bool(fields.number("verified")),
        bool(fields.number("forked")),
        SignedDeviceList.decode(fields.hex("device_list")),
    )


def contact_json(contact: ContactEntry) -> JsonObject:
    return {
        "user_id": contact.user_id,
        "account_key": str(contact.account_key),
        "verified": int(contact.verified),
        "forked": int(contact.forked),
        "device_list": contact.device_list.encode().hex(),
    }


def decision_of(fields: Fields) -> DecisionEntry:
    return DecisionEntry(
        parse_user_id(fields.text("user_id")),
        fields.number("decision"),
        AccountKey(fields.hex("account_key")),
        fields.number("at"),
    )


def decision_json(decision: DecisionEntry) -> JsonObject:
    return {
        "user_id": decision.user_id,
        "decision": decision.decision,
        "account_key": str(decision.key),
        "at": decision.at,
    }
