"""The relay's endpoints beside Socket.IO, as routes of an application.

Owns: their paths.
Does not know about: what they do. Socket.IO has its own way in (`attach`).
"""

from typing import Final

from starlette.routing import BaseRoute, WebSocketRoute

from transport_adapters.server.relay import Relay
from transport_adapters.server.websocket import WebSocketEndpoint

PREFIX: Final = "/e2ee"


def endpoints(relay: Relay, prefix: str = PREFIX) -> list[BaseRoute]:
    """Make the routes of one relay, for `Starlette(routes=...)` or a router of FastAPI."""
    return [WebSocketRoute(f"{prefix}/ws", WebSocketEndpoint(relay))]
