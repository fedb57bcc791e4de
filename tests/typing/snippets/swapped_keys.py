"""A key of one purpose where a key of another is wanted."""

from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    EphemeralKeyPair,
    IdentityKeyPair,
    PreKeyPair,
    RatchetKeyPair,
    RootKey,
    SharedSecret,
    diffie_hellman,
)
from e2ee.ratchet.state import ChainKey
from e2ee.wire.public_keys import AccountKey, IdentityKey, PreKeyPublicKey, RatchetPublicKey


def ours_and_theirs_swapped(ours: RatchetKeyPair, theirs: RatchetPublicKey) -> None:
    diffie_hellman(theirs, ours)  # error: arg-type


def identity_key_in_the_ratchet(ours: RatchetKeyPair, theirs: IdentityKey) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def prekey_in_the_ratchet(ours: RatchetKeyPair, theirs: PreKeyPublicKey) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def identity_pair_in_the_ratchet(ours: IdentityKeyPair, theirs: RatchetPublicKey) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def prekey_pair_in_the_ratchet(ours: PreKeyPair, theirs: RatchetPublicKey) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def ephemeral_pair_in_the_ratchet(ours: EphemeralKeyPair, theirs: RatchetPublicKey) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def bare_bytes(ours: RatchetKeyPair, theirs: bytes) -> None:
    diffie_hellman(ours, theirs)  # error: arg-type


def root_key_as_chain_key(root_key: RootKey) -> ChainKey:
    return root_key  # error: return-value


def dh_output_as_root_key(ours: RatchetKeyPair, theirs: RatchetPublicKey) -> RootKey:
    return diffie_hellman(ours, theirs)  # error: return-value


def root_key_from_another_secret(secret: SharedSecret) -> RootKey:
    return RootKey(secret)  # error: arg-type


def secret_as_bytes(root_key: RootKey) -> bytes:
    return root_key  # error: return-value


def device_signing_key_as_account_key(device: DeviceSigningKeyPair) -> AccountKey:
    return device.public  # error: return-value


def account_key_as_device_signing_key(account: AccountKeyPair) -> DeviceSigningKeyPair:
    return account  # error: return-value
