"""What a client takes for an answer of the server about its account at the broker, and what it takes for none."""

from typing import Any

import pytest

from transport_adapters.base import Cursor, InsecureUrlError
from transport_adapters.link import LinkOptions
from transport_adapters.mqtt import MAX_CREDIT, MAX_CREDIT_BYTES, MqttOptions, MqttTransport, _access

GOOD = {
    "broker": "mqtt://localhost:1884",
    "client_id": "c",
    "username": "u",
    "password": "p",
    "up": "e2ee/up/1/c",
    "down": "e2ee/down/c",
    "news": "e2ee/news/1",
}


def test_an_answer_is_taken_as_it_is() -> None:
    access = _access(GOOD, MqttOptions())
    assert (access.broker.port, access.up, access.account.password) == (1884, "e2ee/up/1/c", "p")


@pytest.mark.parametrize(
    "changes",
    [
        {"up": "e2ee/up/#"},
        {"down": "e2ee/down/+"},
        {"news": ""},
        {"up": 7},
        {"broker": "http://broker.example"},
        {"broker": None},
    ],
)
def test_an_answer_that_names_no_broker_or_no_plain_topics_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="names no"):
        _access(GOOD | changes, MqttOptions())


@pytest.mark.parametrize("answer", [None, [], "text", {}])
def test_anything_else_is_none_either(answer: object) -> None:
    with pytest.raises(OSError, match="names no"):
        _access(answer, MqttOptions())


def test_the_server_cannot_talk_a_client_into_plaintext() -> None:
    with pytest.raises(InsecureUrlError):
        _access(GOOD | {"broker": "mqtt://broker.example"}, MqttOptions())


@pytest.mark.parametrize("more", [{"credit_messages": MAX_CREDIT + 1}, {"credit_bytes": MAX_CREDIT_BYTES + 1}])
def test_credit_that_a_broker_would_not_hold_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="credit"):
        MqttOptions(link=LinkOptions(**more))


def test_the_server_itself_is_not_asked_in_plaintext_beyond_this_machine() -> None:
    async def token() -> str:
        return ""

    async def cursor() -> Cursor:
        return Cursor(0, 0)

    with pytest.raises(InsecureUrlError):
        MqttTransport("http://chat.example", token=token, cursor=cursor)
