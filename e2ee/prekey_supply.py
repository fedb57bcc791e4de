"""Keeping this device reachable: making, publishing and retiring prekeys (protocol.md section 5.3).

Owns: when prekeys are made, which of them are due for publication, when private halves are deleted.
Does not know about: the key server. A prekey is stored before it is published, so a repeated upload is byte-identical.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, final

from e2ee.account import OwnPreKey, PreKeyKind, generate_prekey
from e2ee.limits import (
    HOUR_MS,
    MAX_CLAIMED_ONE_TIME_PREKEYS,
    ONE_TIME_PREKEY_BATCH,
    ONE_TIME_PREKEY_LOW,
    PREKEY_ROTATION_MS,
)
from e2ee.ports import Transaction
from e2ee.primitives.rng import Rng
from e2ee.stores.records import delete_prekey, fresh_prekey_id, load_account, load_prekey, prekeys, save_prekey
from e2ee.stores.session_records import forget_handshakes, replay_memory_is_full
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, SignedPreKey


class ServerCounts(NamedTuple):
    """How many one-time prekeys of this device the server still has to give."""

    one_time: int
    one_time_kem: int


@final
@dataclass(frozen=True, slots=True)
class PreKeyPublication:
    """What the server should be given now. Empty if nothing is due."""

    signed_prekey: SignedPreKey | None
    one_time_prekeys: tuple[OneTimePreKey, ...]
    last_resort: KemPreKey | None
    one_time_kem_prekeys: tuple[KemPreKey, ...]

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to publish."""
        return not self.prekey_ids

    @property
    def prekey_ids(self) -> tuple[PreKeyId, ...]:
        """All ids in it, for `mark_published`."""
        several = (self.signed_prekey, self.last_resort, *self.one_time_prekeys, *self.one_time_kem_prekeys)
        return tuple(prekey.prekey_id for prekey in several if prekey is not None)


def make_due(tx: Transaction, counts: ServerCounts, now: int, rng: Rng) -> None:
    """Make the prekeys that are due: weekly rotation, and a batch of one-time keys when the server runs low."""
    for kind in (PreKeyKind.SIGNED, PreKeyKind.LAST_RESORT_KEM):
        _rotate(tx, kind, now, rng)
    for kind, left in ((PreKeyKind.ONE_TIME, counts.one_time), (PreKeyKind.ONE_TIME_KEM, counts.one_time_kem)):
        unpublished = sum(1 for prekey in prekeys(tx, kind) if not prekey.published)
        if left + unpublished < ONE_TIME_PREKEY_LOW:
            for _ in range(ONE_TIME_PREKEY_BATCH - left - unpublished):
                save_prekey(tx, generate_prekey(kind, fresh_prekey_id(tx, rng), now, rng))


def publication(tx: Transaction) -> PreKeyPublication:
    """Return everything that the server has not confirmed."""
    account = load_account(tx)
    due = {kind: [each for each in prekeys(tx, kind) if each.is_due] for kind in PreKeyKind}
    signed, last_resort = due[PreKeyKind.SIGNED], due[PreKeyKind.LAST_RESORT_KEM]
    return PreKeyPublication(
        signed_prekey=account.signed_prekey(signed[-1]) if signed else None,
        one_time_prekeys=tuple(account.one_time_prekey(prekey) for prekey in due[PreKeyKind.ONE_TIME]),
        last_resort=account.kem_prekey(last_resort[-1]) if last_resort else None,
        one_time_kem_prekeys=tuple(account.kem_prekey(prekey) for prekey in due[PreKeyKind.ONE_TIME_KEM]),
    )


def mark_published(tx: Transaction, prekey_ids: tuple[PreKeyId, ...]) -> None:
    """Note the server's confirmation."""
    for prekey_id in prekey_ids:
        prekey = load_prekey(tx, prekey_id)
        if prekey is not None:
            save_prekey(tx, replace(prekey, published=True))


def note_offered(tx: Transaction, offered: Collection[PreKeyId], now: int) -> None:
    """Take care that the server offers the present signed and last-resort prekeys, which it confirmed once.

    A server that was restored from a backup has forgotten them: they are published again, byte for byte. One that
    offers keys which this device does not know outlived a restore of this store: the private halves are gone, and with
    them every message that begins with such a key. Then fresh keys take over; one pair an hour, and no more, if the
    server goes on telling this.
    """
    is_foreign = any(load_prekey(tx, each) is None for each in offered)
    for kind in (PreKeyKind.SIGNED, PreKeyKind.LAST_RESORT_KEM):
        for present in [prekey for prekey in prekeys(tx, kind) if prekey.replaced_at is None]:
            if not present.published or present.prekey_id in offered:
                continue
            is_fresh = 0 <= now - present.created_at < HOUR_MS
            again = replace(present, published=False)
            save_prekey(tx, replace(present, replaced_at=now) if is_foreign and not is_fresh else again)


def withhold(tx: Transaction) -> None:
    """Never publish the one-time prekeys that the server has not confirmed; others are made in their place.

    A server that was restored from a backup may have had them, and handed them out, before it forgot them.
    """
    for kind in (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM):
        for prekey in [prekey for prekey in prekeys(tx, kind) if not prekey.published]:
            save_prekey(tx, replace(prekey, published=True))


def replace_all(tx: Transaction, now: int) -> None:
    """Let the next supply make and publish new signed and last-resort prekeys, whatever the age of the present ones."""
    for kind in (PreKeyKind.SIGNED, PreKeyKind.LAST_RESORT_KEM):
        for prekey in [prekey for prekey in prekeys(tx, kind) if prekey.replaced_at is None]:
            save_prekey(tx, replace(prekey, replaced_at=now))


def retire(tx: Transaction, now: int) -> None:
    """Delete private halves that no late first message can need any more.

    Call it only after the inbox was drained once since coming online.
    """
    for kind in (PreKeyKind.SIGNED, PreKeyKind.LAST_RESORT_KEM):
        for prekey in [prekey for prekey in prekeys(tx, kind) if prekey.obsolete(now)]:
            delete_prekey(tx, prekey.prekey_id)
            forget_handshakes(tx, prekey.prekey_id)
    for kind in (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM):
        # Which ones were claimed only the server knows; the oldest are the likeliest, as it serves them first.
        for prekey in list(prekeys(tx, kind))[:-MAX_CLAIMED_ONE_TIME_PREKEYS]:
            delete_prekey(tx, prekey.prekey_id)


def _rotate(tx: Transaction, kind: PreKeyKind, now: int, rng: Rng) -> None:
    current = [prekey for prekey in prekeys(tx, kind) if prekey.replaced_at is None]
    if current and not _is_worn_out(tx, current[-1], now):
        return
    for prekey in current:
        save_prekey(tx, replace(prekey, replaced_at=now))
    save_prekey(tx, generate_prekey(kind, fresh_prekey_id(tx, rng), now, rng))


def _is_worn_out(tx: Transaction, prekey: OwnPreKey, now: int) -> bool:
    return now - prekey.created_at >= PREKEY_ROTATION_MS or replay_memory_is_full(tx, prekey.prekey_id)
