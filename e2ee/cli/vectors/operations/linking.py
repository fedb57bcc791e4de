"""Linking a device (protocol.md section 15).

Owns: the operations of linking.json.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import array, hex_bytes, integer, record, text
from e2ee.limits import LINK_LIFETIME_MS
from e2ee.linking import Offer
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair, LinkKeyPair, SeedBytes32
from e2ee.short_authentication import PICTURES, signs_of
from e2ee.wire.device_list import ListedDevice
from e2ee.wire.identifiers import DeviceId, parse_user_id
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
    parse_link_code,
)


def offer_of(fields: Fields) -> Offer:
    """Return a new device as its secrets make it."""
    link = LinkKeyPair(SeedBytes32(fields.hex("link_seed")))
    signing = DeviceSigningKeyPair(SeedBytes32(fields.hex("device_signing_seed")))
    identity = IdentityKeyPair(SeedBytes32(fields.hex("identity_private_key")))
    device = ListedDevice(DeviceId(fields.hex("device_id")), signing.public, identity.public)
    reveal = LinkReveal(LinkId(fields.hex("link_id")), link.public, device, LinkNonce(fields.hex("nonce")))
    return Offer(parse_user_id(fields.text("user_id")), reveal, LINK_LIFETIME_MS, link, signing, identity)


def _offer(fields: Fields) -> JsonObject:
    offer = offer_of(fields)
    return {
        "link_key": str(offer.reveal.link_key),
        "commitment": str(offer.commit.commitment),
        "commit": offer.commit.encode().hex(),
        "reveal": offer.reveal.encode().hex(),
        "code": link_code(offer.link_id),
        "qr_text": link_qr_text(offer.link_id),
    }


def _code(fields: Fields) -> JsonObject:
    return {"link_id": str(parse_link_code(fields.text("text")))}


def _messages(fields: Fields) -> tuple[LinkCommit, LinkAnswer, LinkReveal]:
    with decoding():
        commit, answer = LinkCommit.decode(fields.hex("commit")), LinkAnswer.decode(fields.hex("answer"))
        return commit, answer, LinkReveal.decode(fields.hex("reveal"))


def _compare(fields: Fields) -> JsonObject:
    transcript = link_transcript(*_messages(fields))
    signs = signs_of(transcript)
    return {
        "link_transcript": str(transcript),
        "numbers": [PICTURES.index(each) for each in signs.pictures],
        "names": [each.name for each in signs.pictures],
        "digits": signs.digits,
    }


def _sign(fields: Fields) -> JsonObject:
    key = DeviceSigningKeyPair(SeedBytes32(fields.hex("device_signing_seed")))
    sealed = fields.hex("sealed")
    signed_bytes = bundle_signed_bytes(LinkTranscript(fields.hex("transcript")), sealed)
    bundle = LinkBundle(LinkId(fields.hex("link_id")), sealed, key.sign(signed_bytes))
    return {"signed_bytes": signed_bytes.hex(), "bundle": bundle.encode().hex()}


def _open(fields: Fields) -> JsonObject:
    offer = offer_of(fields.record("device"))
    with decoding():
        answer, bundle = LinkAnswer.decode(fields.hex("answer")), LinkBundle.decode(fields.hex("bundle"))
    linked = offer.compare(answer, 0).confirm().open(bundle, 0)
    return {
        "account_seed": linked.account.account_key_pair.seed.expose().hex(),
        "device_list": linked.device_list.signed.encode().hex(),
    }


_DEVICE = record(
    user_id=text(),
    link_id=hex_bytes(16),
    link_seed=hex_bytes(32, "the HPKE private key, before SHAKE-256 stretches it"),
    device_id=hex_bytes(16),
    device_signing_seed=hex_bytes(32),
    identity_private_key=hex_bytes(32),
    nonce=hex_bytes(32),
)

OFFER = Operation(
    "LinkOffer",
    "The messages of a new device, and the code that it shows",
    _DEVICE,
    record(
        link_key=hex_bytes(1216),
        commitment=hex_bytes(32),
        commit=hex_bytes(),
        reveal=hex_bytes(),
        code=text(),
        qr_text=text(),
    ),
    _offer,
)

CODE = Operation("LinkCode", "A code as a person types it", record(text=text()), record(link_id=hex_bytes(16)), _code)

COMPARE = Operation(
    "LinkCompare",
    "From the first three messages to what both devices show",
    record(commit=hex_bytes(), answer=hex_bytes(), reveal=hex_bytes()),
    record(link_transcript=hex_bytes(32), numbers=array(integer(63), 7), names=array(text(), 7), digits=text()),
    _compare,
)

SIGN = Operation(
    "LinkBundleSign",
    "The last message, of the existing device",
    record(device_signing_seed=hex_bytes(32), link_id=hex_bytes(16), transcript=hex_bytes(32), sealed=hex_bytes()),
    record(signed_bytes=hex_bytes(), bundle=hex_bytes()),
    _sign,
)

OPEN = Operation(
    "LinkBundleOpen",
    "The last message at the new device, whose person confirmed: from all of its secrets to the account",
    record(device=_DEVICE, answer=hex_bytes(), bundle=hex_bytes()),
    record(account_seed=hex_bytes(32), device_list=hex_bytes()),
    _open,
)

FILE = VectorFile(
    "linking",
    (
        "Linking a device (protocol.md section 15).",
        "HPKE draws its randomness itself: the sealed texts were made once, and only opening them is checked.",
    ),
    (OFFER, CODE, COMPARE, SIGN, OPEN),
)
