"""Web Push: the bytes of RFC 8291, the endpoints that are spoken to, keys that are none."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from transport_adapters.server.push.endpoints import KNOWN_HOSTS, is_allowed
from transport_adapters.server.push.web_encryption import encrypt, point, public_point

HOSTS = (*KNOWN_HOSTS, "push.example", "other.example:8443")


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_example_of_rfc_8291_section_5_comes_out_byte_for_byte() -> None:
    # The document's own values.
    sender = ec.derive_private_key(
        int.from_bytes(raw("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), ec.SECP256R1()
    )
    receiver = raw("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
    auth, salt = raw("BTBZMqHH6r4Tts7J_aSIgg"), raw("DGv6ra1nlYgDCS1FRnbzlw")
    body = encrypt(b"When I grow up, I want to be a watermelon", receiver, auth, sender=sender, salt=salt)
    assert body == raw(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
        "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


def test_two_pushes_share_neither_a_key_nor_a_salt() -> None:
    receiver = point(ec.generate_private_key(ec.SECP256R1()))
    first, second = (encrypt(b"same", receiver, bytes(16)) for _ in range(2))
    assert first[:16] != second[:16]
    assert first[21:86] != second[21:86]


@pytest.mark.parametrize("key", [b"", bytes(65), b"\x04" + bytes(64), b"\x04" + b"\xff" * 64])
def test_what_is_no_point_of_the_curve_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match=r"point|byte|curve|key"):
        encrypt(b"payload", key, bytes(16))


def test_a_key_of_another_curve_does_not_sign_for_the_server() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(ValueError, match="P-256"):
        public_point(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    "url",
    [
        "https://fcm.googleapis.com/fcm/send/abc",
        "https://updates.push.services.mozilla.com:443/wpush/v2/abc",
        "https://wns2-db5p.notify.windows.com/w/?token=abc",
        "https://push.example/up/abc",
        "https://eu.push.example/up",
        "https://other.example:8443/up",
    ],
)
def test_endpoints_of_known_services_are_taken(url: str) -> None:
    assert is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/fcm/send/abc",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://localhost/",
        "https://evilfcm.googleapis.com.example/",
        "https://notfcm.googleapis.com.evil/x",
        "https://xfcm.googleapis.com/",
        "https://user@fcm.googleapis.com/",
        "https://fcm.googleapis.com@127.0.0.1/",
        "https://127.0.0.1\\@fcm.googleapis.com/",
        "https://127.0.0.1#@fcm.googleapis.com/",
        "https://fcm.googleapis.com:8443/",
        "https://push.example:22/",
        "https://eu.other.example:8443/",
        "https://other.example/",
        "https://fcm.googleapis.com/\r\nX-Injected: 1",
        "https://fcm.googleapis.com/ space",
        "https://fcm.googleapis.com",
        "https://FCM.googleapis.com/",
        "https://fcm%2egoogleapis.com/",
        "https://fcm.googleapis.com/é",
        "//fcm.googleapis.com/",
        "https://fcm.googleapis.com/" + "a" * 2048,
        "",
    ],
)
def test_no_endpoint_makes_the_server_speak_to_somebody_else(url: str) -> None:
    assert not is_allowed(url, HOSTS)
