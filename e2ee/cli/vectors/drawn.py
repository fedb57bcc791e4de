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

from e2ee.primitives import kem

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
    everything = {**_recorded(), name: {"shared_secret": shared_secret.hex(), "ciphertext": ciphertext.hex()}}
    RECORD.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n")
    _recorded.cache_clear()


def _name(public_key: bytes, number: int) -> str:
    return f"{hashlib.sha256(public_key).hexdigest()[:16]}/{number}"


@cache
def _recorded() -> dict[str, dict[str, str]]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}
