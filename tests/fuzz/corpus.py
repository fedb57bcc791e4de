"""The committed inputs: one JSON file of hex strings per target, each with a word about what it is.

Owns: reading them, adding one.
Does not know about: targets.
"""

import json
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(__file__).parent / "corpus"


def load(target: str) -> dict[str, bytes]:
    """Return the inputs of a target by name; none if it has no file yet."""
    path = DIRECTORY / f"{target}.json"
    named = json.loads(path.read_text()) if path.exists() else {}
    return {name: bytes.fromhex(written) for name, written in named.items()}


def keep(target: str, name: str, data: bytes) -> None:
    """Add an input under a name, or replace the one of that name."""
    inputs = load(target) | {name: data}
    written = json.dumps({each: inputs[each].hex() for each in sorted(inputs)}, indent=1)
    (DIRECTORY / f"{target}.json").write_text(written + "\n")
