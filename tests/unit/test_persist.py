"""Serialised state: comes back equal, has a version, and never fails with anything but CorruptStateError."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, strategies as st

from e2ee import persist
from e2ee.account import Account, OwnPreKey, PreKeyKind, generate_prekey
from e2ee.errors import CorruptStateError
from e2ee.limits import MAX_CLOSED_EPOCHS, MAX_CLOSED_RATCHET_KEYS
from e2ee.ratchet.state import ClosedPqChain
from e2ee.session import Session
from e2ee.wire.identifiers import PreKeyId, UserId
from tests.wire_objects import NOW, seeded_rng
from tests.world import World

RNG: Final = seeded_rng("persist")
ACCOUNT: Final = Account.generate(UserId("alice"), RNG)
PREKEYS: Final = tuple(generate_prekey(kind, PreKeyId(kind), NOW, RNG) for kind in PreKeyKind)
Decode = Callable[[bytes], object]


def sessions_of_all_stages() -> dict[str, Session]:
    world = World("persist")
    alice, bob = world.device("alice"), world.device("bob", one_time_prekeys=False)
    stages = {"fresh": alice.start_session(bob)}
    first = alice.encrypt(bob, "first")
    stages["sent"] = alice.sending_session(bob)
    bob.receive(first)
    stages["received, not replied"] = bob.sending_session(alice)
    alice.receive(bob.encrypt(alice, "reply"))
    stages["replied"] = bob.sending_session(alice)
    stages["answered"] = alice.sending_session(bob)
    for _ in range(70):
        bob.receive(alice.encrypt(bob, "ping"))
        alice.receive(bob.encrypt(alice, "pong"))
    stages["many closed ratchet keys"] = bob.sending_session(alice)
    for _ in range(70):
        bob.receive(alice.encrypt(bob, "ping"))
        alice.receive(bob.encrypt(alice, "pong"))
        for device, peer in ((alice, bob), (bob, alice)):
            session = device.sending_session(peer)
            stages[type(session.ratchets.pq.turn.phase).__name__] = session
    stages["closed epochs"] = bob.sending_session(alice)
    stages["healing"] = bob.sending_session(alice).ask_for_healing()
    stages["dead"] = bob.sending_session(alice).mark_dead()
    return stages


STAGES: Final = sessions_of_all_stages()
ENCODED: Final[tuple[tuple[Decode, bytes], ...]] = (
    (persist.decode_account, persist.encode_account(ACCOUNT)),
    *((persist.decode_prekey, persist.encode_prekey(prekey)) for prekey in PREKEYS),
    *((persist.decode_session, persist.encode_session(session)) for session in STAGES.values()),
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_session_comes_back_equal_at_every_stage(stage: str) -> None:
    session = STAGES[stage]
    assert persist.decode_session(persist.encode_session(session)) == session


def test_the_stages_hold_every_phase_of_the_post_quantum_ratchet() -> None:
    assert {"ProposeIdle", "Offering", "Waiting", "Answering"} < set(STAGES)
    assert STAGES["closed epochs"].ratchets.pq.closed


def test_a_session_at_rest_is_under_8_kib_with_as_many_closed_chains_as_there_can_be() -> None:
    session = STAGES["Answering"]
    pq, double = session.ratchets.pq, session.ratchets.double
    closed = ClosedPqChain(pq.receiving[0], NOW, 0)
    ratchets = session.ratchets._replace(
        pq=pq._replace(closed=(closed,) * MAX_CLOSED_EPOCHS),
        double=double._replace(closed_ratchet_keys=(bytes(32),) * MAX_CLOSED_RATCHET_KEYS),
    )
    assert len(persist.encode_session(session._replace(state=ratchets))) < 8 * 1024


def test_an_account_comes_back_equal_with_the_same_public_keys() -> None:
    restored = persist.decode_account(persist.encode_account(ACCOUNT))
    assert restored == ACCOUNT
    assert restored.party == ACCOUNT.party


@pytest.mark.parametrize("prekey", PREKEYS, ids=lambda prekey: prekey.kind.name)
@pytest.mark.parametrize(("published", "replaced_at"), [(False, None), (True, None), (True, NOW + 1), (False, 0)])
def test_a_prekey_comes_back_equal(prekey: OwnPreKey, published: bool, replaced_at: int | None) -> None:
    stored = OwnPreKey(prekey.kind, prekey.prekey_id, prekey.pair, prekey.created_at, published, replaced_at)
    restored = persist.decode_prekey(persist.encode_prekey(stored))
    assert restored == stored
    assert restored.pair.public == stored.pair.public


@pytest.mark.parametrize(("decode", "encoded"), ENCODED)
def test_every_unknown_version_is_refused(decode: Decode, encoded: bytes) -> None:
    for version in set(range(256)) - {encoded[0]}:
        with pytest.raises(CorruptStateError, match="version"):
            decode(bytes([version]) + encoded[1:])


@pytest.mark.parametrize(("decode", "encoded"), ENCODED)
def test_every_truncation_and_a_trailing_byte_are_refused(decode: Decode, encoded: bytes) -> None:
    for length in range(len(encoded)):
        with pytest.raises(CorruptStateError):
            decode(encoded[:length])
    with pytest.raises(CorruptStateError):
        decode(encoded + b"\0")


@pytest.mark.parametrize("decode", [persist.decode_account, persist.decode_prekey, persist.decode_session])
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_decode_or_are_corrupt(decode: Decode, data: bytes) -> None:
    for candidate in (data, b"\x01" + data, b"\x02" + data):
        try:
            decode(candidate)
        except CorruptStateError:
            pass


@given(at=st.integers(0, 4000), value=st.integers(0, 255), which=st.integers(0, len(ENCODED) - 1))
def test_a_changed_byte_decodes_or_is_corrupt(at: int, value: int, which: int) -> None:
    decode, encoded = ENCODED[which]
    at %= len(encoded)
    try:
        decode(encoded[:at] + bytes([value]) + encoded[at + 1 :])
    except CorruptStateError:
        pass


def test_errors_about_state_show_none_of_it() -> None:
    encoded = persist.encode_account(ACCOUNT)
    with pytest.raises(CorruptStateError) as caught:
        persist.decode_account(encoded[:-1])
    assert ACCOUNT.identity_key_pair.private.expose().hex() not in str(caught.value)
    assert caught.value.__cause__ is None
