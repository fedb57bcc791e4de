"""Random runs of one user with up to three devices, two contacts, and a key server that lies, with fixed seeds.

Devices are linked and retired, sign lists at the same time with clocks days apart, compare numbers, take that back,
accept and decline changed keys, and tell each other. The server delays, repeats, hides lists, swaps bundles, and
invents account keys. Whatever it does, nothing is believed that no person said, and nothing is encrypted to a device
that is not in the newest list known. Once the server is honest, and people have decided what waits for them, all
devices know the same, everybody reads everybody, and nothing goes on by itself.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import pytest

from e2ee.account import Account
from e2ee.errors import E2EEError, SafetyNumberMismatchError
from e2ee.limits import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from e2ee.messenger import Messenger
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.stores import records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.records import Contact
from e2ee.tending import Tended
from e2ee.wire.device_list import DeviceList, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle
from e2ee.wire.public_keys import AccountKey
from tests.decoded_once import decoded_once
from tests.world import Device, LyingDirectory, World

ALICE, BOB, CAROL = UserId("alice"), UserId("bob"), UserId("carol")
SEEDS: Final = 5 * max(1, int(os.environ.get("E2EE_SOAK", "0")))
STEPS: Final = 120
SKEWS: Final = (0, 3 * DAY_MS, -2 * DAY_MS)
QUIET_ROUNDS: Final = 60
TURNS: Final = 0.05
"""How often, for each step, the server begins to lie, or stops."""


@dataclass
class Said:
    """What people have said, on whatever device of theirs: about a user and an account key."""

    verified: set[tuple[UserId, UserId, AccountKey]] = field(default_factory=set)
    decided: set[tuple[UserId, UserId, AccountKey]] = field(default_factory=set)


class Run:
    """One run: everybody in it, what was said, and what is true at the server."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"own devices {seed}")
        self.world = World(f"keys and network {seed}")
        self.server = LyingDirectory()
        self.server.change_lists = self.lie
        self.server.change_bundle = self.swap
        self.world.directory = self.server
        self.lies = False
        self.said = Said()
        self.pinned: dict[tuple[DeviceAddress, UserId], AccountKey] = {}
        self.seen: set[EnvelopeId] = set()
        self.flying: list[bytes] = []
        self.flown: list[bytes] = []
        self.left: set[DeviceAddress] = set()
        self.texts = 0
        phone = self.world.device(ALICE, one_time_prekeys=False)
        for name in (BOB, CAROL):
            self.world.device(name, one_time_prekeys=False, skew=self.random.choice(SKEWS))
        assert phone.address in self.world.devices
        self.lies = True

    # --- who there is ----------------------------------------------------------------------------------------

    def devices(self, user_id: UserId | None = None) -> list[Device]:
        """Return the devices that are in the newest list of their user, in a fixed order."""
        found = [each for each in self.world.devices.values() if each.address not in self.left]
        return [each for each in found if user_id in (None, each.user_id)]

    def truth(self, user_id: UserId) -> DeviceList:
        return self.server.lists[user_id][-1].unverified

    # --- the server ------------------------------------------------------------------------------------------

    def lie(self, user_id: UserId, lists: list[SignedDeviceList]) -> list[SignedDeviceList]:
        """Serve the truth, an old state of it, a part, or an account key of the server's own."""
        if not self.lies:
            return lists
        at = self.random.randrange(len(lists))
        lies = (lists[:at], lists[at:], lists[::-1], [*lists, self.invented(user_id)], [self.invented(user_id)])
        return self.random.choice((*lies, lists, lists, lists))

    def invented(self, user_id: UserId) -> SignedDeviceList:
        lists = self.server.lists[user_id]
        account = Account.generate(user_id, self.random.randbytes)
        seq = self.random.choice([2, len(lists), len(lists) + 1, len(lists) + 5, 1 << 62])
        first = account.first_device_list(self.world.now).content
        previous = lists[-1].unverified.hash()
        return account.sign_device_list(replace(first, seq=max(seq, 2), previous_hash=previous)).signed

    def swap(self, bundle: PreKeyBundle) -> PreKeyBundle:
        if not self.lies or self.random.random() < 0.8:
            return bundle
        other = self.random.choice(self.devices())
        return replace(other.bundle() if other.address in self.server.prekeys else bundle, address=bundle.address)

    def publish(self, device: Device, drafted: VerifiedDeviceList | None) -> bool:
        """Accept a list by compare-and-set; the device that made it takes it in."""
        if drafted is None:
            return False
        newest = self.truth(device.user_id)
        if (drafted.content.seq, drafted.content.previous_hash) != (newest.seq + 1, newest.hash()):
            return False
        self.server.lists[device.user_id].append(drafted.signed)
        device.messenger.own_devices.learn([drafted.signed])
        return True

    # --- what happens ----------------------------------------------------------------------------------------

    def step(self) -> None:
        actions = (
            *(self.say,) * 4,
            *(self.fetch,) * 4,
            *(self.tend,) * 4,
            *(self.deliver,) * 6,
            self.repeat,
            self.link,
            self.leave,
            self.renew,
            self.renew_at_once,
            *(self.compare,) * 2,
            self.withdraw,
            *(self.decide,) * 2,
            self.reset,
            self.time_passes,
        )
        if self.random.random() < TURNS:
            self.lies = not self.lies
        action = self.random.choice(actions)
        action(self.random.choice(self.devices()))
        self.check()

    def peer_of(self, device: Device) -> UserId:
        others = (BOB, CAROL) if device.user_id == ALICE else (ALICE,)
        return self.random.choice(others)

    def say(self, device: Device) -> None:
        self.texts += 1
        self.try_to_say(device, self.peer_of(device), f"text {self.texts}")

    def try_to_say(self, device: Device, peer: UserId, text: str) -> bool:
        messenger = device.messenger
        for _ in range(2):
            try:
                for address in messenger.missing_sessions(peer):
                    self.start(device, address)
                messenger.send(peer, text)
            except E2EEError:
                self.learn(device, peer)
            else:
                return True
        return False

    def start(self, device: Device, address: DeviceAddress) -> None:
        with suppress(E2EEError, KeyError):  # KeyError: a device that the server invented
            device.messenger.start_session(self.world.devices[address].bundle())

    def fetch(self, device: Device) -> None:
        self.learn(
            device, self.random.choice((ALICE, BOB, CAROL) if device.user_id == ALICE else (ALICE, device.user_id))
        )

    def learn(self, device: Device, user_id: UserId) -> None:
        """As the client does: what is above the newest known, or above the gap; all, if the server has another key."""
        contact = device.messenger.contact(user_id)
        known = 0 if contact is None else (contact.gap or contact.device_list.position).seq
        served = self.server.served(user_id)
        lists = [each for each in served if each.unverified.seq > known]
        if contact is not None and not lists and served and served[-1].unverified.account_key != contact.account_key:
            lists = served
        with suppress(E2EEError):
            device.messenger.learn_device_lists(user_id, lists)

    def tend(self, device: Device) -> Tended:
        tended = device.messenger.tend()
        for user_id in tended.stale_lists:
            self.learn(device, user_id)
        for address in tended.sessions_wanted:
            self.start(device, address)
        if tended.lacks:
            tended = device.messenger.tend()
        self.post(device)
        return tended

    def post(self, device: Device) -> None:
        self.check_outbox(device)
        for entry in device.messenger.outbox.entries():
            self.flying.append(entry.envelope)
            device.messenger.outbox.settle([entry.envelope_id])

    def deliver(self, device: Device) -> None:
        self.post(device)
        for _ in range(self.random.randint(1, 6)):
            if self.flying:
                self.hand_over(self.flying.pop(self.random.randrange(len(self.flying))))

    def repeat(self, _: Device) -> None:
        if self.flown:
            self.hand_over(self.random.choice(self.flown))

    def hand_over(self, envelope: bytes) -> None:
        self.flown.append(envelope)
        recipient = self.world.devices[Envelope.decode(envelope).recipient]
        if recipient.address not in self.left:
            recipient.receive(envelope)

    def link(self, device: Device) -> None:
        if device.user_id == CAROL or len(self.devices(device.user_id)) >= (3 if device.user_id == ALICE else 2):
            return
        store, random = MemoryStore(), self.world.random.randbytes
        skew = self.random.choice(SKEWS)

        def clock() -> int:
            return self.world.now + skew

        account = replace(
            device.messenger.account,
            address=DeviceAddress(device.user_id, DeviceId(random(16))),
            device_signing_key_pair=DeviceSigningKeyPair.generate(random),
            identity_key_pair=IdentityKeyPair.generate(random),
        )
        if not self.publish(device, device.messenger.own_devices.draft_with(account.listed)):
            return
        with store.write() as tx:
            records.save_account(tx, account)
            records.save_own_device_list(tx, device.messenger.own_device_list())
        linked = Device(self.world, store, Messenger.open(store, rng=random, clock=clock), one_time_prekeys=False)
        linked.clock = clock
        linked.connect()
        self.world.devices[linked.address] = linked

    def leave(self, device: Device) -> None:
        others = [each for each in self.devices(device.user_id) if each != device]
        if not others:
            return
        gone = self.random.choice(others)
        own = device.messenger.own_devices
        if own.newest_list().content.device(gone.address.device_id) is None:
            return
        if self.publish(device, own.draft_without(gone.address.device_id)):
            self.left.add(gone.address)

    def renewed(self, device: Device) -> VerifiedDeviceList:
        newest, now = device.messenger.own_device_list().content, device.clock()
        following = replace(
            newest, seq=newest.seq + 1, previous_hash=newest.hash(), created_at=now, expires_at=now + 30 * DAY_MS
        )
        return device.messenger.account.sign_device_list(following)

    def renew(self, device: Device) -> None:
        self.publish(device, self.renewed(device))

    def renew_at_once(self, device: Device) -> None:
        drafts = [(each, self.renewed(each)) for each in self.devices(device.user_id)]
        self.random.shuffle(drafts)
        for each, drafted in drafts:
            self.publish(each, drafted)

    def compare(self, device: Device) -> None:
        """People compare what they really have: the newest key of the other end."""
        peer = self.peer_of(device)
        contact = device.messenger.contact(peer)
        if contact is None:
            return
        shown = self.devices(peer)[0].messenger.contact(device.user_id)
        if shown is None or shown.account_key != device.messenger.account.party.account_key:
            return
        theirs = self.devices(peer)[0].messenger.contact_book.safety_number(device.user_id)
        try:
            device.messenger.contact_book.compare(peer, theirs)
        except SafetyNumberMismatchError:
            return
        self.said.verified.add((device.user_id, peer, contact.account_key))

    def withdraw(self, device: Device) -> None:
        peer = self.peer_of(device)
        if device.messenger.contact(peer) is not None:
            device.messenger.contact_book.withdraw(peer)

    def decide(self, device: Device) -> None:
        """Somebody who is hasty accepts what waits, false or not."""
        self.decide_about(device, self.peer_of(device), accept=self.random.random() < 0.5)

    def decide_about(self, device: Device, peer: UserId, *, accept: bool) -> None:
        book = device.messenger.contact_book
        change = book.change(peer)
        if change is None:
            return
        try:
            if accept:
                book.accept_change(peer, change.new_safety_number)
            else:
                book.decline_change(peer)
        except E2EEError:
            book.decline_change(peer)
        self.said.decided.add((device.user_id, peer, self.contact(device, peer).account_key))

    def reset(self, device: Device) -> None:
        """A contact who lost a device makes a new account key; the server gets both lists."""
        if device.user_id == ALICE or self.random.random() < 0.5:
            return
        if device.messenger.own_device_list().content.seq != self.truth(device.user_id).seq:
            return
        reset = device.messenger.account_reset.draft()
        self.server.lists[device.user_id] += [reset.closing.signed, reset.first.signed]
        device.messenger.account_reset.accepted()
        self.left |= {each.address for each in self.devices(device.user_id) if each != device}

    def time_passes(self, _: Device) -> None:
        self.world.wait(self.random.choice([SECOND_MS, 6 * SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS]))

    # --- what must hold --------------------------------------------------------------------------------------

    def contact(self, device: Device, user_id: UserId) -> Contact:
        contact = device.messenger.contact(user_id)
        assert contact is not None
        return contact

    def check(self) -> None:
        for device in self.devices():
            self.check_outbox(device)
            for peer in device.messenger.contact_book.users():
                contact = self.contact(device, peer)
                about = (device.user_id, peer, contact.account_key)
                if contact.verified:
                    assert about in self.said.verified, "verified, and no person has said so"
                if contact.changed is not None:
                    continue
                before = self.pinned.setdefault((device.address, peer), contact.account_key)
                if before != contact.account_key:
                    assert about in self.said.decided, "another key is used, and no person has said so"
                    self.pinned[device.address, peer] = contact.account_key

    def check_outbox(self, device: Device) -> None:
        for entry in device.messenger.outbox.entries():
            if entry.envelope_id not in self.seen:
                self.seen.add(entry.envelope_id)
                contact = self.contact(device, entry.recipient.user_id)
                assert entry.recipient in contact.device_list.content.addresses()
                assert contact.changed is None

    # --- the end ---------------------------------------------------------------------------------------------

    def drain(self) -> int:
        """Let everybody do what is due, and deliver, until nothing is left that does not wait for time to pass."""
        posted = 0
        for _ in range(QUIET_ROUNDS):
            for device in self.devices():
                self.tend(device)
            if not self.flying:
                return posted
            posted += len(self.flying)
            flying, self.flying = self.flying, []
            for envelope in flying:
                self.hand_over(envelope)
            self.check()
        raise AssertionError("the devices never come to rest")

    def people_look(self) -> None:
        """Everybody fetches the lists of everybody, and decides what waits, by comparing with the truth."""
        for device in self.devices():
            for peer in (BOB, CAROL) if device.user_id == ALICE else (ALICE,):
                self.learn(device, device.user_id)
                for _ in range(3):
                    self.learn(device, peer)
                    changed = self.contact(device, peer).changed
                    if changed is not None:
                        true = changed.content.account_key == self.truth(peer).account_key
                        self.decide_about(device, peer, accept=true)
        self.check()

    def become_honest(self) -> None:
        self.lies = False
        for _ in range(3):
            self.people_look()
            self.drain()
            self.world.wait(HOUR_MS + MINUTE_MS)

    def assert_agreement(self) -> None:
        for user_id in (ALICE, BOB, CAROL):
            for device in self.devices():
                if {device.user_id, user_id} == {BOB, CAROL}:
                    continue
                contact = self.contact(device, user_id)
                assert contact.device_list.signed == self.server.lists[user_id][-1], (device.address, user_id)
                assert not contact.forked, (device.address, user_id)
                assert contact.changed is None, (device.address, user_id)
                assert contact.gap is None, (device.address, user_id)

    def assert_that_the_last_word_counts_everywhere(self) -> None:
        for peer in (BOB, CAROL):
            device = self.random.choice(self.devices(ALICE))
            number = self.devices(peer)[0].messenger.contact_book.safety_number(ALICE)
            device.messenger.contact_book.withdraw(peer)
            last = self.random.choice([True, False])
            if last:
                device.messenger.contact_book.compare(peer, number)
                self.said.verified.add((ALICE, peer, self.contact(device, peer).account_key))
            self.drain()
            assert {self.contact(each, peer).verified for each in self.devices(ALICE)} == {last}

    def assert_everybody_reads_everybody(self) -> None:
        """Perhaps not at once: whose sessions ended asks again only after having written (protocol.md section 12.6)."""
        said: dict[DeviceAddress, set[bytes | str]] = {device.address: set() for device in self.devices()}
        for sender in self.devices():
            for peer in (BOB, CAROL) if sender.user_id == ALICE else (ALICE,):
                self.texts += 1
                text = f"text {self.texts}"
                assert self.try_to_say(sender, peer, text)
                self.drain()
                for reader in self.devices(peer):
                    said[reader.address].add(text)
        for _ in range(3):
            self.world.wait(HOUR_MS + MINUTE_MS)
            self.drain()
        for reader in self.devices():
            assert said[reader.address] <= set(reader.read()), reader.address

    def assert_quiet(self) -> None:
        """Nothing happens for four days: after a few answers nobody has anything to say."""
        for _ in range(12):
            self.world.wait(MINUTE_MS)
            self.drain()
        for pause in (*(MINUTE_MS,) * 5, *(HOUR_MS,) * 5, *(DAY_MS,) * 4):
            self.world.wait(pause)
            assert self.drain() == 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_lying_server_changes_nothing_for_good(seed: int) -> None:
    with decoded_once():
        run = Run(seed)
        for _ in range(STEPS):
            run.step()
        run.become_honest()
        run.assert_agreement()
        run.assert_everybody_reads_everybody()
        run.assert_that_the_last_word_counts_everywhere()
        run.assert_quiet()
