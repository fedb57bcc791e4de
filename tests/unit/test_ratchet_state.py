"""The records that hold a chain key as plain bytes."""

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from e2ee.ratchet.state import ChainKey, PqChain, PqChainKey, PqReceivingChain, ReceivingChain, SendingChain
from e2ee.wire.public_keys import RatchetPublicKey

KEY = b"K" * 32
RECORDS = (
    SendingChain(ChainKey(KEY), 1),
    ReceivingChain(RatchetPublicKey(bytes(32)), ChainKey(KEY), 1),
    PqChain(PqChainKey(KEY), 1),
    PqReceivingChain(2, PqChainKey(KEY), 1),
)
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


@every_record
def test_a_chain_shows_its_name_and_no_key(record: object) -> None:
    assert repr(record) == f"<{type(record).__name__} redacted>"
    assert str(record) == repr(record)
    assert f"{record}" == repr(record)


@every_record
@pytest.mark.parametrize(
    "way_out", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps], ids=["pickle", "copy", "deepcopy", "json"]
)
def test_a_chain_is_serialised_by_persist_alone(record: object, way_out: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        way_out(record)
