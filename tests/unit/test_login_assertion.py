"""The bytes of a login assertion, and the one spelling of an origin."""

from random import Random

import pytest

from e2ee.errors import InvalidSignatureError, MalformedMessageError
from e2ee.private_keys import DeviceSigningKeyPair
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.login_assertion import LoginAssertion, LoginId, parse_origin

ADDRESS = DeviceAddress(UserId("alice"), DeviceId(bytes(range(16))))
ASSERTION = LoginAssertion("https://chat.example:8443", ADDRESS, LoginId(bytes([0xAB]) * 16), 7)


def test_signed_bytes_are_label_origin_address_login_and_counter() -> None:
    assert ASSERTION.signed_bytes() == (
        b"\x16E2EE/1 login assertion"
        b"\x00\x19https://chat.example:8443"
        b"\x05alice" + bytes(range(16)) + b"\xab" * 16 + bytes(7) + b"\x07"
    )


def test_the_device_key_verifies_its_own_assertion() -> None:
    pair = DeviceSigningKeyPair.generate(Random(1).randbytes)
    ASSERTION.verify(pair.public, pair.sign(ASSERTION.signed_bytes()))


@pytest.mark.parametrize(
    "other",
    [
        LoginAssertion("https://chat.example", ADDRESS, ASSERTION.login_id, 7),
        LoginAssertion(ASSERTION.origin, DeviceAddress(UserId("mallory"), ADDRESS.device_id), ASSERTION.login_id, 7),
        LoginAssertion(ASSERTION.origin, ADDRESS, LoginId(bytes(16)), 7),
        LoginAssertion(ASSERTION.origin, ADDRESS, ASSERTION.login_id, 8),
    ],
    ids=["origin", "address", "login", "counter"],
)
def test_a_signature_covers_every_field(other: LoginAssertion) -> None:
    pair = DeviceSigningKeyPair.generate(Random(1).randbytes)
    with pytest.raises(InvalidSignatureError, match="on login assertion"):
        other.verify(pair.public, pair.sign(ASSERTION.signed_bytes()))


@pytest.mark.parametrize(
    "text",
    [
        "https://chat.example",
        "https://chat.example:8443",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "http://localhost:443",
        "https://xn--bcher-kva.example",
        "https://chat.example:65535",
        "https://" + "a" * 504,
    ],
)
def test_origins_are_accepted(text: str) -> None:
    assert parse_origin(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "chat.example",
        "https://",
        "https://Chat.example",
        "https://chat.example/",
        "https://chat.example/path",
        "https://chat.example:443",
        "http://chat.example:80",
        "https://chat.example:0",
        "https://chat.example:65536",
        "https://chat.example:08443",
        "https://user@chat.example",
        "https://chat.example?",
        "wss://chat.example",
        "https://bücher.example",
        "https://chat.example\n",
        "https://" + "a" * 505,
    ],
)
def test_an_origin_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse_origin(text)
