"""Cases of strict Ed25519 verification that no honest signer makes.

Owns: reading their record. It was made with curve arithmetic that the package does not have, after Chalkias, Garillot
and Nikolaenko, Taming the Many EdDSAs (2020), whose cases 0 to 11 are all among them.
Does not know about: how they are made; tests/vectors makes the record again and shows what each one deceives.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from e2ee.cli.vectors.cases.mutations import invalid, valid
from e2ee.cli.vectors.model import Case

_RECORD: Final = Path(__file__).parents[1] / "crafted_signatures.json"


def crafted_signatures() -> Iterator[Case]:
    """Yield those that hold strictly, those that hold with cofactor only, and those with a small point or a large S."""
    groups = json.loads(_RECORD.read_text())
    for comment, given in groups["accepted"].items():
        yield valid(comment, given, "MixedOrder")
    for comment, given in groups["cofactored"].items():
        yield invalid(f"holds with cofactor only: {comment}", "signature", given, "MixedOrder")
    for comment, given in groups["weak"].items():
        yield invalid(comment, "signature", given, "WeakSignature")
