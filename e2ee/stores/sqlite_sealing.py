"""How one record becomes one row, and back.

Owns: the keys of a table, blind indexes, the sealed bytes and what is bound to them.
Does not know about: SQL, or what a record means.

    id    = mac(id key, "record", key)[:16]            group = mac(group key, "group", group)[:16]
    bound = u8 len(label) | label | version u32 | id 16 | group 16 | order i64
    plain = u8 len(key) | key | u8 len(group) | group | value
    row   = id | group | order | nonce 12 | AES-256-GCM(table key, nonce, plain, associated data: bound)

So keys and groups (user ids, session ids) are not readable in the file, and a row that was moved to another table,
id, group or order does not authenticate. What a row cannot prove is that it is the newest: an older copy of the same
record, or its absence, looks genuine. That is a rollback, and noticed above, by the counters a server keeps.
"""

import os
import struct
from typing import Final, NamedTuple, final

from e2ee.errors import AuthenticationError, CorruptStateError
from e2ee.ports import Record
from e2ee.primitives.aead import KEY_LENGTH, NONCE_LENGTH, Sealer
from e2ee.primitives.kdf import kdf, mac
from e2ee.stores.sqlite_keyring import DataKey

_BLIND_LENGTH: Final = 16
_RECORD_LABEL: Final = b"E2EE/1 store records"
_INDEX_LABEL: Final = b"E2EE/1 store index"
_pack_order = struct.Struct(">q").pack


class Row(NamedTuple):
    """One record at rest."""

    id: bytes
    group: bytes
    order: int
    sealed: bytes


@final
class TableCipher:
    """Seals and opens the records of one table in one schema version.

    Each table has its own sealing key. Nonces are 12 random bytes, so one key may seal 2^32 records before the chance
    of a repeated nonce passes 2^-32 (NIST SP 800-38D section 8.3): at ten writes a second into one table, 13 years.
    """

    __slots__ = ("_bound_prefix", "_group_key", "_id_key", "_label", "_sealer")

    def __init__(self, data_key: DataKey, label: str, version: int) -> None:
        name = label.encode("ascii")
        index_keys = kdf(data_key.expose(), _INDEX_LABEL, name)
        self._id_key, self._group_key = index_keys[:32], index_keys[32:]
        self._sealer = Sealer(kdf(data_key.expose(), _RECORD_LABEL, name)[:KEY_LENGTH])
        self._bound_prefix = bytes((len(name),)) + name + version.to_bytes(4, "big")
        self._label = label

    def row_id(self, key: bytes) -> bytes:
        """Return the 16-byte blind index of a record's key."""
        return mac(self._id_key, b"record", key)[:_BLIND_LENGTH]

    def row_group(self, group: bytes) -> bytes:
        """Return the 16-byte blind index of a group."""
        return mac(self._group_key, b"group", group)[:_BLIND_LENGTH]

    def seal(self, record: Record) -> Row:
        """Return the row of a record whose key and group are at most 255 bytes."""
        key, value, group, order = record
        row_id, row_group = self.row_id(key), self.row_group(group)
        # Straight from the operating system: a generator handed in could repeat, and a nonce must not.
        nonce = os.urandom(NONCE_LENGTH)
        plaintext = b"".join((bytes((len(key),)), key, bytes((len(group),)), group, value))
        bound = b"".join((self._bound_prefix, row_id, row_group, _pack_order(order)))
        return Row(row_id, row_group, order, nonce + self._sealer.seal(nonce, plaintext, bound))

    def open(self, row: tuple[object, ...]) -> Record:
        """Return the record of a row as it came out of the file, which may hold anything.

        Raises:
            CorruptStateError: it is not a row that `seal` made for this table and version.
        """
        row_id, row_group, order, sealed = row
        if not (type(row_id) is type(row_group) is type(sealed) is bytes and type(order) is int):
            raise CorruptStateError(f"a row of {self._label} has columns of other types")
        bound = b"".join((self._bound_prefix, row_id, row_group, _pack_order(order)))
        try:
            plaintext = self._sealer.unseal(sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:], bound)
        except AuthenticationError:
            raise CorruptStateError(f"a row of {self._label} does not authenticate") from None
        # The lengths were authenticated: only `seal` can have written them.
        group_at = 1 + plaintext[0]
        value_at = group_at + 1 + plaintext[group_at]
        return Record(plaintext[1:group_at], plaintext[value_at:], plaintext[group_at + 1 : value_at], order)
