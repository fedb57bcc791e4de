"""The message path: a stream, a ping-pong, a session's set-up, skipping; against peers and the bare primitives.

Owns: which primitive calls a message needs at least.
Does not know about: storage, the network.
"""

import hmac
from collections.abc import Iterator

from benchmarks import peers
from benchmarks.conversations import Pair
from benchmarks.harness import Row, at_most, microseconds
from e2ee.primitives import aead, dh, kdf, kem
from e2ee.primitives.rng import system_rng
from e2ee.ratchet import chains
from e2ee.ratchet.skipped_keys import Ratchet
from e2ee.wire.padding import pad

_PLAINTEXT = bytes(range(255))  # 256 bytes once padded
_KEY, _INFO = bytes(range(32)), b"E2EE/1 benchmark"


def rows() -> Iterator[Row]:
    """Measure."""
    yield from _stream()
    yield from _ping_pong()
    yield from _set_up()
    yield from _skipping()


def _stream() -> Iterator[Row]:
    pair, syndace = Pair(), peers.PythonDoubleRatchet()
    padded = pad(_PLAINTEXT)
    sides = [
        lambda: pair.stream(_PLAINTEXT),
        lambda: _message_primitives(padded),
        peers.vodozemac_stream(padded),
        syndace.stream(padded),
    ]
    ours, primitives, vodozemac, doubleratchet = microseconds(sides)
    syndace.close()
    name = "256-byte message, encrypt + decrypt"
    yield at_most(f"{name} / its primitive calls", (ours, primitives), "us", 2.0)
    yield at_most(f"{name} / vodozemac", (ours, vodozemac), "us", 0.8)
    yield at_most(f"{name} / doubleratchet", (ours, doubleratchet), "us", 0.15)


def _ping_pong() -> Iterator[Row]:
    pair, padded = Pair(), pad(_PLAINTEXT)
    public = dh.public_key(_KEY)
    sides = [
        lambda: pair.ping_pong(_PLAINTEXT),
        lambda: _turn_primitives(padded, public),
        peers.vodozemac_ping_pong(padded),
    ]
    ours, primitives, vodozemac = microseconds(sides)
    name = "ping-pong, a ratchet step per message"
    yield at_most(f"{name} / its primitive calls", (ours / 2, primitives), "us", 1.5)
    yield at_most(f"{name} / vodozemac", (ours / 2, vodozemac / 2), "us", 0.9)


def _set_up() -> Iterator[Row]:
    pair = Pair()
    public, seed = dh.public_key(_KEY), bytes(64)
    encapsulation_key = kem.public_key_1024(seed)
    sides = [pair.set_up, lambda: _set_up_primitives(public, seed, encapsulation_key)]
    ours, primitives = microseconds(sides)
    yield at_most("session setup, both sides / its primitive calls", (ours, primitives), "us", 1.5)


def _skipping() -> Iterator[Row]:
    few, many = microseconds([lambda: _skip(100), lambda: _skip(1000)])
    yield at_most("one skipped key of both ratchets", (many / 1000, 1.0), "us", 6.0)
    yield at_most("skipping is linear: time a key of 1,000 / of 100", (many / 1000, few / 100), "us", 1.25)


def _skip(count: int) -> None:
    for ratchet in Ratchet:
        _, gaps = chains.skip(_KEY, 0, count, (ratchet, _KEY), count)
        chains.skipped_keys(gaps)


def _message_primitives(padded: bytes) -> None:
    """The calls that one message needs on both sides, and nothing between them."""
    kdf.kdf(_KEY, _INFO)
    kdf.kdf(_KEY, _INFO, bytes(4))
    key = kdf.kdf(_KEY, _INFO, _KEY)[:32]
    nonce = system_rng(12)
    sealed = aead.seal(key, nonce, padded, bytes(131))
    kdf.kdf(_KEY, _INFO)
    kdf.kdf(_KEY, _INFO, bytes(4))
    key = kdf.kdf(_KEY, _INFO, _KEY)[:32]
    hmac.compare_digest(_KEY, _KEY)
    aead.unseal(key, nonce, sealed, bytes(131))


def _turn_primitives(padded: bytes, public: bytes) -> None:
    """The calls that one message needs with which a turn begins, on both sides."""
    dh.public_key(system_rng(32))
    for _ in range(2):
        dh.exchange(_KEY, public)
        kdf.hkdf_sha512(_KEY, _KEY, _INFO, 64)
    _message_primitives(padded)


def _set_up_primitives(public: bytes, seed: bytes, encapsulation_key: bytes) -> None:
    """The calls that PQXDH and the first message need on both sides."""
    dh.public_key(system_rng(32))
    for _ in range(4):
        dh.exchange(_KEY, public)
    _, ciphertext = kem.encapsulate_1024(encapsulation_key)
    dh.public_key(system_rng(32))  # the first ratchet key
    dh.exchange(_KEY, public)
    for _ in range(4):
        dh.exchange(_KEY, public)
    kem.decapsulate_1024(seed, ciphertext)
    dh.exchange(_KEY, public)
    for _ in range(2):
        kdf.sha256(bytes(3700))
        kdf.hkdf_sha512(bytes(64), bytes(192), _INFO, 64)
        kdf.hkdf_sha512(bytes(32), bytes(32), _INFO, 128)
        kdf.hkdf_sha512(bytes(32), bytes(32), _INFO, 64)
    _message_primitives(pad(b"first"))
