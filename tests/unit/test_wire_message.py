"""RatchetMessage and PreKeyMessage: field by field, and the refusals of each."""

from dataclasses import replace

import pytest

from e2ee.errors import InvalidPublicKeyError, MalformedMessageError, UnsupportedVersionError
from e2ee.primitives import kdf
from e2ee.wire.codec import Reader
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.message import (
    MIN_CIPHERTEXT,
    PQ_PAYLOAD_LENGTHS,
    HandshakeHeader,
    PqPayloadType,
    PreKeyMessage,
    RatchetHeader,
    RatchetMessage,
    decode_body,
)
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, EphemeralKey, IdentityKey, RatchetPublicKey
from tests.ed25519_arithmetic import P
from tests.wire_objects import seeded_rng

_rng = seeded_rng("message")


def key32() -> bytes:
    """Return 32 bytes that are a canonical X25519 key."""
    return _rng(31) + b"\x11"


RATCHET_KEY = RatchetPublicKey.from_bytes(key32())
HANDSHAKE = HandshakeHeader(
    account_key=AccountKey(_rng(32)),
    device_signing_key=DeviceSigningKey(_rng(32)),
    identity_key=IdentityKey(key32()),
    created=1_800_000_000_000,
    ephemeral_key=EphemeralKey(key32()),
    signed_prekey_id=PreKeyId(1),
    one_time_prekey_id=PreKeyId(2),
    kem_prekey_id=PreKeyId(3),
    kem_ciphertext=_rng(1568),
)
ONE_TIME_AT = 2 + 96 + 8 + 32 + 4


def message(payload_type: int = PqPayloadType.NONE, ciphertext_length: int = MIN_CIPHERTEXT) -> RatchetMessage:
    header = RatchetHeader(RATCHET_KEY, 1, 2, 3, 4, payload_type, _rng(PQ_PAYLOAD_LENGTHS[payload_type]))
    commitment, nonce = _rng(32), _rng(12)
    return RatchetMessage(header, commitment, nonce, _rng(ciphertext_length), header.encode() + commitment + nonce)


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


# --- RatchetMessage ------------------------------------------------------------------------------------------


def test_the_layout_of_a_ratchet_message() -> None:
    sent = message(PqPayloadType.CIPHERTEXT)
    counters = b"".join(number.to_bytes(4, "big") for number in (1, 2, 3, 4))
    payload = b"\x02" + (1120).to_bytes(2, "big") + sent.header.pq_payload

    assert sent.encode() == b"".join(
        (b"\x01\x02", RATCHET_KEY.raw, counters, payload, sent.commitment, sent.nonce, sent.ciphertext)
    )


@pytest.mark.parametrize("payload_type", PqPayloadType)
def test_every_payload_type_round_trips_at_its_length(payload_type: PqPayloadType) -> None:
    sent = message(payload_type)

    received = RatchetMessage.decode(sent.encode())
    assert received == sent
    assert received.prefix + received.ciphertext == sent.encode()
    assert len(sent.header.pq_payload) == {0: 0, 1: 1216, 2: 1120, 3: 0}[payload_type]


@pytest.mark.parametrize("payload_type", PqPayloadType)
@pytest.mark.parametrize("length", [0, 1, 1119, 1120, 1121, 1215, 1216, 1217, 65_535])
def test_a_payload_of_another_length_is_refused(payload_type: PqPayloadType, length: int) -> None:
    if length == PQ_PAYLOAD_LENGTHS[payload_type]:
        return
    header = RatchetHeader(RATCHET_KEY, 1, 2, 3, 4, payload_type, bytes(length))

    with pytest.raises(MalformedMessageError):
        RatchetMessage.decode(header.encode() + bytes(32 + 12 + MIN_CIPHERTEXT))


@pytest.mark.parametrize("payload_type", [4, 5, 127, 255])
def test_an_unknown_payload_type_is_refused(payload_type: int) -> None:
    with pytest.raises(MalformedMessageError):
        RatchetMessage.decode(changed(message().encode(), 2 + 32 + 16, bytes([payload_type])))


@pytest.mark.parametrize("payload_type", PqPayloadType)
def test_a_message_truncated_below_the_smallest_padded_plaintext_is_refused(payload_type: PqPayloadType) -> None:
    encoded = message(payload_type).encode()

    assert RatchetMessage.decode(encoded)
    for length in range(0, len(encoded), 7):
        with pytest.raises(MalformedMessageError):
            RatchetMessage.decode(encoded[:length])
    with pytest.raises(MalformedMessageError):
        RatchetMessage.decode(encoded[:-1])


@pytest.mark.parametrize("version", [0, 2, 3, 255])
def test_an_unknown_version_is_refused_in_both_kinds_and_named(version: int) -> None:
    for encoded in (message().encode(), PreKeyMessage(HANDSHAKE, message()).encode()):
        with pytest.raises(UnsupportedVersionError) as refused:
            decode_body(changed(encoded, 0, bytes([version])))
        assert refused.value.version == version


def test_an_unknown_version_is_named_from_the_length_of_a_header_on() -> None:
    encoded = b"\x02" + message().encode()[1:53]

    with pytest.raises(UnsupportedVersionError):
        RatchetMessage.decode(encoded)
    with pytest.raises(MalformedMessageError):
        RatchetMessage.decode(encoded[:-1])


def test_an_unknown_version_of_a_first_message_is_named_by_two_bytes() -> None:
    with pytest.raises(UnsupportedVersionError):
        decode_body(b"\x02\x01")
    with pytest.raises(MalformedMessageError):
        decode_body(b"\x02")


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_an_unknown_type_of_message_is_refused(kind: int) -> None:
    with pytest.raises(UnsupportedVersionError):
        decode_body(changed(message().encode(), 1, bytes([kind])))


@pytest.mark.parametrize("u", [P, P + 1, 2**255 - 1, 2**255, 2**256 - 1], ids=hex)
def test_a_non_canonical_ratchet_key_is_refused(u: int) -> None:
    with pytest.raises(InvalidPublicKeyError):
        RatchetMessage.decode(changed(message().encode(), 2, u.to_bytes(32, "little")))


@pytest.mark.parametrize("u", [0, 127 * 2**248 - 1, 127 * 2**248, P - 1], ids=hex)
def test_a_canonical_ratchet_key_is_read_as_it_is(u: int) -> None:
    raw = u.to_bytes(32, "little")
    assert RatchetMessage.decode(changed(message().encode(), 2, raw)).header.ratchet_key.raw == raw


# --- PreKeyMessage -------------------------------------------------------------------------------------------


def test_the_layout_of_a_handshake_header() -> None:
    assert HANDSHAKE.encode() == b"".join(
        (
            b"\x01\x01",
            HANDSHAKE.account_key.raw,
            HANDSHAKE.device_signing_key.raw,
            HANDSHAKE.identity_key.raw,
            (1_800_000_000_000).to_bytes(8, "big"),
            HANDSHAKE.ephemeral_key.raw,
            b"\0\0\0\x01",
            b"\x01\0\0\0\x02",
            b"\0\0\0\x03",
            HANDSHAKE.kem_ciphertext,
        )
    )


def test_the_body_of_an_envelope_is_read_by_its_type() -> None:
    first, later = PreKeyMessage(HANDSHAKE, message()), message()

    assert decode_body(first.encode()) == first
    assert decode_body(later.encode()) == later


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x01", b"\x01\x02"])
def test_a_body_of_a_few_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_body(data)


def test_neither_kind_is_read_as_the_other() -> None:
    with pytest.raises(UnsupportedVersionError):
        RatchetMessage.decode(PreKeyMessage(HANDSHAKE, message()).encode())
    with pytest.raises(UnsupportedVersionError):
        PreKeyMessage.decode(message().encode())


def test_a_first_message_does_not_nest() -> None:
    nested = PreKeyMessage(HANDSHAKE, message()).encode()
    encoded = HANDSHAKE.encode() + len(nested).to_bytes(4, "big") + nested

    with pytest.raises(UnsupportedVersionError):
        PreKeyMessage.decode(encoded)


def test_one_time_prekey_id_zero_is_not_the_same_as_none() -> None:
    zero, none = replace(HANDSHAKE, one_time_prekey_id=PreKeyId(0)), replace(HANDSHAKE, one_time_prekey_id=None)

    assert zero.encode() != none.encode()
    assert HandshakeHeader.decode(Reader(zero.encode())).one_time_prekey_id == 0
    assert HandshakeHeader.decode(Reader(none.encode())).one_time_prekey_id is None


def test_an_id_for_an_absent_one_time_prekey_is_refused() -> None:
    with pytest.raises(MalformedMessageError):
        HandshakeHeader.decode(Reader(changed(HANDSHAKE.encode(), ONE_TIME_AT, b"\0")))


@pytest.mark.parametrize("flag", [2, 255])
def test_a_flag_that_is_neither_0_nor_1_is_refused(flag: int) -> None:
    with pytest.raises(MalformedMessageError):
        HandshakeHeader.decode(Reader(changed(HANDSHAKE.encode(), ONE_TIME_AT, bytes([flag]))))


@pytest.mark.parametrize("at", [2 + 64, 2 + 96 + 8], ids=["identity key", "ephemeral key"])
def test_a_non_canonical_key_of_the_handshake_is_refused(at: int) -> None:
    with pytest.raises(InvalidPublicKeyError):
        HandshakeHeader.decode(Reader(changed(HANDSHAKE.encode(), at, b"\xff" * 32)))


def test_a_creation_time_of_2_to_the_63_is_refused() -> None:
    with pytest.raises(MalformedMessageError):
        HandshakeHeader.decode(Reader(changed(HANDSHAKE.encode(), 2 + 96, b"\x80" + bytes(7))))


def test_the_hash_of_a_handshake_leaves_out_the_message_and_its_length() -> None:
    encoded = PreKeyMessage(HANDSHAKE, message()).encode()

    assert HANDSHAKE.hash() == kdf.sha256(encoded[: len(HANDSHAKE.encode())])
    assert encoded[len(HANDSHAKE.encode()) :].startswith(len(message().encode()).to_bytes(4, "big"))


@pytest.mark.parametrize("length", [0, 1, 2**16, 2**32 - 1])
def test_a_length_of_the_inner_message_other_than_its_own_is_refused(length: int) -> None:
    encoded = PreKeyMessage(HANDSHAKE, message()).encode()

    with pytest.raises(MalformedMessageError):
        PreKeyMessage.decode(changed(encoded, len(HANDSHAKE.encode()), length.to_bytes(4, "big")))
