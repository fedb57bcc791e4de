"""A whole life of two devices, in which a process dies by SIGKILL around every commit.

Run as a program, with a directory. For each act processes of their own are forked, which open the device's store, act
and kill themselves: one before its commit, one after it. What they leave is looked at; then the act is done again.

Owns: the deaths, and what may be found after one.
Does not know about: the acts (whole_life.py). Prints who was committing when a process died, as JSON.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from e2ee import history_export
from e2ee.errors import AccountKeyChangedError, AccountNotFoundError
from e2ee.history_book import FOREVER, EntryState
from e2ee.limits import MAX_HISTORY_CHUNK
from e2ee.linking import LinkedAccount
from e2ee.messenger import Messenger
from e2ee.ports import ReadTransaction, Store, Table, Transaction
from e2ee.primitives.rng import system_rng
from e2ee.recovery import RecoveryCode
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.transfer import ExportedMessage
from e2ee.wire.content import ContentKind, encode_application
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, MessageId, UserId, parse_user_id
from tests.store_files import KEY
from tests.whole_life import Act, Story
from tests.world import World

SURVIVED, FAILED = 1, 2
"""Exit codes: of a process that made no commit, and of one in which something else went wrong."""

SIMPLE = ("outbox.settle", "confirm")
"""What only ever deletes a row. A few deaths there are enough."""
ENOUGH = 8

CHUNKS = 3
"""Of the history in an export: each is a commit."""


_ANOTHER = DeviceId(b"\x07" * 16)


class Moment(Enum):
    BEFORE = "before"
    AFTER = "after"


class DeadlyStore:
    """A store of which one commit, the first by default, ends the process, after it was written down whose it was."""

    def __init__(self, inner: Store, moment: Moment, record: int, fatal: int = 1) -> None:
        self._inner, self._moment, self._record, self._left = inner, moment, record, fatal

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return self._inner.read()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        # Above this generator and the library that drives it is the `with` statement.
        committing = sys._getframe(2).f_code.co_name
        with self._inner.write() as transaction:
            yield transaction
            # A block that raised does not come here: it commits nothing.
            self._left -= 1
            if self._left == 0 and self._moment is Moment.BEFORE:
                self._die(committing)
        if self._left == 0:
            self._die(committing)

    def _die(self, committing: str) -> None:
        os.write(self._record, f"{committing} {self._moment.value}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        self._inner.close()


class Deaths:
    """Performs acts, each after the deaths of some processes that tried."""

    def __init__(self, directory: Path) -> None:
        self.story = Story(directory)
        self._record = directory / "deaths"
        self._writing = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._acts = Counter[str]()
        self._forks = 0

    def perform(self, act: Act) -> Any:
        """Let a process die before the first commit of an act, another one after it; then act."""
        self._acts[act.method] += 1
        if act.method in SIMPLE and self._acts[act.method] > ENOUGH:
            return act.perform()
        before = act.device.snapshot()
        self._die(act, Moment.BEFORE)
        assert act.device.snapshot() == before, f"{act.method} left something"
        self._connect(act)
        queued = act.device.messenger.outbox.entries()
        died = self._die(act, Moment.AFTER)
        if act.method == "reconsider":
            self._connect(act)
            self._die(act, Moment.AFTER)  # a commit for each envelope that was kept
        if died and act.method == "send":
            new = [entry for entry in act.device.messenger.outbox.entries() if entry not in queued]
            assert len(new) == 1
            self.story.sent.add(new[0].message_id)
        if act.raises is AccountKeyChangedError:
            user_id, _ = act.arguments
            assert isinstance(user_id, str)
            change = act.device.messenger.contact_book.change(UserId(user_id))
            assert change is not None, "nobody is asked about a changed key"
        drafted = act.device.messenger.account_reset.pending() if act.method == "account_reset.draft" else None
        self._connect(act)
        result = act.perform()
        assert drafted in (None, result), "a draft that may have been published is given up"
        return result

    def _connect(self, act: Act) -> None:
        """Come online after a death: it must not look like a rollback, unless the act is to find one out."""
        if act.method != "delivery.note_connected":
            assert act.device.messenger.delivery.note_connected(self.story.inboxes[act.device].statement()) == ()

    def create(self, directory: Path) -> None:
        """Let processes die that make an account, or a further device of one."""
        carol, code = parse_user_id("carol"), RecoveryCode.generate(system_rng)
        first = Messenger.create(MemoryStore(), carol)
        linked = LinkedAccount(replace(first.account, address=DeviceAddress(carol, _ANOTHER)), first.own_device_list())
        export = first.backup.without_history(code)
        ways: dict[str, Callable[[Store], object]] = {
            "create": lambda store: Messenger.create(store, carol),
            "join": lambda store: Messenger.join(store, linked),
            "recover": lambda store: Messenger.recover(store, export, code),
            "start_over": lambda store: Messenger.start_over(store, carol, [first.own_device_list().signed]),
        }
        for name, way in ways.items():
            self._create(way, directory / f"{name}.db")

        self._restart_over([first.own_device_list().signed, first.own_devices.draft_alone().signed], directory)

    def _restart_over(self, lists: list[SignedDeviceList], directory: Path) -> None:
        """Let processes die that learn that the list they wanted to follow is not the newest."""
        path = directory / "restart_over.db"
        with SqliteStore.create(path, key=KEY) as store:
            Messenger.start_over(store, lists[0].unverified.user_id, lists[:1])
        for moment, seq in ((Moment.BEFORE, 2), (Moment.AFTER, 3)):
            assert self._fork(lambda store: Messenger.open(store).registration.restart_over(lists), path, moment)
            with SqliteStore.open(path, key=KEY) as store:
                assert Messenger.open(store).own_device_list().content.seq == seq

    def take_in(self, directory: Path) -> None:
        """Let processes die at every commit that takes an export in, into an empty store and beside what is there.

        After each death the account is whole or not there, no message is doubled, and an import ends it.
        """
        original, code = long_history(), RecoveryCode.generate(system_rng)
        export, whole = b"".join(original.backup.export(code)), texts(original)

        def recover(store: Store) -> object:
            return Messenger.recover(store, export, code)

        def merge(store: Store) -> object:
            return list(Messenger.open(store).backup.merge(export, code))

        empty, beside = directory / "empty.db", directory / "beside.db"
        SqliteStore.create(empty, key=KEY).close()
        with SqliteStore.create(beside, key=KEY) as store:
            Messenger.recover(store, original.backup.without_history(code), code).history.set_retention(FOREVER)
        for way, before in ((recover, empty), (merge, beside)):
            deaths, path = 0, before.with_suffix(".copy")
            for fatal, moment in ((fatal, moment) for fatal in count(1) for moment in Moment):
                shutil.copy(before, path)
                if not self._fork(way, path, moment, fatal):
                    break
                deaths += 1
                with SqliteStore.open(path, key=KEY) as store:
                    self._go_on(store, way, merge, whole)
            assert deaths > 2 * CHUNKS, deaths

    def _go_on(
        self, store: Store, way: Callable[[Store], object], merge: Callable[[Store], object], whole: list[str]
    ) -> None:
        """Check what a death left, and take in what lacks."""
        try:
            left = texts(Messenger.open(store))
        except AccountNotFoundError:
            with store.read() as tx:
                assert all(tx.count(table) == 0 for table in Table), "half an account"
            way(store)
        else:
            assert left == whole[: len(left)], "doubled, or in disorder"
            merge(store)
        again = Messenger.open(store)
        assert texts(again) == whole
        (conversation,) = again.history.conversations()
        assert conversation.unread == len(again.history.unread(conversation.peer)) == len(whole)
        assert len(again.contact_book.users()) == 1

    def _create(self, way: Callable[[Store], object], path: Path) -> None:
        SqliteStore.create(path, key=KEY).close()
        for moment in Moment:
            assert self._fork(way, path, moment)
            with SqliteStore.open(path, key=KEY) as store:
                try:
                    made = Messenger.open(store)
                except AccountNotFoundError:
                    assert moment is Moment.BEFORE
                else:
                    assert moment is Moment.AFTER
                    assert made.registration.is_recovering() == (path.stem == "recover")
                    assert made.registration.is_starting_over() == (path.stem == "start_over")
                    assert made.own_device_list().content.user_id == made.address.user_id

    def _die(self, act: Act, moment: Moment) -> bool:
        """Let a process act until it dies, and start the device anew; return False if it lived to the end."""
        device, path = act.device, self.story.path(act.device.user_id)

        def run(store: Store) -> None:
            device.store = store
            device.restart()
            act.perform()

        device.store.close()
        died = self._fork(run, path, moment)
        device.store = SqliteStore.open(path, key=KEY)
        device.restart()
        return died

    def _fork(self, act: Callable[[Store], object], path: Path, moment: Moment, fatal: int = 1) -> bool:
        self._forks += 1
        child = os.fork()
        if child == 0:
            self.story.world.random.seed(self._forks)  # not the numbers that the parent will draw
            live(act, path, (moment, fatal), self._writing)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (-signal.SIGKILL, SURVIVED), code
        return code == -signal.SIGKILL

    def summary(self) -> Counter[str]:
        """How often who was committing, and died at which moment."""
        return Counter(self._record.read_text().splitlines())


def live(act: Callable[[Store], object], path: Path, death: tuple[Moment, int], record: int) -> NoReturn:
    """Open the store and act; end the process, one way or the other."""
    code = SURVIVED
    try:
        moment, fatal = death
        act(DeadlyStore(SqliteStore.open(path, key=KEY), moment, record, fatal))
    except BaseException:  # noqa: BLE001 - nothing may escape: this process would go on telling the story
        traceback.print_exc()
        code = FAILED
    finally:
        sys.stderr.flush()
        os._exit(code)


def long_history() -> Messenger:
    """An account that has been told much by one contact, so that its history fills some chunks of an export."""
    world = World("taken in")
    alice, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    alice.meet(bob)
    page = [
        ExportedMessage(
            message_id=MessageId(at.to_bytes(16, "big")),
            author=bob.user_id,
            device=bob.address.device_id,
            peer=bob.user_id,
            conversation=ConversationId(""),
            kind=ContentKind.APPLICATION,
            sent_at=at,
            written_at=at,
            received_at=at,
            state=EntryState.NEW,
            position=at << 16,
            body=encode_application(f"{at}" + " " * (MAX_HISTORY_CHUNK // 4)),
        )
        for at in range(2 * CHUNKS)
    ]
    alice.messenger.history.set_retention(FOREVER)
    with alice.store.write() as tx:
        history_export.merge(tx, alice.user_id, page, world.now)
    return alice.messenger


def texts(messenger: Messenger) -> list[str]:
    """What bob said, without what fills it up."""
    return [str(entry.data).strip() for entry in messenger.history.messages(UserId("bob"))]


def main(directory: Path) -> None:
    deaths = Deaths(directory)
    deaths.create(directory)
    deaths.take_in(directory)
    deaths.story.tell(deaths.perform)
    print(json.dumps(deaths.summary()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
