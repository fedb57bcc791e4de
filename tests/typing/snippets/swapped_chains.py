"""A key of one ratchet, or of one step of it, in the place of another."""

from e2ee.private_keys import IdentityKeyPair, RootKey, SharedSecret
from e2ee.ratchet import double_ratchet, pq_ratchet
from e2ee.ratchet.state import ChainKey, PqChain, PqChainKey, SendingChain
from e2ee.wire.public_keys import IdentityKey


def root_key_in_a_chain(root_key: RootKey) -> SendingChain:
    return SendingChain(root_key, 0)  # error: arg-type


def double_ratchet_key_in_a_pq_chain(chain_key: ChainKey) -> PqChain:
    return PqChain(chain_key, 0)  # error: arg-type


def pq_key_in_a_double_ratchet_chain(chain_key: PqChainKey) -> SendingChain:
    return SendingChain(chain_key, 0)  # error: arg-type


def pq_secret_as_root_key(secret: SharedSecret, our_identity: IdentityKeyPair) -> None:
    double_ratchet.start_as_responder(secret, our_identity)  # error: arg-type


def identity_key_as_first_ratchet_key(root_key: RootKey, their_identity: IdentityKey) -> None:
    double_ratchet.start_as_initiator(root_key, their_identity)  # error: arg-type


def root_key_as_pq_secret(root_key: RootKey) -> None:
    pq_ratchet.start(root_key, initiator=True, now=0)  # error: arg-type
