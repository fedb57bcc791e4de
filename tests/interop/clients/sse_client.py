"""`httpx` and `httpx-sse` from PyPI: sections 13.10 and 13.11.

Owns: the stream, and frames by POST.
Does not know about: what the frames say.
"""

from typing import Any

import httpx
from errand import TOKEN, URL, Errand  # type: ignore[import-not-found]  # beside this file: a program of its own
from httpx_sse import connect_sse


def main() -> None:
    errand = Errand()
    with httpx.Client(base_url=URL, timeout=30, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        for _ in range(2):
            with connect_sse(client, "GET", "/e2ee/sse") as stream:
                events = stream.iter_sse()
                opened = next(events)
                assert opened.event == "open"
                named = {"E2EE-Connection": opened.json()["connection"]}

                def say(name: str, fields: dict[str, Any], headers: dict[str, str] = named) -> None:
                    reply = client.post("/e2ee/frames", headers=headers, json={"frames": [[name, fields]]})
                    for frame in reply.json()["frames"]:
                        errand.hear(*frame, say)
                    reply.raise_for_status()

                say("hello", errand.hello())
                while not errand.hear((event := next(events)).event, event.json(), say):
                    pass
                client.delete("/e2ee/frames", headers=named).raise_for_status()
    errand.done()


if __name__ == "__main__":
    main()
