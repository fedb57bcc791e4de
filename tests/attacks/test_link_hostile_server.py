"""A server that carries the messages of a link as it likes: swapped, replayed, late, of another link.

Whatever it does, the two ends show different signs, or the end that was lied to refuses, and nothing of the account is
taken over.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from e2ee.account import Account
from e2ee.errors import (
    AuthenticationError,
    E2EEError,
    InvalidSignatureError,
    LinkExpiredError,
    LinkMismatchError,
    MalformedMessageError,
    ProtocolError,
    UnsupportedVersionError,
)
from e2ee.limits import LINK_LIFETIME_MS
from e2ee.linking import Approval, ApprovalComparison, JoinComparison, Offer
from e2ee.private_keys import LinkKeyPair, seal_to
from e2ee.transfer import LinkPayload
from e2ee.wire.device_list import ordered
from e2ee.wire.identifiers import UserId
from e2ee.wire.link import (
    LinkAnswer,
    LinkBundle,
    LinkCommit,
    LinkId,
    LinkReveal,
    LinkTranscript,
    bundle_signed_bytes,
)
from tests.world import START, flip

ALICE = UserId("alice")


@dataclass
class Pair:
    """A new device and an existing one, and the randomness of both."""

    seed: int

    def __post_init__(self) -> None:
        self.rng = Random(self.seed).randbytes
        self.account = Account.generate(ALICE, self.rng)
        self.device_list = self.account.first_device_list(START)
        self.offer = Offer.make(ALICE, START, self.rng)

    def approval(self, commit: LinkCommit | None = None) -> Approval:
        return Approval.make(self.account, self.device_list, commit or self.offer.commit, START, self.rng)

    def compared(self) -> tuple[JoinComparison, ApprovalComparison]:
        """An honest exchange up to the comparison."""
        approval = self.approval()
        return self.offer.compare(approval.answer, START), approval.compare(self.offer.reveal, START)

    def sealed(self, comparison: JoinComparison, payload: bytes, signer: Account | None = None) -> LinkBundle:
        """What the existing device would send if it were hostile."""
        transcript = comparison._transcript
        sealed = seal_to(self.offer.reveal.link_key, payload, transcript.info)
        key = (signer or self.account).device_signing_key_pair
        return LinkBundle(self.offer.link_id, sealed, key.sign(bundle_signed_bytes(transcript, sealed)))

    def payload(self, **changes: object) -> LinkPayload:
        honest = LinkPayload(ALICE, self.account.account_key_pair, self.device_list.signed)
        return replace(honest, **changes)  # type: ignore[arg-type]  # names and types are the test's


@pytest.fixture
def pair() -> Pair:
    return Pair(1)


def test_an_honest_server_links_and_both_ends_show_the_same(pair: Pair) -> None:
    new, existing = pair.compared()
    assert new.signs == existing.signs
    linked = new.confirm().open(existing.confirm(START).bundle, START)
    assert linked.account.account_key_pair == pair.account.account_key_pair
    assert linked.account.address == pair.offer.address
    assert linked.device_list == pair.device_list


@pytest.mark.parametrize("seed", range(5))
def test_a_server_in_the_middle_makes_the_signs_differ(seed: int) -> None:
    """It plays an existing device of its own to the new one, and a new device of its own to the existing one."""
    pair, mallory = Pair(seed), Pair(seed + 100)
    theirs = replace(mallory.offer, reveal=replace(mallory.offer.reveal, link_id=pair.offer.link_id))
    shown_by_new = pair.offer.compare(mallory.approval(pair.offer.commit).answer, START).signs
    approval = pair.approval(theirs.commit)
    shown_by_existing = approval.compare(theirs.reveal, START).signs
    assert shown_by_new.pictures != shown_by_existing.pictures
    assert shown_by_new.digits != shown_by_existing.digits


@pytest.mark.parametrize("field", ["user_id", "account_key", "device_id", "device_signing_key", "nonce"])
def test_an_answer_with_any_field_changed_is_refused_or_makes_the_signs_differ(pair: Pair, field: str) -> None:
    approval, other = pair.approval(), Pair(2).approval(pair.offer.commit).answer
    value: Any = UserId("alicf") if field == "user_id" else getattr(other, field)
    changed = replace(approval.answer, **{field: value})
    existing = approval.compare(pair.offer.reveal, START)
    try:
        new = pair.offer.compare(changed, START)
    except LinkMismatchError:
        assert field == "user_id"
        return
    assert new.signs != existing.signs
    # And even if nobody looked: the bundle is sealed with another L.
    with pytest.raises(ProtocolError):
        new.confirm().open(existing.confirm(START).bundle, START)


@pytest.mark.parametrize("field", ["link_key", "device", "nonce"])
def test_a_reveal_that_is_not_what_was_committed_to_is_refused_before_anything_is_shown(pair: Pair, field: str) -> None:
    changed = replace(pair.offer.reveal, **{field: getattr(Pair(2).offer.reveal, field)})
    with pytest.raises(LinkMismatchError):
        pair.approval().compare(changed, START)


def test_a_device_that_is_listed_already_is_not_linked_again(pair: Pair) -> None:
    entry = pair.device_list.content.devices[0]
    reveal = replace(pair.offer.reveal, device=entry)
    with pytest.raises(LinkMismatchError, match="taken"):
        pair.approval(LinkCommit(pair.offer.link_id, reveal.commitment())).compare(reveal, START)


def test_messages_of_another_link_are_refused(pair: Pair) -> None:
    other = LinkId(bytes(16))
    approval = pair.approval()
    new, existing = pair.compared()
    with pytest.raises(LinkMismatchError):
        pair.offer.compare(replace(approval.answer, link_id=other), START)
    with pytest.raises(LinkMismatchError):
        approval.compare(replace(pair.offer.reveal, link_id=other), START)
    with pytest.raises(LinkMismatchError):
        new.confirm().open(replace(existing.confirm(START).bundle, link_id=other), START)


def test_a_bundle_that_the_server_made_itself_is_refused(pair: Pair) -> None:
    new, _ = pair.compared()
    with pytest.raises(InvalidSignatureError):
        new.confirm().open(pair.sealed(new, pair.payload().encode(), signer=Pair(2).account), START)


def test_a_bundle_replayed_from_an_earlier_link_is_refused(pair: Pair) -> None:
    """Of the same two devices: the earlier bundle is authentic, and for another L."""
    _, earlier = pair.compared()
    replayed = earlier.confirm(START).bundle
    new, existing = pair.compared()
    with pytest.raises(InvalidSignatureError):
        new.confirm().open(replayed, START)
    assert new.confirm().open(existing.confirm(START).bundle, START).device_list == pair.device_list


def test_no_bit_of_a_bundle_may_change(pair: Pair) -> None:
    new, existing = pair.compared()
    honest = existing.confirm(START).bundle.encode()
    for bit in Random(7).sample(range(8 * len(honest)), 150):
        with pytest.raises(ProtocolError):
            new.confirm().open(LinkBundle.decode(flip(honest, bit)), START)


def test_a_bundle_sealed_to_another_key_or_with_another_l_is_refused(pair: Pair) -> None:
    new, _ = pair.compared()
    transcript, payload = new._transcript, pair.payload().encode()
    for sealed in (
        seal_to(LinkKeyPair.generate(pair.rng).public, payload, transcript.info),
        seal_to(pair.offer.reveal.link_key, payload, LinkTranscript(bytes(32)).info),
        b"",
    ):
        signature = pair.account.device_signing_key_pair.sign(bundle_signed_bytes(transcript, sealed))
        with pytest.raises(AuthenticationError):
            new.confirm().open(LinkBundle(pair.offer.link_id, sealed, signature), START)


def test_an_existing_device_cannot_hand_over_another_account_than_the_confirmed_one(pair: Pair) -> None:
    new, other = pair.compared()[0], Pair(2)
    elsewhere = replace(pair.account, account_key_pair=other.account.account_key_pair)
    strange = other.account.first_device_list(START)
    for payload, error in (
        (pair.payload(user_id=UserId("bob")), LinkMismatchError),
        (pair.payload(account_key_pair=other.account.account_key_pair), LinkMismatchError),
        (pair.payload(device_list=elsewhere.first_device_list(START).signed), InvalidSignatureError),
        (pair.payload(device_list=strange.signed), InvalidSignatureError),
        (pair.payload(device_list=_list_of(pair, other.account)), LinkMismatchError),
        (pair.payload(device_list=_list_with_new(pair)), LinkMismatchError),
    ):
        with pytest.raises(error):
            new.confirm().open(pair.sealed(new, payload.encode()), START)


def _list_of(pair: Pair, device: Account) -> object:
    """Signed by the account, and without the device that answered."""
    return replace(device, account_key_pair=pair.account.account_key_pair).first_device_list(START).signed


def _list_with_new(pair: Pair) -> object:
    content = pair.device_list.content
    devices = ordered([*content.devices, pair.offer.reveal.device])
    return pair.account.sign_device_list(replace(content, devices=devices)).signed


@pytest.mark.parametrize("payload", [b"", b"\x02", b"\x01\x05alice", b"\x01" + bytes(500)])
def test_a_payload_that_does_not_decode_is_refused(pair: Pair, payload: bytes) -> None:
    new, _ = pair.compared()
    with pytest.raises((MalformedMessageError, UnsupportedVersionError)):
        new.confirm().open(pair.sealed(new, payload), START)


def test_a_payload_has_one_encoding(pair: Pair) -> None:
    new, _ = pair.compared()
    with pytest.raises(MalformedMessageError):
        new.confirm().open(pair.sealed(new, pair.payload().encode() + b"\0"), START)


@pytest.mark.parametrize("late", [LINK_LIFETIME_MS, 10 * LINK_LIFETIME_MS, -1])
def test_every_step_is_refused_after_ten_minutes_and_by_a_clock_that_was_set_back(pair: Pair, late: int) -> None:
    approval = pair.approval()
    new, existing = pair.compared()
    bundle = existing.confirm(START).bundle
    for step in (
        lambda: pair.offer.compare(approval.answer, START + late),
        lambda: approval.compare(pair.offer.reveal, START + late),
        lambda: existing.confirm(START + late),
        lambda: new.confirm().open(bundle, START + late),
    ):
        with pytest.raises(LinkExpiredError):
            step()


def test_the_last_moment_is_in_time(pair: Pair) -> None:
    new, existing = pair.compared()
    last = START + LINK_LIFETIME_MS - 1
    assert new.confirm().open(existing.confirm(last).bundle, last).account.address == pair.offer.address


def test_a_message_of_one_slot_is_not_taken_for_another(pair: Pair) -> None:
    _, existing = pair.compared()
    messages = {
        LinkCommit: pair.offer.commit.encode(),
        LinkAnswer: pair.approval().answer.encode(),
        LinkReveal: pair.offer.reveal.encode(),
        LinkBundle: existing.confirm(START).bundle.encode(),
    }
    for kind in messages:
        for other, message in messages.items():
            if other is not kind:
                with pytest.raises(E2EEError):
                    kind.decode(message)  # type: ignore[attr-defined]  # all four have it


def test_a_message_under_the_number_of_another_is_refused_whatever_its_length(pair: Pair) -> None:
    _, existing = pair.compared()
    honest = [
        (LinkCommit.decode, pair.offer.commit.encode()),
        (LinkAnswer.decode, pair.approval().answer.encode()),
        (LinkReveal.decode, pair.offer.reveal.encode()),
        (LinkBundle.decode, existing.confirm(START).bundle.encode()),
    ]
    for decode, message in honest:
        for number in set(range(256)) - {message[1]}:
            with pytest.raises(MalformedMessageError):
                decode(message[:1] + bytes((number,)) + message[2:])


def test_an_answer_of_another_user_is_refused_before_anything_is_shown(pair: Pair) -> None:
    """Its account would be joined under our own name."""
    answer = replace(pair.approval().answer, user_id=UserId("alicf"))
    with pytest.raises(LinkMismatchError, match="another user"):
        pair.offer.compare(answer, START)


def test_no_state_of_a_link_shows_a_secret(pair: Pair) -> None:
    new, existing = pair.compared()
    confirmed = existing.confirm(START)
    linked = new.confirm().open(confirmed.bundle, START)
    secrets = [pair.account.account_key_pair.seed.expose(), pair.offer._link_key_pair._seed.expose()]
    for state in (pair.offer, new, existing, new.confirm(), confirmed, linked, pair.approval(), pair.payload()):
        shown = repr(state)
        assert not any(secret.hex() in shown or repr(secret) in shown for secret in secrets)
