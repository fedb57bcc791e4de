"""The code of a link, the signs that people compare, and the key that a bundle is sealed to."""

from random import Random

import pytest

from e2ee.errors import AuthenticationError, InvalidPublicKeyError, MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_LINK_MESSAGE
from e2ee.primitives import hpke
from e2ee.private_keys import LinkKeyPair, SeedBytes32, seal_to
from e2ee.short_authentication import PICTURES, signs_of
from e2ee.wire.link import (
    LinkBundle,
    LinkCommit,
    LinkCommitment,
    LinkId,
    LinkTranscript,
    link_code,
    link_qr_text,
    parse_link_code,
)
from e2ee.wire.public_keys import LinkKey

ID = LinkId(bytes(range(16)))


def test_a_code_is_read_as_people_type_it() -> None:
    code = link_code(ID)
    groups = " ".join(code[at : at + 4] for at in range(0, 32, 4))
    for typed in (code, code.lower(), groups, groups.replace(" ", "-").lower(), link_qr_text(ID), f" {groups}\n"):
        assert parse_link_code(typed) == ID


def test_a_mistyped_letter_is_noticed_wherever_it_is() -> None:
    code = link_code(ID)
    for at in range(len(code)):
        for other in "AB7":
            if other != code[at]:
                with pytest.raises(MalformedMessageError):
                    parse_link_code(code[:at] + other + code[at + 1 :])


@pytest.mark.parametrize("text", ["", "A" * 31, "A" * 33, "é" * 32, "1" * 32, "E2EE1-SAFETY:" + "A" * 32, "A" * 4096])
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse_link_code(text)


def test_the_code_is_small_in_a_qr_code() -> None:
    assert set(link_qr_text(ID)) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")


def test_there_are_64_pictures_no_two_alike_each_one_character_with_a_word() -> None:
    assert len(PICTURES) == len({each.emoji for each in PICTURES}) == len({each.name for each in PICTURES}) == 64
    assert all(len(each.emoji) == 1 and each.name.isalpha() and each.name.islower() for each in PICTURES)


def test_every_picture_and_every_place_takes_part() -> None:
    shown = [signs_of(LinkTranscript(Random(seed).randbytes(32))) for seed in range(2_000)]
    for place in range(7):
        assert {each.pictures[place] for each in shown} == set(PICTURES)
    assert all(len(each.pictures) == 7 and len(each.digits) == 6 and each.digits.isdecimal() for each in shown)
    assert len({each.pictures for each in shown}) == len(shown)


def test_an_unknown_version_or_an_oversized_message_is_refused() -> None:
    commit = LinkCommit(ID, LinkCommitment(bytes(32)))
    with pytest.raises(UnsupportedVersionError):
        LinkCommit.decode(b"\x02" + commit.encode()[1:])
    with pytest.raises(MalformedMessageError):
        LinkBundle.decode(LinkBundle(ID, bytes(MAX_LINK_MESSAGE), bytes(64)).encode())


def test_what_is_sealed_opens_with_the_key_and_the_info_and_with_nothing_else() -> None:
    pair, other = (LinkKeyPair(SeedBytes32(bytes((number,)) * 32)) for number in (1, 2))
    sealed = seal_to(pair.public, b"secret", b"info")
    assert len(sealed) == len(b"secret") + hpke.OVERHEAD
    assert pair.unseal(sealed, b"info") == b"secret"
    wrong = [(other, sealed, b"info"), (pair, sealed, b"other"), (pair, sealed[:-1], b"info"), (pair, b"", b"info")]
    for key, text, info in wrong:
        with pytest.raises(AuthenticationError):
            key.unseal(text, info)


@pytest.mark.parametrize(
    "raw", [b"\xff" * 1184 + bytes(31) + b"\x09", LinkKeyPair(SeedBytes32(bytes(32))).public.raw[:1184] + bytes(32)]
)
def test_nothing_is_sealed_to_a_key_out_of_range_or_of_low_order(raw: bytes) -> None:
    with pytest.raises(InvalidPublicKeyError):
        seal_to(LinkKey(raw), b"secret", b"info")
