"""`e2ee verify`: two people compare safety numbers, read aloud and as pictures; a changed account key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_processes import Desk, Ended, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Alice and Bob, who have written to each other, and Carol, who has written to Alice."""
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        for user in ("alice", "bob", "carol"):
            desk.init(user)
        for sender in ("bob", "carol"):
            assert desk.call("send", "alice", "hello", "--home", sender).code == 0
        assert desk.call("receive", "--home", "alice").code == 0
        yield desk


def shown(ended: Ended) -> dict[str, Any]:
    assert (ended.code, ended.err) == (0, "")
    fields: dict[str, Any] = json.loads(ended.out)
    return fields


def test_both_ends_print_one_number_in_groups(desk: Desk) -> None:
    at_alice, at_bob = (
        desk.call("verify", peer, "--home", home) for peer, home in (("bob", "alice"), ("alice", "bob"))
    )
    assert at_alice.code == at_bob.code == 0
    numbers = [[line for line in each.out.splitlines() if line.startswith("  ")] for each in (at_alice, at_bob)]
    assert numbers[0] == numbers[1]
    assert [len(line.split()) for line in numbers[0]] == [4, 4, 4]
    assert at_alice.out.startswith("safety number with bob, not verified:\n")
    assert "\u2588" in at_alice.out, "and the QR code"


@pytest.mark.parametrize("name", ["bob.png", "bob.PNG"])
def test_the_code_made_on_one_end_verifies_on_the_other_from_a_picture(desk: Desk, name: str) -> None:
    assert desk.call("verify", "alice", "--qr", name, "--home", "bob").code == 0
    assert shown(desk.call("verify", "bob", "--scan", name, "--json", "--home", "alice"))["verified"] is True
    withdrawn = shown(desk.call("verify", "bob", "--withdraw", "--json", "--home", "alice"))
    assert withdrawn["verified"] is False
    assert [each["decision"] for each in withdrawn["decisions"]][-2:] == ["verified", "verification_withdrawn"]


def test_a_code_is_also_drawn_as_svg(desk: Desk) -> None:
    assert desk.call("verify", "alice", "--qr", "bob.svg", "--home", "bob").code == 0
    assert "<svg" in (desk.directory / "bob.svg").read_text()


def test_anothers_code_and_another_number_are_refused_and_verify_nothing(desk: Desk) -> None:
    assert desk.call("verify", "alice", "--qr", "carol.png", "--home", "carol").code == 0
    number = shown(desk.call("verify", "carol", "--json", "--home", "alice"))["safety_number"]
    for wrong in (("--scan", "carol.png"), ("--number", number)):
        ended = desk.call("verify", "bob", *wrong, "--home", "alice")
        assert (ended.code, ended.out) == (1, "")
        assert ended.remark.startswith("The safety number with bob is another one. Do not trust")
    assert shown(desk.call("verify", "bob", "--json", "--home", "alice"))["verified"] is False


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_of_a_code_is_called_so(desk: Desk, content: bytes) -> None:
    (desk.directory / "junk.png").write_bytes(content)
    ended = desk.call("verify", "bob", "--scan", "junk.png", "--home", "alice")
    assert (ended.code, ended.out) == (2, "")
    assert ended.remark.startswith("junk.png ")


def test_a_picture_without_a_code_and_a_file_that_is_not_there(desk: Desk) -> None:
    from PIL import Image

    Image.new("L", (50, 50), 255).save(desk.directory / "white.png")
    assert desk.call("verify", "bob", "--scan", "white.png", "--home", "alice").remark == (
        "white.png shows 0 QR codes, not one"
    )
    assert desk.call("verify", "bob", "--scan", "absent.png", "--home", "alice").code == 2


def test_a_user_who_is_no_contact_has_no_number(desk: Desk) -> None:
    ended = desk.call("verify", "dave", "--home", "alice")
    assert (ended.code, ended.out) == (2, "")
    assert ended.remark.startswith("dave is no contact of this device")


def test_our_own_user_is_nobody_to_compare_with(desk: Desk) -> None:
    ended = desk.call("verify", "alice", "--home", "alice")
    assert (ended.code, ended.out) == (2, "")
    assert ended.remark.startswith("alice is this account itself")


def test_a_digit_too_few_is_said_to_be_one(desk: Desk) -> None:
    ended = desk.call("verify", "bob", "--number", "12345", "--home", "alice")
    assert (ended.code, ended.remark) == (2, "a safety number has 60 digits, and this has 5 characters")


def test_nothing_is_said_to_a_store_that_another_home_owns(tmp_path: Path, desk: Desk) -> None:
    assert desk.call("verify", "bob", "--home", str(tmp_path / "nowhere")).code == 2
