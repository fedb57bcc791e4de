"""Control: what swapped_keys.py does wrong, done right."""

from e2ee.private_keys import AccountKeyPair, RatchetKeyPair, RootKey, SharedSecret, diffie_hellman
from e2ee.wire.public_keys import AccountKey, RatchetPublicKey


def exchange(ours: RatchetKeyPair, theirs: RatchetPublicKey) -> SharedSecret:
    return diffie_hellman(ours, theirs)


def keep(root_key: RootKey) -> RootKey:
    return root_key


def account_key(account: AccountKeyPair) -> AccountKey:
    return account.public


def raw(root_key: RootKey) -> bytes:
    return root_key.expose()
