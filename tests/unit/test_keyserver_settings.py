"""Settings: no default secret, no weak secret, and no secret in what is said about a wrong one."""

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from keyserver.settings import Settings

SECRET = "a secret of thirty-two bytes and more"
OTHER = "another secret of thirty-two bytes..."


def make(**changes: Any) -> Settings:
    return Settings(**({"origin": "https://chat.example", "token_secret": SECRET} | changes))


def test_there_is_no_default_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2EE_TOKEN_SECRET", raising=False)
    with pytest.raises(ValidationError, match="token_secret"):
        Settings(origin="https://chat.example")  # type: ignore[call-arg]  # that is the point
    assert make().host_jwt_secret is None


@pytest.mark.parametrize("name", ["token_secret", "host_jwt_secret"])
def test_a_secret_below_32_bytes_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ValidationError, match="at least 32 bytes") as refused:
        make(**{name: "only thirty-one bytes long, sir"})
    assert "thirty-one" not in str(refused.value)


@pytest.mark.parametrize("name", ["token_secret", "host_jwt_secret"])
@pytest.mark.parametrize(
    "guessable",
    [
        "x" * 64,
        "0123456789" * 4,
        "abcdefabcdefabcdefabcdefabcdefabcdef",
        "please-change-me-please-change-me-please",
        "CHANGE_ME, this is 32 bytes long or more",
        "your-256-bit-secret-which-is-long-enough",
        "<replace with 32 random bytes, base64>",
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_and_not_repeated(name: str, guessable: str) -> None:
    with pytest.raises(ValidationError, match="can be guessed") as refused:
        make(**{name: guessable})
    assert guessable not in str(refused.value)


@given(st.binary(min_size=32, max_size=48))
def test_random_secrets_are_taken_however_they_are_written(raw: bytes) -> None:
    # hypothesis likes zeros; a hash of what it makes is as random as what openssl gives.
    digest = hashlib.sha256(raw).digest()
    for text in (digest.hex(), base64.b64encode(digest).decode(), base64.urlsafe_b64encode(digest).decode()):
        assert make(token_secret=text).token_secret.get_secret_value() == text


def test_an_origin_is_https_except_on_this_machine() -> None:
    with pytest.raises(ValidationError, match="https"):
        make(origin="http://chat.example")
    for origin in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000"):
        assert make(origin=origin).origin == origin


def test_certificate_and_key_go_together() -> None:
    for lonely in ({"tls_certificate": "cert.pem"}, {"tls_key": "key.pem"}):
        with pytest.raises(ValidationError, match="go together"):
            make(**lonely)


@pytest.mark.parametrize("where", ["memcached://host", "http://host", "somewhere"])
def test_limits_are_in_the_database_or_in_redis(where: str) -> None:
    with pytest.raises(ValidationError, match="redis"):
        make(rate_limits=where)
    assert "swordfish" not in repr(make(rate_limits="redis://:swordfish@host/0"))


def test_the_two_secrets_differ() -> None:
    with pytest.raises(ValidationError, match="must differ"):
        make(host_jwt_secret=SECRET)
    assert make(host_jwt_secret=OTHER).host_jwt_secret is not None


def test_no_secret_shows_in_text() -> None:
    settings = make(host_jwt_secret=OTHER)
    assert SECRET not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"
    assert OTHER not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"


@pytest.mark.parametrize(
    "origin", ["https://Chat.example", "https://chat.example/", "chat.example", "https://chat.example:443"]
)
def test_the_origin_has_one_spelling(origin: str) -> None:
    with pytest.raises(ValidationError, match="origin"):
        make(origin=origin)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2EE_ORIGIN", "https://chat.example")
    monkeypatch.setenv("E2EE_TOKEN_SECRET", SECRET)
    monkeypatch.setenv("E2EE_CLAIM_PAIR_BURST", "7")
    monkeypatch.setenv("E2EE_OTHER_ORIGINS", '["https://chat2.example"]')
    settings = Settings()  # type: ignore[call-arg]  # from the environment
    assert settings.origins == ("https://chat.example", "https://chat2.example")
    assert settings.claims.per_pair.burst == 7


@pytest.mark.parametrize(
    "changes", [{"claim_pair_burst": 0}, {"token_seconds": 1}, {"database": ":memory:"}, {"unknown": 1}]
)
def test_senseless_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"vapid_key_file": "/etc/vapid.pem"},
        {"vapid_subject": "mailto:admin@chat.example"},
        {"apns_key_file": "/etc/apns.p8"},
        {"apns_key_id": "ABC", "apns_team_id": "DEF", "apns_topic": "example.chat"},
    ],
)
def test_half_a_push_service_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="go together"):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"xmpp_component": "relay.chat.example"},
        {"xmpp_component": "relay.chat.example", "xmpp_secret": OTHER},
        {"xmpp_secret": OTHER, "xmpp_domains": {"chat.example"}},
    ],
)
def test_half_an_xmpp_component_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="go together"):
        make(**changes)


def test_a_components_stream_does_not_leave_this_machine() -> None:
    whole = {"xmpp_component": "relay.chat.example", "xmpp_secret": OTHER, "xmpp_domains": {"chat.example"}}
    assert make(**whole).xmpp_host == "127.0.0.1"
    with pytest.raises(ValidationError, match="loopback"):
        make(**whole, xmpp_host="10.0.0.7")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mqtt_broker": "mqtts://broker.example"}, "mqtt_password"),
        ({"mqtt_broker": "mqtt://broker.example", "mqtt_password": OTHER}, "plaintext"),
        (
            {"mqtt_broker": "mqtts://b.example", "mqtt_password": OTHER, "mqtt_public_url": "mqtt://b.example"},
            "plaintext",
        ),
        ({"mqtt_broker": "https://broker.example", "mqtt_password": OTHER}, "mqtts://"),
        ({"mqtt_broker": "mqtts://e2ee:pw@broker.example", "mqtt_password": OTHER}, "mqtts://"),
    ],
)
def test_a_broker_is_reached_with_an_account_and_over_tls(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        make(**changes)
    assert OTHER not in str(refused.value)


def test_a_broker_on_this_machine_needs_no_tls() -> None:
    settings = make(mqtt_broker="mqtt://127.0.0.1:1883", mqtt_password=OTHER)
    assert settings.mqtt_broker == "mqtt://127.0.0.1:1883"
    assert OTHER not in repr(settings)
