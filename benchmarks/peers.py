"""Whom the message path is measured against: vodozemac's Python package (Rust) and Syndace's DoubleRatchet (Python).

Owns: a conversation of each. Both run without a post-quantum part.
Does not know about: our own code.
"""

import asyncio
from collections.abc import Callable
from typing import Any, final

import vodozemac
from doubleratchet import DoubleRatchet
from doubleratchet.recommended import (
    HashFunction,
    aead_aes_hmac,
    diffie_hellman_ratchet_curve25519 as curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)
from nacl.bindings import crypto_scalarmult_base

Step = Callable[[], object]


def vodozemac_pair() -> tuple[Any, Any]:
    """Return two established sessions, the second of which has replied once."""
    alice, bob = vodozemac.Account(), vodozemac.Account()
    alice_session, bob_session = vodozemac_setup(alice, bob)
    alice_session.decrypt(bob_session.encrypt(b"reply"))
    return alice_session, bob_session


def vodozemac_setup(alice: Any, bob: Any) -> tuple[Any, Any]:
    """Return both ends of a new session after its first message."""
    bob.generate_one_time_keys(1)
    one_time_key = next(iter(bob.one_time_keys.values()))
    bob.mark_keys_as_published()
    alice_session = alice.create_outbound_session(bob.curve25519_key, one_time_key)
    first = alice_session.encrypt(b"first").to_pre_key()
    bob_session, _ = bob.create_inbound_session(alice.curve25519_key, first)
    return alice_session, bob_session


def vodozemac_stream(plaintext: bytes) -> Step:
    """Return a step: one message, one direction, encrypted and decrypted."""
    alice, bob = vodozemac_pair()
    return lambda: bob.decrypt(alice.encrypt(plaintext))


def vodozemac_ping_pong(plaintext: bytes) -> Step:
    """Return a step: one message each way, so that the ratchet turns twice."""
    alice, bob = vodozemac_pair()

    def step() -> None:
        bob.decrypt(alice.encrypt(plaintext))
        alice.decrypt(bob.encrypt(plaintext))

    return step


class _RootChain(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_512

    @staticmethod
    def _get_info() -> bytes:
        return b"benchmark root"


class _MessageChain(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class _Aead(aead_aes_hmac.AEAD):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_512

    @staticmethod
    def _get_info() -> bytes:
        return b"benchmark message"


class _Ratchet(DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Any) -> bytes:
        return associated_data + bytes(header.ratchet_pub)


@final
class PythonDoubleRatchet:
    """A conversation of the `doubleratchet` package, whose calls are coroutines that never wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        private = bytes(range(32))
        settings: dict[str, Any] = {
            "diffie_hellman_ratchet_class": curve25519.DiffieHellmanRatchet,
            "root_chain_kdf": _RootChain,
            "message_chain_kdf": _MessageChain,
            "message_chain_constant": b"\x01\x02",
            "dos_protection_threshold": 1000,
            "max_num_skipped_message_keys": 2000,
            "aead": _Aead,
            "shared_secret": bytes(32),
        }
        self._alice, first = self._run(
            _Ratchet.encrypt_initial_message(
                **settings,
                recipient_ratchet_pub=crypto_scalarmult_base(private),
                message=b"first",
                associated_data=b"",
            )
        )
        self._bob, _ = self._run(
            _Ratchet.decrypt_initial_message(**settings, own_ratchet_priv=private, message=first, associated_data=b"")
        )

    def stream(self, plaintext: bytes) -> Step:
        """Return a step: one message, one direction, encrypted and decrypted."""
        return lambda: self._run(self._pass_on(plaintext))

    def close(self) -> None:
        self._loop.close()

    async def _pass_on(self, plaintext: bytes) -> bytes:
        message = await self._alice.encrypt_message(plaintext, b"")
        return bytes(await self._bob.decrypt_message(message, b""))

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)
