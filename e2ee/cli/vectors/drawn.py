"""Where generated vectors take their values from: nothing is random, everything has a name.

Owns: bytes drawn from a name, and the recorded encapsulations.
Does not know about: cases.

Keys in vectors are as public as the vectors. Nothing may ever use them.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

from e2ee.primitives import hpke, kem

RECORD: Final = Path(__file__).with_name("recorded_encapsulations.json")


def drawn(name: str, length: int) -> bytes:
    """Return SHAKE-256("E2EE/1 vectors: " || name), `length` bytes."""
    return hashlib.shake_256(f"E2EE/1 vectors: {name}".encode()).digest(length)


def encapsulation(public_key: bytes, number: int = 0) -> tuple[bytes, bytes]:
    """Return the `number`th recorded (shared secret, ciphertext) of an ML-KEM-1024 or ML-KEM-768 key.

    Encapsulation cannot be derandomised with the library, so each one was made once and is read back.

    Raises:
        LookupError: none is recorded: see `record`.
    """
    found = _recorded().get(_name(public_key, number))
    if found is None:
        raise LookupError("an encapsulation is not recorded yet: run `e2ee vectors generate --record` once")
    return bytes.fromhex(found["shared_secret"]), bytes.fromhex(found["ciphertext"])


def record(public_key: bytes, number: int = 0) -> None:
    """Make an encapsulation and add it to the record, unless it is there."""
    name = _name(public_key, number)
    if name in _recorded():
        return
    encapsulate = kem.encapsulate_768 if len(public_key) == 1184 else kem.encapsulate_1024
    shared_secret, ciphertext = encapsulate(public_key)
    _write(name, {"shared_secret": shared_secret.hex(), "ciphertext": ciphertext.hex()})


def sealed(public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Return what was once sealed with HPKE: it draws its randomness itself, so each was made once and is read back.

    Raises:
        LookupError: none is recorded: see `record_sealed`.
    """
    found = _recorded().get(_sealed_name(public_key, plaintext, info))
    if found is None:
        raise LookupError("a sealed text is not recorded yet: run `e2ee vectors generate --record` once")
    return bytes.fromhex(found["sealed"])


def record_sealed(public_key: bytes, plaintext: bytes, info: bytes) -> None:
    """Seal, and add it to the record, unless it is there."""
    name = _sealed_name(public_key, plaintext, info)
    if name not in _recorded():
        _write(name, {"sealed": hpke.seal(public_key, plaintext, info).hex()})


def _sealed_name(public_key: bytes, plaintext: bytes, info: bytes) -> str:
    return f"hpke {hashlib.sha256(public_key + info + plaintext).hexdigest()[:16]}"


def _write(name: str, value: dict[str, str]) -> None:
    RECORD.write_text(json.dumps({**_recorded(), name: value}, indent=2, sort_keys=True) + "\n")
    _recorded.cache_clear()


def _name(public_key: bytes, number: int) -> str:
    return f"{hashlib.sha256(public_key).hexdigest()[:16]}/{number}"


@cache
def _recorded() -> dict[str, dict[str, str]]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}
