"""The bytes of a JSON file.

Owns: how generated files are written: indented by two, ASCII, one line break at the end.
Does not know about: what they hold.
"""

import json
from typing import Any


def encode(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode("ascii")
