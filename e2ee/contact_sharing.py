"""Contacts between the devices of one user: what is told of them, and what is believed (protocol.md section 9.10).

Owns: which contacts and decisions go into link contents; the judgement of what another device of ours says.
Does not know about: sessions and sending, who may send a link content (receiving.py), how people decide.

What this device knows first-hand is never overwritten by less. Under the same account key the newer word about the
verification counts, and the newer device list by the rules for every list. Under two account keys a human decides, as
after every change of a key: nothing is sent to the user until then.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from e2ee import healing
from e2ee.errors import DeviceListForkError
from e2ee.limits import MAX_CLOSED_KEYS_TOLD, MAX_CONTACTS_TOLD, MAX_LINK_BODY, MAX_TRUST_DECISIONS
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.stores import records, trust_records
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import ABOUT_VERIFICATION, Decision, TrustDecision, TrustPolicy
from e2ee.trust import end_with_key, with_list
from e2ee.wire.codec import Writer
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts
from e2ee.wire.device_list import VerifiedDeviceList
from e2ee.wire.identifiers import UserId

_HEAD: Final = 1 + 1 + 2 + 2
_MAX_DECISIONS: Final = 32
"""Told of one contact: the closed keys and the newest of the others, so that a contact always fits."""


# --- what is told --------------------------------------------------------------------------------------------


def everything(tx: ReadTransaction, owner: UserId) -> Iterator[bytes]:
    """Yield bodies that hold all contacts, for a device that has just been linked; one even if there is nobody."""
    policy = trust_records.policy(tx)
    told = (_told(tx, user_id) for user_id in records.contacts(tx) if user_id != owner)
    some, room = list[_Told](), MAX_LINK_BODY - _HEAD
    for each in told:
        if each.size > room:
            yield _body(policy, some)
            some, room = [], MAX_LINK_BODY - _HEAD
        some.append(each)
        room -= each.size
    yield _body(policy, some)


def one_contact(tx: ReadTransaction, user_id: UserId) -> bytes:
    """Return a body that says how things stand with one contact."""
    return _body(TrustPolicy.FIRST_USE, [_told(tx, user_id)])


def entry_of(contact: Contact) -> ContactEntry:
    """Return what is told of a contact. A changed account key that waits for a decision is not: it is seen again."""
    return ContactEntry(
        contact.user_id, contact.account_key, contact.verified, contact.forked, contact.device_list.signed
    )


class _Told(NamedTuple):
    contact: ContactEntry
    decisions: tuple[DecisionEntry, ...]
    size: int


def _told(tx: ReadTransaction, user_id: UserId) -> _Told:
    contact = records.load_contact(tx, user_id)
    if contact is None:
        raise LookupError("not a contact")
    entry = entry_of(contact)
    decisions = tuple(
        DecisionEntry(each.user_id, each.decision, each.key, each.at)
        for each in _worth_telling(trust_records.decisions(tx, user_id), contact)
    )
    writer = Writer()
    entry.encode_into(writer)
    for decision in decisions:
        decision.encode_into(writer)
    return _Told(entry, decisions, len(writer.finish()))


def _worth_telling(decisions: list[TrustDecision], contact: Contact) -> list[TrustDecision]:
    """Choose what fits: closed keys first, because what they sign later must be refused; then the newest."""
    first = [each for each in decisions if each.decision is Decision.KEY_CLOSED]
    rest = [each for each in reversed(decisions) if each.decision is not Decision.KEY_CLOSED]
    # The word about the verification that counts is the latest, which is not always the newest line here: it goes along
    # however much follows it.
    counts = _verification_at(rest, contact)
    rest.sort(key=lambda each: not (_is_about_verification(each, contact) and each.at == counts))
    chosen = [*first[-_MAX_DECISIONS // 2 :], *rest][:_MAX_DECISIONS]
    return [each for each in decisions if each in chosen]


def _body(policy: TrustPolicy, told: list[_Told]) -> bytes:
    decisions = tuple(decision for each in told for decision in each.decisions)
    return LinkedContacts(policy, tuple(each.contact for each in told), decisions).encode()


# --- what is believed ----------------------------------------------------------------------------------------


class Believed(NamedTuple):
    """What followed from the word of another device of ours."""

    changed: tuple[UserId, ...]
    """Contacts that are new here, or of whom something else is known now."""
    waiting: tuple[UserId, ...]
    """Those among them of whom the two devices know different account keys: a human must decide."""
    forked: tuple[UserId, ...]
    """Those among them whose device lists are known to contradict each other, and were not before."""


def believe(tx: Transaction, owner: UserId, linked: LinkedContacts, now: int) -> Believed:
    """Take in what another device of ours says about contacts. Its entries were verified for us, or are now.

    Raises:
        InvalidSignatureError: a device list does not verify under its contact's pinned key.
    """
    changed, waiting, forked = list[UserId](), list[UserId](), list[UserId]()
    if linked.policy == TrustPolicy.VERIFIED_ONLY and not trust_records.was_policy_chosen(tx):
        # The stricter one only: nobody but a person on this very device makes it accept changed keys unseen.
        trust_records.set_policy(tx, TrustPolicy.VERIFIED_ONLY)
    room = MAX_CONTACTS_TOLD - tx.count(Table.CONTACTS)
    about = defaultdict[UserId, list[DecisionEntry]](list)
    for each in linked.decisions:
        about[each.user_id].append(each)
    for entry in linked.contacts:
        said = _understood(about[entry.user_id])
        known = records.load_contact(tx, entry.user_id)
        if known is None:
            room -= 1
            if room < 0:
                continue
        contact = _believe(tx, owner, known, entry, said)
        if contact != known:
            if known is not None and known.account_key != contact.account_key:
                end_with_key(tx, contact.device_list)
            records.save_contact(tx, contact)
            healing.note_list_change(tx, known, contact, now)
            changed.append(entry.user_id)
            if contact.forked and not (known is not None and known.forked):
                forked.append(entry.user_id)
        if contact.changed is not None and (known is None or _differs(known.changed, contact.changed)):
            key = contact.changed.content.account_key
            trust_records.record(tx, TrustDecision(entry.user_id, Decision.CHANGE_SEEN, key, now))
            waiting.append(entry.user_id)
        _remember(tx, contact, said, now)
    return Believed(tuple(changed), tuple(waiting), tuple(forked))


def _believe(
    tx: ReadTransaction, owner: UserId, known: Contact | None, entry: ContactEntry, said: list[TrustDecision]
) -> Contact:
    theirs = entry.verify(owner)
    if known is None:
        return Contact(entry.user_id, entry.account_key, theirs, forked=entry.forked, verified=entry.verified)
    ours = trust_records.decisions(tx, entry.user_id)
    if known.account_key == entry.account_key:
        return _same_key(known, entry, theirs, (ours, said))
    return _another_key(known, entry, theirs, ours)


def _same_key(
    known: Contact,
    entry: ContactEntry,
    theirs: VerifiedDeviceList,
    decisions: tuple[list[TrustDecision], list[TrustDecision]],
) -> Contact:
    ours_at, theirs_at = (_verification_at(each, known) for each in decisions)
    verified = known.verified
    if theirs_at > ours_at:
        verified = entry.verified
    elif theirs_at == ours_at:
        verified = known.verified and entry.verified
    try:
        contact = with_list(known, theirs)
    except DeviceListForkError:
        return replace(known, forked=True, verified=verified)
    return replace(contact, forked=known.forked or entry.forked, verified=verified)


def _another_key(known: Contact, entry: ContactEntry, theirs: VerifiedDeviceList, ours: list[TrustDecision]) -> Contact:
    """Pin one of two account keys, and let the other one wait for a human, unless that one is out of date."""
    key, is_earlier = entry.account_key, theirs.content.seq < known.device_list.content.seq
    if any(each.decision is Decision.KEY_CLOSED and each.key == key for each in ours):
        return known
    # A person has looked at ours: another device cannot know better, only later.
    decided = known.verified or any(
        each.decision is Decision.CHANGE_ACCEPTED and each.key == known.account_key for each in ours
    )
    if decided and is_earlier:
        return known
    if not decided and (entry.verified or is_earlier):
        # Ours was seen first here, no more. Theirs was compared, or was there before it.
        return Contact(
            known.user_id,
            key,
            theirs,
            forked=entry.forked,
            queried_at=known.queried_at,
            verified=entry.verified,
            changed=known.device_list,
        )
    return replace(known, changed=theirs) if _differs(known.changed, theirs) else known


def _differs(waiting: VerifiedDeviceList | None, other: VerifiedDeviceList) -> bool:
    return waiting is None or waiting.content.account_key != other.content.account_key


def _verification_at(decisions: Iterable[TrustDecision], contact: Contact) -> int:
    """Return when a person last decided about the verification of the pinned key, Unix milliseconds; 0 for never."""
    return max((each.at for each in decisions if _is_about_verification(each, contact)), default=0)


def _is_about_verification(decision: TrustDecision, contact: Contact) -> bool:
    return decision.decision in ABOUT_VERIFICATION and decision.key == contact.account_key


def _understood(said: list[DecisionEntry]) -> list[TrustDecision]:
    """Leave out decisions that a later release may know."""
    known = {int(decision) for decision in Decision}
    return [
        TrustDecision(each.user_id, Decision(each.decision), each.key, each.at)
        for each in said
        if each.decision in known
    ]


def _remember(tx: Transaction, contact: Contact, said: list[TrustDecision], now: int) -> None:
    """Enter into the history of a contact what it lacks. When there is no room, only what counts."""
    present = trust_records.decisions(tx, contact.user_id)
    known, shut = set(present), {each.key for each in present if each.decision is Decision.KEY_CLOSED}
    # A device may have had the pinned key pinned here by its word, and the next one, and so on: these count, too.
    closes = contact.device_list.content.closes and len(shut) < MAX_CLOSED_KEYS_TOLD
    if closes and contact.account_key not in shut:
        trust_records.record(tx, TrustDecision(contact.user_id, Decision.KEY_CLOSED, contact.account_key, now))
        shut.add(contact.account_key)
    number, latest = len(present), max(_verification_at(each, contact) for each in (present, said))
    for each in said:
        if each.decision is Decision.KEY_CLOSED:
            # A key that is pinned here is closed by its own last list, and not by anybody's word.
            new = each.key not in shut and each.key != contact.account_key and len(shut) < MAX_CLOSED_KEYS_TOLD
            shut |= {each.key} if new else set()
        else:
            counts = _is_about_verification(each, contact) and each.at == latest
            new = each not in known and (number < MAX_TRUST_DECISIONS or counts)
        if new:
            trust_records.record(tx, each)
            known.add(each)
            number += 1
