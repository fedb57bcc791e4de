"""Control: what unverified_objects.py does wrong, done right."""

from e2ee import pqxdh, session
from e2ee.pqxdh import Party
from e2ee.primitives.rng import Rng
from e2ee.private_keys import IdentityKeyPair
from e2ee.session import Clock
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import UserId
from e2ee.wire.prekey_bundle import PreKeyBundle, VerifiedPreKeyBundle


def session_from_a_verified_bundle(
    ours: Party, identity_key_pair: IdentityKeyPair, bundle: VerifiedPreKeyBundle, clock: Clock, rng: Rng
) -> None:
    session.start_as_initiator(ours, identity_key_pair, bundle, clock, rng)
    pqxdh.initiate(ours, identity_key_pair, bundle, clock.created, rng)


def both_verified(user_id: UserId, bundle: PreKeyBundle, device_list: SignedDeviceList) -> VerifiedPreKeyBundle:
    return bundle.verify(device_list.verify(user_id), now=0)
