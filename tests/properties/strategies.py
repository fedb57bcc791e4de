"""Hypothesis strategies for every wire type.

Owns: one strategy per type, and `WIRE_TYPES`: each with its way to bytes and back.
Does not know about: valid signatures. Keys and signatures are arbitrary bytes of the right form; tests that need real
ones build them with `tests.wire_objects`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_DEVICES, MAX_TIMESTAMP, MAX_TTL_SECONDS
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.codec import Reader
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts, decode_linked
from e2ee.wire.content import (
    Content,
    ContentKind,
    Receipt,
    ReceiptType,
    decode_application,
    decode_device_lists,
    decode_retry_request,
    encode_application,
    encode_device_lists,
    encode_retry_request,
)
from e2ee.wire.device_list import (
    NO_PREVIOUS_LIST,
    DeviceList,
    DeviceListHash,
    ListedDevice,
    ListPosition,
    SignedDeviceList,
    ordered,
)
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import (
    CallId,
    ConversationId,
    DeviceAddress,
    DeviceId,
    EnvelopeId,
    MessageId,
    PreKeyId,
    UserId,
)
from e2ee.wire.link import (
    LinkAnswer,
    LinkBundle,
    LinkCommit,
    LinkCommitment,
    LinkId,
    LinkNonce,
    LinkReveal,
)
from e2ee.wire.message import (
    COMMITMENT_LENGTH,
    KEM_CIPHERTEXT_LENGTH,
    MAX_INDEX,
    MIN_CIPHERTEXT,
    NONCE_LENGTH,
    PQ_PAYLOAD_LENGTHS,
    HandshakeHeader,
    PqPayloadType,
    PreKeyMessage,
    RatchetHeader,
    RatchetMessage,
    decode_body,
)
from e2ee.wire.padding import pad
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, PreKeyBundle, SignedPreKey
from e2ee.wire.public_keys import (
    AccountKey,
    DeviceSigningKey,
    Ed25519PublicKey,
    EphemeralKey,
    IdentityKey,
    KemPreKeyPublicKey,
    LinkKey,
    PreKeyPublicKey,
    RatchetPublicKey,
    X25519PublicKey,
)
from e2ee.wire.sync import ReadMarks, SentCopy, decode_sync

T = TypeVar("T")
X = TypeVar("X", bound=X25519PublicKey)
E = TypeVar("E", bound=Ed25519PublicKey)

_P: Final = (1 << 255) - 19

# --- Fields --------------------------------------------------------------------------------------------------


def long_bytes(length: int) -> SearchStrategy[bytes]:
    """Incompressible bytes of a fixed length from a small seed: drawing 1,568 single bytes would be slow."""
    return st.integers(0, 2**32 - 1).map(lambda seed: Random(seed).randbytes(length))


def x25519_keys(kind: type[X]) -> SearchStrategy[X]:
    """Canonical keys: any u below p."""
    return st.integers(0, _P - 1).map(lambda u: kind.from_bytes(u.to_bytes(32, "little")))


def ed25519_keys(kind: type[E]) -> SearchStrategy[E]:
    return st.binary(min_size=32, max_size=32).map(kind.from_bytes)


_printable = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
_sixteen = st.binary(min_size=16, max_size=16)

u32s = st.integers(0, 2**32 - 1)
chain_indices = st.integers(0, MAX_INDEX - 1)
timestamps = st.integers(0, MAX_TIMESTAMP)
signatures = long_bytes(64)
user_ids = st.text(_printable, min_size=1, max_size=128).map(UserId)
conversation_ids = st.text(_printable, max_size=128).map(ConversationId)
prekey_ids = u32s.map(PreKeyId)
device_ids = _sixteen.map(DeviceId)
envelope_ids = _sixteen.map(EnvelopeId)
message_ids = _sixteen.map(MessageId)
device_list_hashes = st.binary(min_size=32, max_size=32).map(DeviceListHash)
addresses = st.builds(DeviceAddress, user_ids, device_ids)

account_keys = ed25519_keys(AccountKey)
device_signing_keys = ed25519_keys(DeviceSigningKey)
identity_keys = x25519_keys(IdentityKey)
ephemeral_keys = x25519_keys(EphemeralKey)
prekey_public_keys = x25519_keys(PreKeyPublicKey)
ratchet_keys = x25519_keys(RatchetPublicKey)
kem_public_keys = long_bytes(KemPreKeyPublicKey.LENGTH).map(KemPreKeyPublicKey.from_bytes)

# --- Device lists --------------------------------------------------------------------------------------------

list_positions = st.builds(ListPosition, timestamps, device_list_hashes)
listed_devices = st.builds(ListedDevice, device_ids, device_signing_keys, identity_keys)
_devices = st.lists(listed_devices, max_size=MAX_DEVICES, unique_by=lambda each: each.device_id).map(ordered)


@st.composite
def device_lists(draw: st.DrawFn) -> DeviceList:
    """Valid lists: only a first list has no predecessor."""
    seq = draw(st.integers(1, MAX_TIMESTAMP))
    with_predecessor = device_list_hashes.filter(lambda each: each != NO_PREVIOUS_LIST)
    previous = NO_PREVIOUS_LIST if seq == 1 else draw(with_predecessor)
    head = draw(user_ids), draw(account_keys), seq, previous
    return DeviceList(*head, draw(timestamps), draw(timestamps), draw(_devices))


signed_device_lists = st.builds(SignedDeviceList, device_lists(), signatures)

# --- Prekeys -------------------------------------------------------------------------------------------------

signed_prekeys = st.builds(SignedPreKey, prekey_ids, timestamps, prekey_public_keys, signatures)
one_time_prekeys = st.builds(OneTimePreKey, prekey_ids, prekey_public_keys)
kem_prekeys = st.builds(KemPreKey, st.sampled_from(KemPreKeyKind), prekey_ids, timestamps, kem_public_keys, signatures)
prekey_bundles = st.builds(PreKeyBundle, addresses, signed_prekeys, st.none() | one_time_prekeys, kem_prekeys)

# --- Messages ------------------------------------------------------------------------------------------------


@st.composite
def ratchet_headers(draw: st.DrawFn) -> RatchetHeader:
    """Headers with every type of post-quantum payload, each at its length."""
    payload_type = draw(st.sampled_from(PqPayloadType))
    payload = draw(long_bytes(PQ_PAYLOAD_LENGTHS[payload_type]))
    previous, index, epoch, pq_index = draw(u32s), draw(chain_indices), draw(u32s), draw(chain_indices)
    return RatchetHeader(draw(ratchet_keys), previous, index, epoch, pq_index, payload_type, payload)


@st.composite
def ratchet_messages(draw: st.DrawFn) -> RatchetMessage:
    header, commitment = draw(ratchet_headers()), draw(long_bytes(COMMITMENT_LENGTH))
    nonce, ciphertext = draw(long_bytes(NONCE_LENGTH)), draw(st.integers(0, 300).flatmap(_ciphertext))
    return RatchetMessage(header, commitment, nonce, ciphertext, header.encode() + commitment + nonce)


def _ciphertext(extra: int) -> SearchStrategy[bytes]:
    return long_bytes(MIN_CIPHERTEXT + extra)


handshake_headers = st.builds(
    HandshakeHeader,
    account_keys,
    device_signing_keys,
    identity_keys,
    timestamps,
    ephemeral_keys,
    prekey_ids,
    st.none() | prekey_ids,
    prekey_ids,
    long_bytes(KEM_CIPHERTEXT_LENGTH),
)
prekey_messages = st.builds(PreKeyMessage, handshake_headers, ratchet_messages())
bodies = prekey_messages | ratchet_messages()

# --- Contents and envelopes ----------------------------------------------------------------------------------

application_data = st.binary(max_size=400) | st.text(max_size=200)
receipts = st.builds(Receipt, st.sampled_from(ReceiptType), st.lists(message_ids, min_size=1, max_size=20).map(tuple))
call_signals = st.builds(
    CallSignal,
    st.builds(CallId, st.binary(min_size=16, max_size=16)),
    st.sampled_from([action for action in CallAction if action is not CallAction.ANSWERED]),
    st.binary(max_size=100),
) | st.builds(
    CallSignal,
    st.builds(CallId, st.binary(min_size=16, max_size=16)),
    st.just(CallAction.ANSWERED),
    st.binary(max_size=100),
    st.builds(DeviceId, st.binary(min_size=16, max_size=16)),
)
syncs = st.builds(
    SentCopy, user_ids, st.just(int(ContentKind.APPLICATION)), application_data.map(encode_application)
) | st.builds(ReadMarks, user_ids, st.lists(message_ids, min_size=1, max_size=20).map(tuple))
contact_entries = st.builds(ContactEntry, user_ids, account_keys, st.booleans(), st.booleans(), signed_device_lists)


@st.composite
def linked_contacts(draw: st.DrawFn) -> LinkedContacts:
    """Contacts in their order, and decisions about them."""
    entries = draw(st.lists(contact_entries, max_size=3, unique_by=lambda each: each.user_id))
    contacts = tuple(sorted(entries, key=lambda each: each.user_id))
    users = st.sampled_from([each.user_id for each in contacts]) if contacts else st.nothing()
    decided = st.builds(DecisionEntry, users, st.integers(0, 255), account_keys, timestamps)
    return LinkedContacts(draw(st.integers(0, 255)), contacts, tuple(draw(st.lists(decided, max_size=4))))


retry_requests = st.lists(envelope_ids, min_size=1, max_size=20).map(tuple)
device_list_updates = st.lists(signed_device_lists, min_size=1, max_size=3).map(tuple)
content_kinds = st.sampled_from(ContentKind).map(int) | st.integers(0, 255)
"""Known kinds and numbers nobody has given a meaning yet."""

contents = st.builds(
    Content,
    message_ids,
    content_kinds,
    conversation_ids,
    timestamps,
    list_positions,
    list_positions,
    st.binary(max_size=400),
    st.none() | signed_device_lists,
)
lanes = st.sampled_from(Lane)
envelopes = st.builds(
    Envelope, envelope_ids, addresses, addresses, lanes, st.integers(1, MAX_TTL_SECONDS), st.binary(max_size=400)
)
# --- Linking -------------------------------------------------------------------------------------------------

link_ids = _sixteen.map(LinkId)
link_nonces = st.binary(min_size=32, max_size=32).map(LinkNonce)
link_commits = st.builds(LinkCommit, link_ids, st.binary(min_size=32, max_size=32).map(LinkCommitment))
link_answers = st.builds(LinkAnswer, link_ids, user_ids, account_keys, device_ids, device_signing_keys, link_nonces)
link_reveals = st.builds(
    LinkReveal, link_ids, long_bytes(LinkKey.LENGTH).map(LinkKey.from_bytes), listed_devices, link_nonces
)
link_bundles = st.builds(LinkBundle, link_ids, st.binary(max_size=600), signatures)

# --- Padding -------------------------------------------------------------------------------------------------

padded_contents = st.binary(max_size=600).map(pad)

# --- All of them ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WireType:
    """A type with its codec. `self_delimiting`: the encoding of one value is never a prefix of another's."""

    name: str
    values: SearchStrategy[Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    self_delimiting: bool = True

    def encodings(self) -> SearchStrategy[bytes]:
        return self.values.map(self.encode)

    def __repr__(self) -> str:
        return self.name


def whole(decode: Callable[[Reader], T]) -> Callable[[bytes], T]:
    """Turn a decoder of a field into one of a whole byte string: nothing may be left over."""

    def decode_whole(data: bytes) -> T:
        reader = Reader(data)
        value = decode(reader)
        reader.finish()
        return value

    return decode_whole


def known_sync(data: bytes) -> SentCopy | ReadMarks:
    """Decode a sync; one of a type that means nothing is refused, as it has no value."""
    sync = decode_sync(data)
    if sync is None:
        raise MalformedMessageError("sync of an unknown type")
    return sync


def known_contacts(data: bytes) -> LinkedContacts:
    """Decode a link content; one of a type that means nothing is refused, as it has no value."""
    linked = decode_linked(data)
    if linked is None:
        raise MalformedMessageError("link content of an unknown type")
    return linked


WIRE_TYPES: Final = (
    WireType("DeviceAddress", addresses, DeviceAddress.encode, whole(DeviceAddress.decode)),
    WireType("DeviceList", device_lists(), DeviceList.encode, whole(DeviceList.decode)),
    WireType("SignedDeviceList", signed_device_lists, SignedDeviceList.encode, SignedDeviceList.decode),
    WireType("SignedPreKey", signed_prekeys, SignedPreKey.encode, whole(SignedPreKey.decode)),
    WireType("OneTimePreKey", one_time_prekeys, OneTimePreKey.encode, whole(OneTimePreKey.decode)),
    WireType("KemPreKey", kem_prekeys, KemPreKey.encode, whole(KemPreKey.decode)),
    WireType("PreKeyBundle", prekey_bundles, PreKeyBundle.encode, PreKeyBundle.decode),
    WireType("RatchetMessage", ratchet_messages(), RatchetMessage.encode, RatchetMessage.decode, False),
    WireType("HandshakeHeader", handshake_headers, HandshakeHeader.encode, whole(HandshakeHeader.decode)),
    WireType("PreKeyMessage", prekey_messages, PreKeyMessage.encode, PreKeyMessage.decode),
    WireType("body", bodies, lambda body: body.encode(), decode_body, False),
    WireType("Content", contents, Content.encode, Content.decode),
    WireType("application data", application_data, encode_application, decode_application, False),
    WireType("Receipt", receipts, Receipt.encode, Receipt.decode),
    WireType("CallSignal", call_signals, CallSignal.encode, CallSignal.decode, self_delimiting=False),
    WireType("sync", syncs, lambda sync: sync.encode(), known_sync, self_delimiting=False),
    WireType("link content", linked_contacts(), LinkedContacts.encode, known_contacts),
    WireType("retry request", retry_requests, encode_retry_request, decode_retry_request),
    WireType("device list update", device_list_updates, encode_device_lists, decode_device_lists),
    WireType("LinkCommit", link_commits, LinkCommit.encode, LinkCommit.decode),
    WireType("LinkAnswer", link_answers, LinkAnswer.encode, LinkAnswer.decode),
    WireType("LinkReveal", link_reveals, LinkReveal.encode, LinkReveal.decode),
    WireType("LinkBundle", link_bundles, LinkBundle.encode, LinkBundle.decode),
    WireType("Envelope", envelopes, Envelope.encode, Envelope.decode),
)
"""Every format that is read from bytes of somebody else. A new wire type gets a line here."""
