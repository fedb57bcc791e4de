"""The `websockets` package from PyPI: section 13.9.

Owns: frames as text.
Does not know about: what the frames say.
"""

import json
from typing import Any

from errand import URL, Errand  # type: ignore[import-not-found]  # beside this file: a program of its own
from websockets.sync.client import connect


def main() -> None:
    errand = Errand()
    for _ in range(2):
        with connect(f"{URL.replace('http', 'ws')}/e2ee/ws", compression=None, max_size=1 << 20) as socket:

            def say(name: str, fields: dict[str, Any], to: Any = socket) -> None:
                to.send(json.dumps([name, fields]))

            say("hello", errand.hello())
            while not errand.hear(*json.loads(socket.recv()), say):
                pass
    errand.done()


if __name__ == "__main__":
    main()
