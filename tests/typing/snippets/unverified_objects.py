"""What came off the wire where its verified form is wanted."""

from e2ee import pqxdh, session
from e2ee.pqxdh import Party
from e2ee.primitives.rng import Rng
from e2ee.private_keys import IdentityKeyPair
from e2ee.session import Clock
from e2ee.wire.device_list import SignedDeviceList, VerifiedDeviceList
from e2ee.wire.prekey_bundle import PreKeyBundle, VerifiedPreKeyBundle


def session_from_an_unverified_bundle(
    ours: Party, identity_key_pair: IdentityKeyPair, bundle: PreKeyBundle, clock: Clock, rng: Rng
) -> None:
    session.start_as_initiator(ours, identity_key_pair, bundle, clock, rng)  # error: arg-type
    pqxdh.initiate(ours, identity_key_pair, bundle, clock.created, rng)  # error: arg-type


def bundle_verified_against_an_unverified_list(bundle: PreKeyBundle, device_list: SignedDeviceList) -> None:
    bundle.verify(device_list, now=0)  # error: arg-type


def unverified_list_as_verified(device_list: SignedDeviceList) -> VerifiedDeviceList:
    return device_list  # error: return-value


def verification_forgotten(bundle: PreKeyBundle) -> VerifiedPreKeyBundle:
    return bundle  # error: return-value
