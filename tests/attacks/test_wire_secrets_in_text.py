"""Attack: reading secrets out of logs, reprs and error reports (docs/attacks.md row 8).

vodozemac encoded secrets in base64 (CVE-2024-40640), others printed keys and plaintext when an error was logged. Here
secrets are not convertible, objects with plaintext or ciphertext keep it out of `repr`, and errors echo no input.
"""

import base64
import logging
from dataclasses import replace
from typing import Any

import pytest

from e2ee.errors import E2EEError
from e2ee.private_keys import RatchetKeyPair, RootKey, SeedBytes32
from e2ee.wire.codec import Writer, from_base64url, to_base64url
from e2ee.wire.content import Content, ContentKind, decode_application, encode_application
from e2ee.wire.device_list import NO_PREVIOUS_LIST, ListPosition
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, EnvelopeId, MessageId
from e2ee.wire.message import (
    MIN_CIPHERTEXT,
    HandshakeHeader,
    PqPayloadType,
    PreKeyMessage,
    RatchetHeader,
    RatchetMessage,
)
from e2ee.wire.public_keys import EphemeralKey, RatchetPublicKey
from tests.properties.strategies import WIRE_TYPES, WireType
from tests.wire_objects import NOW, make_device

CANARY = b"the rabbit is in the hat, do say"
ALICE, BOB = make_device("alice"), make_device("bob")


def assert_hidden(text: str) -> None:
    for form in (CANARY[:12].decode(), CANARY[:12].hex(), base64.b64encode(CANARY[:12]).decode(), "116, 104, 101, 32"):
        assert form not in text


def test_a_secret_has_no_way_into_base64_hex_or_the_codec() -> None:
    secret: Any = RootKey(CANARY)

    for convert in (to_base64url, base64.b64encode, bytes.hex, bytes, "".join):
        with pytest.raises(TypeError):
            convert(secret)
    with pytest.raises(TypeError):
        Writer().raw(secret).finish()
    with pytest.raises(AttributeError):
        secret.hex()


def test_a_logged_secret_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret, pair = RootKey(CANARY), RatchetKeyPair(SeedBytes32(CANARY))

    logging.getLogger("application").debug("%s %r %s", secret, pair, [secret, {"pair": pair}])

    assert "redacted" in caplog.text
    assert_hidden(caplog.text)


def protected_objects() -> list[object]:
    """Wire objects with the canary wherever plaintext or ciphertext goes."""
    position = ListPosition(1, NO_PREVIOUS_LIST)
    body = encode_application(CANARY)
    ids = MessageId(bytes(16)), ContentKind.APPLICATION, ConversationId("")
    long = (CANARY * 50)[: 1088 + 32]
    header = RatchetHeader(RatchetPublicKey(bytes(32)), 0, 0, 0, 0, PqPayloadType.CIPHERTEXT, long)
    message = RatchetMessage(header, CANARY, CANARY[:12], (CANARY * 9)[:MIN_CIPHERTEXT], b"")
    keys = ALICE.account.public, ALICE.signing.public, ALICE.identity.public
    ephemeral, prekey_id = EphemeralKey(bytes(32)), ALICE.signed_prekey().prekey_id
    handshake = HandshakeHeader(*keys, NOW, ephemeral, prekey_id, None, prekey_id, (CANARY * 49))
    return [
        Content(*ids, NOW, position, position, body),
        Envelope(EnvelopeId(bytes(16)), ALICE.address, BOB.address, Lane.CHAT, 60, CANARY),
        header,
        message,
        handshake,
        PreKeyMessage(handshake, message),
    ]


@pytest.mark.parametrize("value", protected_objects(), ids=lambda value: type(value).__name__)
def test_plaintext_and_ciphertext_stay_out_of_the_repr_of_a_wire_object(value: object) -> None:
    for text in (repr(value), str(value), f"{[value]}"):
        assert type(value).__name__ in text
        assert_hidden(text)


@pytest.mark.parametrize("wire", WIRE_TYPES, ids=repr)
def test_the_error_for_undecodable_bytes_echoes_none_of_them(wire: WireType) -> None:
    for hostile in (CANARY, bytes([len(CANARY)]) + CANARY, b"\x01\x02" + CANARY * 20, b"\x01\x01" + CANARY * 80):
        try:
            wire.decode(hostile)
        except E2EEError as refused:
            shown = f"{refused} {refused!r} {refused.args} {vars(refused)}"
            assert_hidden(shown)


def test_the_error_for_text_that_is_not_utf8_or_not_base64_shows_none_of_it() -> None:
    with pytest.raises(E2EEError) as refused:
        decode_application(b"\x01" + CANARY + b"\xff")
    assert_hidden(repr(refused.value))
    with pytest.raises(E2EEError) as refused:
        from_base64url(CANARY.decode())
    assert_hidden(repr(refused.value))


def test_the_error_for_a_wrong_signature_shows_none_of_it() -> None:
    forged = replace(ALICE.signed_prekey(), signature=CANARY * 2)

    with pytest.raises(E2EEError) as refused:
        forged.verify(ALICE.address, ALICE.signing.public)
    assert_hidden(repr(refused.value))
