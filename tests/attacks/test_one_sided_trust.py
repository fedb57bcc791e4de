"""Attack: a contact counts as verified although one's own identity was exchanged (docs/attacks.md, row 16)."""

from e2ee.safety_number import safety_number
from tests.world import World


def test_a_safety_number_vouches_for_both_identities_and_is_the_same_on_both_sides() -> None:
    world = World("safety numbers")
    alice, bob, other = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob", "mallory"))
    keys = {each.user_id: each.messenger.account.party.account_key for each in (alice, bob, other)}
    one, two, swapped = (alice.user_id, keys[alice.user_id]), (bob.user_id, keys[bob.user_id]), keys[other.user_id]
    number = safety_number(one, two)
    assert safety_number(two, one) == number
    assert safety_number((alice.user_id, swapped), two) != number, "our own key was exchanged"
    assert safety_number(one, (bob.user_id, swapped)) != number
    assert safety_number((alice.user_id, keys[bob.user_id]), (bob.user_id, keys[alice.user_id])) != number
