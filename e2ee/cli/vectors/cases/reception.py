"""Cases of reception.json: what bob makes of envelopes."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.forgery import Forgery, mallory_first
from e2ee.cli.vectors.cases.mutations import LOW_ORDER, flip, invalid, put, valid
from e2ee.cli.vectors.cases.people import person
from e2ee.cli.vectors.cases.story import Story
from e2ee.cli.vectors.model import Case, CaseGroup
from e2ee.cli.vectors.operations.scripts import RECEPTION
from e2ee.cli.vectors.refusals import Layer
from e2ee.limits import MAX_SKIP
from e2ee.wire.content import ContentKind
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import EnvelopeId

ALICE: Final = person("alice")
BOB: Final = person("bob")
_BODY: Final = 68
"""Offset of the body in an envelope from alice to bob."""
_INNER: Final = _BODY + 1719 + 4
"""Offset of the RatchetMessage in such an envelope with a PreKeyMessage."""
_PN, _INDEX, _EPOCH, _PQ_INDEX = 34, 38, 42, 46
"""Offsets in a RatchetMessage."""


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(RECEPTION, "accepted envelopes", tuple(_accepted()))
    yield CaseGroup(RECEPTION, "first messages: bytes, keys and prekeys", tuple(_first_bytes()))
    yield CaseGroup(RECEPTION, "first messages: who sent them", tuple(_first_senders()))
    yield CaseGroup(RECEPTION, "messages of a session", tuple(_established()))
    yield CaseGroup(RECEPTION, "what was received before", tuple(_replays()))


def _nothing_yet() -> Story:
    return Story("reception", ALICE, BOB)


def _accepted() -> Iterator[Case]:
    for comment, one_time, last_resort, flags in (
        ("a first message", True, False, ("Normal",)),
        ("without any one-time prekey", False, True, ("NoOneTimePreKey", "LastResort")),
    ):
        forgery = Forgery(one_time=one_time, last_resort=last_resort)
        yield valid(comment, _nothing_yet().reception(BOB, forgery.envelope()), *flags)
    story = _talking()
    late = story.send(ALICE, BOB)
    story.deliver(BOB, story.send(ALICE, BOB))
    story.pass_on(BOB, ALICE)
    story.pass_on(ALICE, BOB)
    yield valid("a late message over a turn", story.reception(BOB, story.envelope(late)), "Skipped", "Turn")
    others = Forgery()
    listed = others.with_list(others.list_with(person("alice", 2).listed))
    yield valid("the sender's list holds another device too", _nothing_yet().reception(BOB, listed.envelope()))


def _first_bytes() -> Iterator[Case]:
    good = Forgery().envelope()

    def refused(comment: str, fails_at: Layer, envelope: bytes, *flags: str) -> Case:
        return invalid(comment, fails_at, _nothing_yet().reception(BOB, envelope), *flags)

    yield refused("the envelope is cut", "decode", good[:-1], "Truncated")
    yield refused("the body has version 2", "decode", put(good, _BODY, b"\2"), "UnknownVersion")
    yield refused("the body has type 3", "decode", put(good, _BODY + 1, b"\3"), "UnknownVersion")
    yield refused("the ephemeral key has bit 255 set", "decode", flip(good, _BODY + 137, 0x80), "NonCanonicalKey")
    yield refused("the ratchet key has bit 255 set", "decode", flip(good, _INNER + 33, 0x80), "NonCanonicalKey")
    for key in LOW_ORDER:
        yield refused("the ephemeral key is of low order", "dh", put(good, _BODY + 106, key), "LowOrderKey")
    yield refused("the identity key is of low order", "dh", put(good, _BODY + 66, LOW_ORDER[2]), "LowOrderKey")
    for key in LOW_ORDER[:2]:
        yield refused("the ratchet key is of low order", "dh", put(good, _INNER + 2, key), "LowOrderKey")
    one_time = BOB.one_time_prekeys[1].prekey_id.to_bytes(4, "big")
    signed = BOB.signed_prekey.prekey_id.to_bytes(4, "big")
    kem = BOB.one_time_kem.prekey_id.to_bytes(4, "big")
    for name, at, ids in (
        ("signed", 138, (("a one-time prekey", one_time), ("a KEM prekey", kem))),
        ("one-time", 143, (("the signed prekey", signed), ("a KEM prekey", kem))),
        ("KEM", 147, (("the signed prekey", signed), ("a one-time prekey", one_time))),
    ):
        for what, prekey_id in ids:
            comment = f"{what} in the place of the {name} prekey"
            yield refused(comment, "dh", put(good, _BODY + at, prekey_id), "WrongPreKeyKind")
        unknown = put(good, _BODY + at, b"\xde\xad\xbe\xef")
        yield refused(f"an unknown {name} prekey", "dh", unknown, "UnknownPreKey")
    another = put(good, _BODY + 143, one_time)
    yield refused("another one-time prekey of ours", "authentication", another, "ModifiedHandshake")
    unnamed = put(good, _BODY + 142, bytes(5))
    yield refused("the one-time prekey is left out", "authentication", unnamed, "ModifiedHandshake")
    for what, at in (
        ("account key", 2),
        ("device signing key", 34),
        ("identity key", 66),
        ("created", 105),
        ("ephemeral key", 106),
        ("KEM ciphertext's first byte", 151),
        ("KEM ciphertext's last byte", 1718),
    ):
        yield refused(f"a bit of the {what} is turned", "authentication", flip(good, _BODY + at), "ModifiedHandshake")
    yield from _first_plaintexts()


def _first_plaintexts() -> Iterator[Case]:
    forgery = Forgery()
    content = forgery.content().encode()
    padded = forgery.plaintext()
    receipt = bytes((3, 0, 1)) + forgery.content().message_id.raw
    for comment, plaintext, flag in (
        ("wrong filler", flip(padded, -1), "Padding"),
        ("no padding at all", (content + bytes(272))[:256], "Padding"),
        ("more padding than the rule gives", padded + bytes(256), "Padding"),
        ("a content that is cut", forgery.padded(content[:-1]), "MalformedContent"),
        ("a content with one more byte", forgery.padded(content + b"\0"), "MalformedContent"),
        ("no device list in a first message", forgery.without_list().plaintext(), "MalformedContent"),
        ("application data of format 2", forgery.with_body(b"\2hello").plaintext(), "MalformedContent"),
        ("application data that is no UTF-8", forgery.with_body(b"\1\xff").plaintext(), "MalformedContent"),
        ("a receipt of type 3", forgery.with_body(receipt, ContentKind.RECEIPT).plaintext(), "MalformedContent"),
        (
            "a call signal of action 7",
            forgery.with_body(bytes(16) + b"\7", ContentKind.CALL).plaintext(),
            "MalformedContent",
        ),
        (
            "a receipt without ids",
            forgery.with_body(bytes((1, 0, 0)), ContentKind.RECEIPT).plaintext(),
            "MalformedContent",
        ),
    ):
        envelope = forgery.envelope(plaintext)
        yield invalid(comment, "decode", _nothing_yet().reception(BOB, envelope), flag)


def _first_senders() -> Iterator[Case]:
    good = Forgery()
    mallory = person("mallory")

    def refused(comment: str, fails_at: Layer, forgery: Forgery, *flags: str) -> Case:
        return invalid(comment, fails_at, _nothing_yet().reception(BOB, forgery.envelope()), *flags)

    false_sender = good.sent_as(mallory.address)
    yield refused("the envelope names another user as its sender", "authentication", false_sender, "WrongIdentity")
    yield refused(
        "the envelope names another device of the sender",
        "authentication",
        good.sent_as(person("alice", 2).address),
        "WrongIdentity",
    )
    yield refused(
        "mallory claims alice's keys: another account key in front of alice's list",
        "signature",
        good.claiming(account_key=mallory.account.party.account_key),
        "WrongIdentity",
    )
    yield refused(
        "the header's device signing key is not the listed one",
        "signature",
        good.claiming(device_signing_key=mallory.account.party.device_signing_key),
        "UnlistedDevice",
    )
    yield refused(
        "the listed identity key is another one",
        "signature",
        good.with_list(good.list_with_other_keys()),
        "UnlistedDevice",
    )
    yield refused("the list does not hold the device", "signature", good.with_list(good.empty_list()), "UnlistedDevice")
    yield refused(
        "the list's signature is wrong", "signature", good.with_list(good.unsigned_list()), "ModifiedSignature"
    )
    yield refused("the list is another user's", "signature", good.with_list(mallory_first()), "WrongSigner")
    yield refused("a device of bob's own user", "signature", Forgery(sender=person("bob", 2)), "UnlistedDevice")
    yield refused(
        "for another device of bob", "authentication", good.sent_to(person("bob", 2).address), "WrongRecipient"
    )
    yield refused("for another user", "authentication", good.sent_to(mallory.address), "WrongRecipient")
    story = _begun()
    changed = Forgery(sender=person("alice", 2, "mallory"), number=1, last_resort=True, one_time=False)
    yield invalid(
        "a known user under another account key",
        "signature",
        story.reception(BOB, changed.envelope()),
        "AccountKeyChanged",
    )
    forked = Forgery(number=1, last_resort=True, one_time=False)
    envelope = forked.with_list(forked.list_with(person("alice", 2).listed)).envelope()
    yield invalid("a known user's list forks", "signature", story.reception(BOB, envelope), "ListFork")


def _begun() -> Story:
    """Return a story in which bob has alice's first message."""
    story = Story("begun", ALICE, BOB)
    story.start(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    return story


def _talking() -> Story:
    """Return a story in which each has heard the other, and bob sent last."""
    story = _begun()
    story.pass_on(BOB, ALICE)
    return story


def _established() -> Iterator[Case]:
    story = _talking()
    sent = story.send(ALICE, BOB)
    good = story.envelope(sent)

    def refused(comment: str, fails_at: Layer, envelope: bytes, *flags: str) -> Case:
        return invalid(comment, fails_at, story.reception(BOB, envelope), *flags)

    for what, at, flag in (
        ("ratchet key", 2, "ModifiedHeader"),
        ("previous chain length", _PN + 3, "ModifiedHeader"),
        ("index", _INDEX + 3, "ModifiedHeader"),
        ("post-quantum index", _PQ_INDEX + 3, "ModifiedHeader"),
        ("commitment", 53, "ModifiedCommitment"),
        ("nonce", 85, "ModifiedCiphertext"),
        ("ciphertext", 97, "ModifiedCiphertext"),
        ("tag", len(good) - _BODY - 1, "ModifiedCiphertext"),
    ):
        yield refused(f"a bit of the {what} is turned", "authentication", flip(good, _BODY + at), flag)
    epoch = put(good, _BODY + _EPOCH + 3, b"\1")
    yield refused("an epoch that nobody offered", "authentication", epoch, "UnknownEpoch")
    too_far = (MAX_SKIP + 1).to_bytes(4, "big")
    for what, at in (("index", _INDEX), ("post-quantum index", _PQ_INDEX), ("previous chain length", _PN)):
        step = b"\0\0\x03\xea" if at != _INDEX else too_far
        yield refused(f"the {what} is too far", "limit", put(good, _BODY + at, step), "SkipLimit")
    yield refused("a ratchet key of low order", "dh", put(good, _BODY + 2, LOW_ORDER[3]), "LowOrderKey")
    story.deliver(BOB, sent)
    foreign = put(good, _BODY + 2, person("mallory").listed.identity_key.raw)
    yield refused("an unknown ratchet key before our next message", "authentication", foreign, "ForeignRatchetKey")
    other = Story("another session", ALICE, BOB)
    other.start(ALICE, BOB, number=1)
    other.pass_on(ALICE, BOB)
    other.pass_on(BOB, ALICE)
    stray = other.envelope(other.send(ALICE, BOB))
    yield refused("a message of another session", "authentication", stray, "WrongKey")
    without = _nothing_yet().reception(BOB, stray)
    yield invalid("a message without any session", "authentication", without, "WrongKey")


def _replays() -> Iterator[Case]:
    story = _talking()
    first = story.envelope(1)

    def refused(comment: str, fails_at: Layer, envelope: bytes, *flags: str) -> Case:
        return invalid(comment, fails_at, story.reception(BOB, envelope), *flags)

    yield refused("the first message again", "replay", first, "Replay")
    renamed = put(first, 1, bytes(16))
    yield refused("its body in another envelope", "replay", renamed, "Replay")
    opened = Envelope.decode(first)
    inner = Envelope(
        EnvelopeId(bytes(16)), opened.sender, opened.recipient, opened.lane, opened.ttl, opened.body[1719 + 4 :]
    )
    yield refused("its inner message alone", "replay", inner.encode(), "Replay")
    forged = flip(first, len(first) - 1)
    yield refused("its index again, with another ciphertext", "replay", forged, "Replay", "ModifiedCiphertext")
    again = Forgery(number=1)
    yield refused("a new handshake with used one-time prekeys", "dh", again.envelope(), "UnknownPreKey", "Replay")
