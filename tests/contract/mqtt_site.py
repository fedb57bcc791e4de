"""A relay behind a bridge to a broker, with a proxy between the devices and the broker.

Owns: what belongs to the site of a test: bridge, access endpoint, proxy, clients.
Does not know about: what is tested.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette

from tests.chaos_proxy import ChaosProxy, running
from tests.contract.relay_world import RelayWorld, eventually
from tests.contract.socketio_server import served
from tests.servers.mosquitto import Mosquitto
from transport_adapters.base import EnvelopeTransport
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.mqtt import MqttOptions, MqttTransport
from transport_adapters.server.mount import endpoints
from transport_adapters.server.mqtt_bridge import MqttBridge, MqttSettings

SECRET = b"a secret of the server, of a test"


@dataclass
class MqttSite:
    """A `Carrier`."""

    url: str
    broker: Mosquitto
    proxy: ChaosProxy
    bridge: MqttBridge

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        chosen = MqttOptions(tls=self.broker.trust(), link=options)
        return MqttTransport(self.url, token=token, cursor=cursor, options=chosen)

    async def drop(self) -> None:
        self.proxy.reset()


def bridge_settings(broker: Mosquitto, port: int) -> MqttSettings:
    """Settings of a bridge; devices reach the broker by another port."""
    return MqttSettings(
        broker.url,
        broker.username,
        broker.password,
        broker.url_of(port),
        SECRET,
        broker.trust(),
        first_backoff=0.01,
        max_backoff=0.05,
        renew_interval=0.2,
    )


@asynccontextmanager
async def mqtt_site(world: RelayWorld, broker: Mosquitto) -> AsyncIterator[MqttSite]:
    async with running(ChaosProxy(broker.port)) as proxy:
        bridge = MqttBridge(world.relay, bridge_settings(broker, proxy.port))
        await bridge.start()
        await eventually(lambda: len(bridge.buckets) == 16)
        async with served(Starlette(routes=endpoints(world.relay, mqtt=bridge))) as (url, _):
            yield MqttSite(url, broker, proxy, bridge)
            await bridge.close()
            await world.relay.close()
