"""One record, one row: what goes in comes out, and only where it was put."""

from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, strategies as st

from e2ee.errors import CorruptStateError
from e2ee.ports import Record, Table
from e2ee.stores.sqlite_keyring import DataKey
from e2ee.stores.sqlite_sealing import Row, TableCipher

DATA_KEY = DataKey(b"d" * 32)
CIPHER = TableCipher(DATA_KEY, "sessions", 1)
RECORD = Record(b"key", b"value", b"group", 5)
RECORDS = st.builds(
    Record,
    st.binary(max_size=255),
    st.binary(max_size=600),
    st.binary(max_size=255),
    st.integers(-(1 << 63), (1 << 63) - 1),
)


def test_rows_are_as_documented() -> None:
    """Written out once more with the library alone: what is on the disks of users must stay readable."""

    def keyed(key: bytes, label: bytes, data: bytes, size: int) -> bytes:
        return blake2b(bytes((len(label),)) + label + data, key=key, digest_size=size).digest()

    index_keys = keyed(DATA_KEY.expose(), b"E2EE/1 store index", b"sessions", 64)
    sealing_key = keyed(DATA_KEY.expose(), b"E2EE/1 store records", b"sessions", 64)[:32]
    row = CIPHER.seal(RECORD)
    assert row.id == keyed(index_keys[:32], b"record", b"key", 32)[:16]
    assert row.group == keyed(index_keys[32:], b"group", b"group", 32)[:16]
    bound = b"\x08sessions" + (1).to_bytes(4, "big") + row.id + row.group + (5).to_bytes(8, "big", signed=True)
    plaintext = AESGCM(sealing_key).decrypt(row.sealed[:12], row.sealed[12:], bound)
    assert plaintext == b"\x03key\x05groupvalue"


@given(RECORDS)
def test_opening_inverts_sealing(record: Record) -> None:
    assert CIPHER.open(CIPHER.seal(record)) == record


def test_no_two_seals_share_a_nonce() -> None:
    nonces = {CIPHER.seal(RECORD).sealed[:12] for _ in range(2_000)}
    assert len(nonces) == 2_000


@pytest.mark.parametrize(
    "other",
    [
        TableCipher(DATA_KEY, "contacts", 1),
        TableCipher(DATA_KEY, "sessions", 2),
        TableCipher(DataKey(b"e" * 32), "sessions", 1),
    ],
    ids=["table", "schema version", "data key"],
)
def test_a_row_opens_in_its_own_table_version_and_store_only(other: TableCipher) -> None:
    with pytest.raises(CorruptStateError):
        other.open(CIPHER.seal(RECORD))


@pytest.mark.parametrize("table", [table for table in Table if table is not Table.SESSIONS])
def test_blind_indexes_of_tables_are_unrelated(table: Table) -> None:
    other = TableCipher(DATA_KEY, table.label, table.version)
    assert other.row_id(b"key") != CIPHER.row_id(b"key")
    assert other.row_group(b"key") != CIPHER.row_group(b"key")


def test_a_key_and_a_group_of_the_same_bytes_have_different_indexes() -> None:
    assert CIPHER.row_id(b"same") != CIPHER.row_group(b"same")


@given(st.data())
def test_every_change_of_a_row_is_noticed(data: st.DataObject) -> None:
    row = CIPHER.seal(RECORD)
    column = data.draw(st.sampled_from([Row._fields.index(name) for name in ("id", "group", "sealed")]))
    value = row[column]
    assert isinstance(value, bytes)
    position, flip = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
    changed = value[:position] + bytes((value[position] ^ flip,)) + value[position + 1 :]
    with pytest.raises(CorruptStateError):
        CIPHER.open((*row[:column], changed, *row[column + 1 :]))


@given(RECORDS, st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=40))
def test_another_order_or_arbitrary_bytes_do_not_open(record: Record, order: int, sealed: bytes) -> None:
    row = CIPHER.seal(record)
    with pytest.raises(CorruptStateError):
        CIPHER.open(row._replace(sealed=sealed))
    if order != record.order:
        with pytest.raises(CorruptStateError):
            CIPHER.open(row._replace(order=order))


@pytest.mark.parametrize("value", [None, 1, 1.5, "text"])
@pytest.mark.parametrize("column", range(4))
def test_columns_of_other_types_are_corruption(column: int, value: object) -> None:
    columns: list[object] = list(CIPHER.seal(RECORD))
    columns[column] = value
    with pytest.raises(CorruptStateError):
        CIPHER.open(tuple(columns))
