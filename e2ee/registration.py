"""What the key server is told of this device, and what it has confirmed: assertions, registration, prekeys.

Owns: one transaction for each step; whether the device still has to be registered.
Does not know about: the server, which prekeys are due when (prekey_supply.py).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, final

from e2ee import account_reset, prekey_supply
from e2ee.account import Account
from e2ee.ports import Store, Transaction
from e2ee.prekey_supply import PreKeyPublication, ServerCounts
from e2ee.primitives.rng import Rng
from e2ee.stores import records
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import PreKeyId

_ASSERTION_COUNTER: Final = b"assertion"
_REGISTERED: Final = b"registered"
_RECOVERING: Final = b"recovering"


def note_recovering(tx: Transaction) -> None:
    """Note that this device was made from an export, and has to take the place of the lost ones."""
    records.set_counter(tx, _RECOVERING, 1)


@final
class Registration:
    """Reached as `Messenger.registration`; every method is one transaction."""

    def __init__(self, store: Store, account: Account, rng: Rng, clock: Callable[[], int]) -> None:
        self._store, self._account, self._rng, self._clock = store, account, rng, clock

    def sign_assertion(self, signed_bytes: bytes) -> bytes:
        """Sign a login assertion (protocol.md section 3) with the device signing key; returns 64 bytes."""
        return self._account.device_signing_key_pair.sign(signed_bytes)

    def next_assertion_counter(self) -> int:
        """Return a counter above all returned before, even after a crash; follows the clock to survive reinstalls."""
        with self._store.write() as tx:
            value = max(self._clock(), records.counter(tx, _ASSERTION_COUNTER) + 1)
            records.set_counter(tx, _ASSERTION_COUNTER, value)
            return value

    def is_registered(self) -> bool:
        """Whether the key server has accepted this device and its list."""
        with self._store.read() as tx:
            return records.counter(tx, _REGISTERED) == 1

    def mark_registered(self) -> None:
        """Note that the key server has accepted this device and its list."""
        with self._store.write() as tx:
            records.set_counter(tx, _REGISTERED, 1)
            records.set_counter(tx, _RECOVERING, 0)
            account_reset.note_registered(tx)

    def due_prekeys(self, counts: ServerCounts, offered: Collection[PreKeyId] | None = None) -> PreKeyPublication:
        """Make the prekeys that are due and return all that the server has not confirmed.

        `offered` are the ids of the signed and the last-resort prekey that it offers, if that is known: it may not be
        what it confirmed, after a restore of the server or of this store.
        """
        with self._store.write() as tx:
            if offered is not None:
                prekey_supply.note_offered(tx, offered, self._clock())
            prekey_supply.make_due(tx, counts, self._clock(), self._rng)
            return prekey_supply.publication(tx)

    def prekeys_published(self, prekey_ids: Sequence[PreKeyId]) -> None:
        """Note the server's confirmation of a publication."""
        with self._store.write() as tx:
            prekey_supply.mark_published(tx, tuple(prekey_ids))

    def is_recovering(self) -> bool:
        """Whether this device was made from an export, and has not taken the place of the lost ones yet."""
        with self._store.read() as tx:
            return records.counter(tx, _RECOVERING) == 1

    def is_starting_over(self) -> bool:
        """Whether the server has not accepted the new account key of `start_over` yet."""
        with self._store.read() as tx:
            return account_reset.is_starting_over(tx)

    def restart_over(self, lists: Sequence[SignedDeviceList]) -> None:
        """Let the first list of a new account key follow a longer chain than the one that `start_over` was given.

        Raises:
            See `start_over`. ValueError: the new key was accepted already.
        """
        with self._store.write() as tx:
            if not account_reset.is_starting_over(tx):
                raise ValueError("the account does not start over")
            account_reset.start_over(tx, self._account, lists, self._clock())
