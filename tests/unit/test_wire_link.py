"""The messages of a link, its code, the signs that people compare, and the key that a bundle is sealed to."""

from base64 import b32encode
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from e2ee.errors import (
    AuthenticationError,
    InvalidPublicKeyError,
    InvalidSignatureError,
    LinkMismatchError,
    MalformedMessageError,
    UnsupportedVersionError,
)
from e2ee.limits import MAX_LINK_MESSAGE
from e2ee.primitives import hpke, kdf
from e2ee.private_keys import LinkKeyPair, SeedBytes32, seal_to
from e2ee.short_authentication import PICTURES, signs_of
from e2ee.wire.link import (
    LinkAnswer,
    LinkBundle,
    LinkCommit,
    LinkId,
    LinkNonce,
    LinkReveal,
    LinkTranscript,
    bundle_signed_bytes,
    link_code,
    link_qr_text,
    link_transcript,
    parse_link_code,
)
from e2ee.wire.public_keys import LinkKey
from tests.wire_objects import make_device

ID, OTHER_ID = LinkId(bytes(range(16))), LinkId(bytes(16))
PHONE, LAPTOP = make_device("alice", 1), make_device("alice", 2)
REVEAL = LinkReveal(ID, LinkKey(Random("link").randbytes(1216)), LAPTOP.listed(), LinkNonce(b"n" * 32))
COMMIT = LinkCommit(ID, REVEAL.commitment())
ANSWER = LinkAnswer(
    ID, PHONE.address.user_id, PHONE.account.public, PHONE.address.device_id, PHONE.signing.public, LinkNonce(b"p" * 32)
)
L = link_transcript(COMMIT, ANSWER, REVEAL)
BUNDLE = LinkBundle(ID, b"sealed", PHONE.signing.sign(bundle_signed_bytes(L, b"sealed")))

DECODE: dict[bytes, Callable[[bytes], object]] = {
    message.encode(): type(message).decode for message in (COMMIT, ANSWER, REVEAL, BUNDLE)
}
COMMITTED = (
    REVEAL.link_key.raw
    + LAPTOP.address.device_id.raw
    + LAPTOP.signing.public.raw
    + LAPTOP.identity.public.raw
    + b"n" * 32
)
"""What C is of, after its label."""


# --- The four messages ---------------------------------------------------------------------------------------


def test_the_layout_of_the_four_messages() -> None:
    device_id, signing = PHONE.address.device_id.raw, PHONE.signing.public.raw
    assert COMMIT.encode() == b"\x01\x01" + ID.raw + REVEAL.commitment().raw
    answered = b"\x05alice" + PHONE.account.public.raw + device_id + signing + b"p" * 32
    assert ANSWER.encode() == b"\x01\x02" + ID.raw + answered
    assert REVEAL.encode() == b"\x01\x03" + ID.raw + COMMITTED
    assert BUNDLE.encode() == b"\x01\x04" + ID.raw + b"\x00\x06sealed" + BUNDLE.signature


def test_the_four_messages_come_back() -> None:
    assert LinkCommit.decode(COMMIT.encode()) == COMMIT
    assert LinkAnswer.decode(ANSWER.encode()) == ANSWER
    assert LinkReveal.decode(REVEAL.encode()) == REVEAL
    assert LinkBundle.decode(BUNDLE.encode()) == BUNDLE


def test_a_message_that_is_cut_anywhere_or_goes_on_is_refused() -> None:
    for message, decode in DECODE.items():
        for at in range(len(message)):
            with pytest.raises(MalformedMessageError, match="truncated"):
                decode(message[:at])
        with pytest.raises(MalformedMessageError, match="trailing"):
            decode(message + b"\0")


def test_a_message_in_the_place_of_another_is_refused_by_its_number() -> None:
    for number, message in enumerate(DECODE, 1):
        for place, decode in enumerate(DECODE.values(), 1):
            if place != number:
                with pytest.raises(
                    MalformedMessageError, match=f"message {number} of a link in the place of message {place}"
                ):
                    decode(message)


def test_every_message_names_its_version_before_anything_else_is_read() -> None:
    for message, decode in DECODE.items():
        for version in (0, 2, 255):
            with pytest.raises(UnsupportedVersionError) as unsupported:
                decode(bytes([version]) + b"\xff" + message[2:])
            assert str(unsupported.value).startswith(f"Unsupported link: {version}.")


def test_a_message_has_at_most_8_kib() -> None:
    longest = LinkBundle(ID, bytes(MAX_LINK_MESSAGE - 1 - 1 - 16 - 2 - 64), bytes(64))
    assert len(longest.encode()) == MAX_LINK_MESSAGE == 8192
    assert LinkBundle.decode(longest.encode()) == longest
    for decode in DECODE.values():
        with pytest.raises(MalformedMessageError, match="at most 8192"):
            decode(longest.encode() + b"\0")


def test_a_revealed_identity_key_is_canonical() -> None:
    encoded = REVEAL.encode()
    with pytest.raises(InvalidPublicKeyError):
        LinkReveal.decode(encoded[:-64] + b"\xff" * 32 + encoded[-32:])


# --- Commitment, transcript, signature -----------------------------------------------------------------------


def test_the_commitment_is_the_hash_of_its_label_and_of_all_that_is_revealed() -> None:
    assert REVEAL.commitment().raw == kdf.sha256(b"\x12E2EE/1 link commit" + COMMITTED)


def test_the_transcript_is_the_hash_of_its_label_and_of_three_whole_messages() -> None:
    messages = COMMIT.encode() + ANSWER.encode() + REVEAL.encode()
    assert link_transcript(COMMIT, ANSWER, REVEAL).raw == kdf.sha256(b"\x16E2EE/1 link transcript" + messages)


def test_the_messages_of_two_links_have_no_transcript() -> None:
    # The commitment does not cover the link id, so nothing but the comparison of the three notices.
    for commit, answer, reveal in (
        (replace(COMMIT, link_id=OTHER_ID), ANSWER, REVEAL),
        (COMMIT, replace(ANSWER, link_id=OTHER_ID), REVEAL),
        (COMMIT, ANSWER, replace(REVEAL, link_id=OTHER_ID)),
    ):
        with pytest.raises(LinkMismatchError, match="two links"):
            link_transcript(commit, answer, reveal)


def test_what_was_not_committed_to_has_no_transcript() -> None:
    for reveal in (
        replace(REVEAL, link_key=LinkKey(bytes(1216))),
        replace(REVEAL, device=replace(LAPTOP.listed(), device_id=PHONE.address.device_id)),
        replace(REVEAL, device=replace(LAPTOP.listed(), device_signing_key=PHONE.signing.public)),
        replace(REVEAL, device=replace(LAPTOP.listed(), identity_key=PHONE.identity.public)),
        replace(REVEAL, nonce=LinkNonce(bytes(32))),
    ):
        with pytest.raises(LinkMismatchError, match="committed"):
            link_transcript(COMMIT, ANSWER, reveal)


def test_what_is_signed_is_the_label_the_transcript_and_the_hash_of_what_is_sealed() -> None:
    assert bundle_signed_bytes(L, b"sealed") == b"\x12E2EE/1 link bundle" + L.raw + kdf.sha256(b"sealed")


def test_a_bundle_gives_what_is_sealed_for_the_key_and_the_link_that_it_was_signed_for_alone() -> None:
    assert BUNDLE.verify(PHONE.signing.public, L) == b"sealed"
    for bundle, key, transcript in (
        (BUNDLE, LAPTOP.signing.public, L),
        (BUNDLE, PHONE.signing.public, LinkTranscript(bytes(32))),
        (replace(BUNDLE, sealed=b"Sealed"), PHONE.signing.public, L),
        (replace(BUNDLE, signature=bytes(64)), PHONE.signing.public, L),
    ):
        with pytest.raises(InvalidSignatureError, match=r"on link bundle\."):
            bundle.verify(key, transcript)


# --- The code ------------------------------------------------------------------------------------------------


def test_the_code_is_base32_of_the_link_id_and_of_4_bytes_of_its_hash() -> None:
    code = b32encode(ID.raw + kdf.sha256(b"\x10E2EE/1 link code" + ID.raw)[:4]).decode()
    assert link_code(ID) == code
    assert link_qr_text(ID) == f"E2EE1-LINK:{code}"


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


# --- Signs, and the key of a bundle --------------------------------------------------------------------------


def test_there_are_64_pictures_no_two_alike_each_one_character_with_a_word() -> None:
    assert len(PICTURES) == len({each.emoji for each in PICTURES}) == len({each.name for each in PICTURES}) == 64
    assert all(len(each.emoji) == 1 and each.name.isalpha() and each.name.islower() for each in PICTURES)


def test_every_picture_and_every_place_takes_part() -> None:
    shown = [signs_of(LinkTranscript(Random(seed).randbytes(32))) for seed in range(2_000)]
    for place in range(7):
        assert {each.pictures[place] for each in shown} == set(PICTURES)
    assert all(len(each.pictures) == 7 and len(each.digits) == 6 and each.digits.isdecimal() for each in shown)
    assert len({each.pictures for each in shown}) == len(shown)


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
