"""What an account leaves behind in an export, and how a new device takes it over.

Owns: what is collected from a store, and in which order it is put into an empty one.
Does not know about: codes and sealing (recovery.py), the network.

Not exported: prekeys, sessions, skipped keys, the outbox. A ratchet that exists twice repeats keys. The history may
follow as a section of its own.
"""

from collections.abc import Iterator

from e2ee import contact_sharing
from e2ee.account import Account
from e2ee.errors import MalformedMessageError
from e2ee.linking import LinkedAccount
from e2ee.ports import ReadTransaction, Transaction
from e2ee.primitives.rng import Rng
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.stores import records, trust_records
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import Decision, TrustDecision, TrustPolicy
from e2ee.transfer import ExportPayload
from e2ee.wire.contacts import DecisionEntry
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId


def collect(tx: ReadTransaction, account: Account) -> ExportPayload:
    """Return what is to be exported. A changed account key that waits for a decision is left out: it is seen again."""
    contacts = [contact for user_id in records.contacts(tx) if (contact := records.load_contact(tx, user_id))]
    return ExportPayload(
        account_key_pair=account.account_key_pair,
        device_list=records.own_device_list(tx).signed,
        policy=trust_records.policy(tx),
        contacts=tuple(contact_sharing.entry_of(each) for each in contacts if each.user_id != account.address.user_id),
        decisions=tuple(
            DecisionEntry(each.user_id, each.decision, each.key, each.at) for each in trust_records.decisions(tx)
        ),
    )


def collect_account(tx: ReadTransaction, account: Account) -> ExportPayload:
    """Return what the key server may keep: the account alone, and nobody whom it knows."""
    device_list = records.own_device_list(tx).signed
    return ExportPayload(account.account_key_pair, device_list, TrustPolicy.FIRST_USE, (), ())


def new_device(user_id: UserId, payload: ExportPayload, rng: Rng) -> LinkedAccount:
    """Make the keys of a new device of the exported account. The export was verified (`ExportFile.open`)."""
    address = DeviceAddress(user_id, DeviceId(rng(DeviceId.LENGTH)))
    signing, identity = DeviceSigningKeyPair.generate(rng), IdentityKeyPair.generate(rng)
    account = Account(address, payload.account_key_pair, signing, identity)
    return LinkedAccount(account, payload.device_list.verify(user_id))


def restore(tx: Transaction, owner: UserId, payload: ExportPayload) -> None:
    """Put contacts, decisions and policy into a store that knows nobody yet; of each history what it has room for.

    Raises:
        InvalidSignatureError: a contact's list does not verify under its pinned key.
        MalformedMessageError: a policy or decision that this release does not know.
    """
    try:
        trust_records.set_policy(tx, TrustPolicy(payload.policy))
        decisions = [
            TrustDecision(each.user_id, Decision(each.decision), each.key, each.at) for each in payload.decisions
        ]
    except ValueError:
        raise MalformedMessageError("an unknown policy or decision in an export") from None
    for contact in payload.contacts:
        device_list = contact.verify(owner)
        restored = Contact(
            contact.user_id, contact.account_key, device_list, forked=contact.forked, verified=contact.verified
        )
        records.save_contact(tx, restored)
    for decision in _worth_restoring(payload, decisions):
        trust_records.record(tx, decision)


def _worth_restoring(payload: ExportPayload, decisions: list[TrustDecision]) -> Iterator[TrustDecision]:
    """Return, in their order, the lines that a history has room for: `record` may read all of a full one for each more.

    What is about nobody among the contacts means nothing, as in a link content.
    """
    histories: dict[UserId, list[TrustDecision]] = {each.user_id: [] for each in payload.contacts}
    for each in decisions:
        if each.user_id in histories:
            histories[each.user_id].append(each)
    kept = {
        line
        for contact in payload.contacts
        for line in trust_records.worth_restoring(histories[contact.user_id], contact.account_key)
    }
    return (each for each in dict.fromkeys(decisions) if each in kept)
