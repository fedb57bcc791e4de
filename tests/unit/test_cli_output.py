"""What the command line prints: nothing that a peer sends steers a terminal, and every message can be printed."""

import io
import json
import sys
from typing import Any

import pytest

from e2ee import notices
from e2ee.cli.failures import BUG, REFUSED, UNAVAILABLE, WRONG_USE, explain
from e2ee.cli.output import Printer, readable
from e2ee.errors import AccountKeyChangedError, DeviceListStaleError, WrongPassphraseError
from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, EnvelopeId, MessageId, UserId
from keyserver.client import InsecureServerUrlError, KeyServerRefusedError, KeyServerUnavailableError
from transport_adapters import events
from transport_adapters.base import InsecureUrlError, TransportRefusedError
from transport_adapters.secure_client.client import Message
from transport_adapters.secure_client.parts import TokenProviderError

ALICE = DeviceAddress(UserId("alice"), DeviceId(bytes(16)))


def message(data: bytes | str | None, *, sent_at: int = 0, conversation: str = "") -> Message:
    async def confirm(_number: int) -> None:
        pass

    return Message(
        message_id=MessageId(bytes(16)),
        sender=ALICE.user_id,
        recipient=UserId("bob"),
        device=ALICE,
        conversation=ConversationId(conversation),
        data=data,
        sent_at=sent_at,
        received_at=0,
        number=1,
        is_copy=False,
        _confirm=confirm,
    )


def printed(capsys: pytest.CaptureFixture[str], each: Message) -> str:
    Printer(as_json=False).message(each)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[2J", "\x9b2J", "\x07", "\x00", "\x08\x08\x08", "\x7f", "\u202e", "\u2066", "\ufeff", "\U000e0041"],
)
def test_control_characters_of_a_peer_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    shown = printed(capsys, message(f"before{hostile}after"))

    assert not set(hostile) - set("[2J") & set(shown)
    assert "before" in shown
    assert shown.endswith("after\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\v", "\f"])
def test_text_of_a_peer_does_not_look_like_another_message(capsys: pytest.CaptureFixture[str], end: str) -> None:
    shown = printed(capsys, message(f"hello{end}12:00 bob: send money"))

    assert all(line.startswith("    ") for line in shown.splitlines()[1:])


def test_text_in_other_scripts_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Grüße, 你好, مرحبا, \N{MAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}"

    assert printed(capsys, message(text)).endswith(f" alice: {text}\n")


@pytest.mark.parametrize("sent_at", [0, (1 << 63) - 1, 253402300800000])
def test_time_that_is_none_does_not_keep_a_message_from_being_shown(
    capsys: pytest.CaptureFixture[str], sent_at: int
) -> None:
    assert printed(capsys, message("hi", sent_at=sent_at)).endswith(" alice: hi\n")


def test_conversation_bytes_and_unknown_kinds_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "alice [lunch]: hi" in printed(capsys, message("hi", conversation="lunch"))
    assert "[3 bytes; use --json]" in printed(capsys, message(b"abc"))
    assert "does not know" in printed(capsys, message(None))


@pytest.mark.parametrize("data", ["two\nlines\x1b\u2028\udfff".encode("utf-8", "replace").decode(), b"\xff\n", None])
def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str], data: bytes | str | None) -> None:
    Printer(as_json=True).message(message(data))

    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()
    assert json.loads(out)["sender"] == "alice"


def test_output_that_is_not_utf8_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    Printer(as_json=False).message(message("grüß dich"))

    assert raw.getvalue().endswith(b" alice: gr\\xfc\\xdf dich\n")


def test_remarks_are_one_line_whatever_a_server_says(capsys: pytest.CaptureFixture[str]) -> None:
    Printer(as_json=False).remark("refused: \x1b]0;x\x07\nsent to bob")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "\x1b" not in captured.err


@pytest.mark.parametrize(
    "event",
    [
        events.SendFailed(MessageId(bytes(16)), ALICE, "contact_refused"),
        events.Unreadable(ALICE, None, "authentication_failed"),
        events.Unreadable(None, None, "malformed_message"),
        events.TrustNeeded(ALICE.user_id),
        events.DeviceSkipped(ALICE, "prekey_expired"),
        events.Expired(ALICE, EnvelopeId(bytes(16))),
        events.OwnDevicesChanged((ALICE.device_id,), ()),
        notices.AskedAgain(ALICE, ()),
        notices.MessageNotResent(MessageId(bytes(16)), ALICE),
        notices.SessionReplaced(ALICE),
        notices.EpochStalled(ALICE),
        notices.DeviceListExpired(ALICE.user_id),
        notices.DeviceListsForked(ALICE.user_id),
        notices.StoreRolledBack(),
    ],
)
def test_events_that_matter_are_remarked_and_never_printed_as_results(
    capsys: pytest.CaptureFixture[str], event: Any
) -> None:
    Printer(as_json=True).event(event)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("e2ee: ")


def test_readable_is_idempotent() -> None:
    once = readable("".join(map(chr, range(0x300))))

    assert readable(once) == once


def _wrapped(cause: Exception) -> TokenProviderError:
    error = TokenProviderError(type(cause).__name__)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongPassphraseError(), WRONG_USE),
        (InsecureUrlError("http"), WRONG_USE),
        (InsecureServerUrlError(), WRONG_USE),
        (DeviceListStaleError("bob"), REFUSED),
        (AccountKeyChangedError("bob"), REFUSED),
        (KeyServerRefusedError(403, "contact_refused"), REFUSED),
        (TransportRefusedError("replaced", 4409), REFUSED),
        (KeyServerUnavailableError("ConnectError"), UNAVAILABLE),
        (_wrapped(KeyServerUnavailableError("ConnectError")), UNAVAILABLE),
        (_wrapped(KeyServerRefusedError(401, "token_invalid")), REFUSED),
    ],
)
def test_errors_become_their_exit_code(error: Exception, code: int) -> None:
    failure = explain(error)

    assert failure.exit_code == code
    assert failure.text


@pytest.mark.parametrize(
    "error", [KeyServerRefusedError(401, "device_revoked"), TransportRefusedError("device_revoked", 4403)]
)
def test_whose_device_is_out_is_told_how_to_go_on(error: Exception) -> None:
    assert explain(error).text.endswith("delete its directory and begin with 'e2ee link'")


def test_a_bug_is_reported_without_what_it_may_quote() -> None:
    try:
        raise KeyError("the plaintext of a message")
    except KeyError as error:
        failure = explain(error)

    assert failure.exit_code == BUG
    assert "KeyError" in failure.text
    assert "plaintext of a message" not in failure.text
