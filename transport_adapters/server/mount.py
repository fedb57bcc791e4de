"""The relay's endpoints beside Socket.IO, as routes of an application.

Owns: their paths.
Does not know about: what they do. Socket.IO has its own way in (`attach`).
"""

from typing import TYPE_CHECKING, Final

from starlette.routing import BaseRoute, Route, WebSocketRoute

from transport_adapters.server.http_connections import FramesEndpoint, HttpConnections
from transport_adapters.server.longpoll import PollEndpoint
from transport_adapters.server.relay import Relay
from transport_adapters.server.sse import StreamEndpoint
from transport_adapters.server.websocket import WebSocketEndpoint

if TYPE_CHECKING:
    from transport_adapters.server.mqtt_bridge import MqttBridge

PREFIX: Final = "/e2ee"


def endpoints(relay: Relay, prefix: str = PREFIX, mqtt: "MqttBridge | None" = None) -> list[BaseRoute]:
    """Make the routes of one relay, for `Starlette(routes=...)` or a router of FastAPI.

    With a bridge to a broker, devices get their accounts there from one of them.
    """
    connections = HttpConnections(relay)
    routes: list[BaseRoute] = [
        WebSocketRoute(f"{prefix}/ws", WebSocketEndpoint(relay)),
        Route(f"{prefix}/sse", StreamEndpoint(connections), methods=["GET"], include_in_schema=False),
        Route(f"{prefix}/poll", PollEndpoint(connections), methods=["POST"], include_in_schema=False),
        Route(f"{prefix}/frames", FramesEndpoint(connections), methods=["POST", "DELETE"], include_in_schema=False),
    ]
    if mqtt is not None:
        from transport_adapters.server.mqtt_access import AccessEndpoint

        access = AccessEndpoint(mqtt)
        routes.append(Route(f"{prefix}/mqtt", access, methods=["POST"], include_in_schema=False))
    return routes
