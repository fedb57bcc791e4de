"""Two devices in one process, without asyncio, network or server: `Messenger` alone.

Shows: what the library does by itself, and what it leaves to its surroundings. It encrypts, decrypts and remembers;
publishing keys, fetching them and carrying envelopes is yours, with threads, Qt, a file or a pigeon.

    python examples/without_asyncio.py
"""

from e2ee import Messenger
from e2ee.prekey_supply import ServerCounts
from e2ee.safety_number import safety_number
from e2ee.stores.memory import MemoryStore
from e2ee.wire.content import decode_application
from e2ee.wire.identifiers import parse_user_id
from e2ee.wire.prekey_bundle import PreKeyBundle

ALICE, BOB = parse_user_id("alice"), parse_user_id("bob")


def main() -> None:
    """Let Alice write to Bob, and Bob answer."""
    alice, bob = Messenger.create(MemoryStore(), ALICE), Messenger.create(MemoryStore(), BOB)

    # First contact. Bob publishes his device list and prekeys; a key server would keep them and give each one-time
    # prekey to one person only. Alice verifies what she is given, whoever gave it to her.
    alice.learn_device_lists(BOB, [bob.own_device_list().signed])
    if alice.missing_sessions(BOB):
        alice.start_session(published_by(bob))

    alice.send(BOB, "hello")
    carry(alice, bob)
    bob.send(ALICE, "hello yourself")  # the first message brought everything that is needed to answer
    carry(bob, alice)

    keys = (ALICE, alice.account.party.account_key), (BOB, bob.account.party.account_key)
    print("compare over another channel:", safety_number(*keys))


def published_by(device: Messenger) -> PreKeyBundle:
    """Make a device's prekeys and put a bundle of them together, as a key server does."""
    due = device.registration.due_prekeys(ServerCounts(one_time=0, one_time_kem=0))
    device.registration.prekeys_published(due.prekey_ids)
    assert due.signed_prekey is not None  # true of a new device
    return PreKeyBundle(device.address, due.signed_prekey, due.one_time_prekeys[0], due.one_time_kem_prekeys[0])


def carry(sender: Messenger, recipient: Messenger) -> None:
    """Hand over what is queued, and show what has arrived. An envelope holds nothing that its carrier could read."""
    for entry in sender.outbox.entries():
        recipient.receive(entry.envelope)
        sender.outbox.settle([entry.envelope_id])
    for message in recipient.inbound():
        print(f"{message.sender.user_id}: {decode_application(message.content.body)!r}")
        recipient.confirm(message.number)


if __name__ == "__main__":
    main()
