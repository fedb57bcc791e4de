"""This package as the other program: answers tests on standard input, one JSON object per line.

    e2ee vectors verify --command "python -m e2ee.cli.vectors.answer"

Owns: our side of the protocol of vectors/README.md. It is also an example of a driver for other implementations.
Does not know about: expected outcomes; it never sees them.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from e2ee.cli.vectors.registry import FILES

_OPERATIONS: Final = {(file.name, each.name): each for file in FILES for each in file.operations}


def answers(lines: Iterable[str]) -> Iterator[str]:
    """Yield an answer to each request."""
    for line in lines:
        request = json.loads(line)
        operation = _OPERATIONS.get((request["file"], request["type"]))
        yield json.dumps(operation.answer(request["input"]) if operation else {"result": "unsupported"})


if __name__ == "__main__":
    for answer in answers(sys.stdin):
        print(answer, flush=True)
