"""The relay connected to the servers of others, over which some transports go.

Owns: which of them a transport's name needs.
Does not know about: who travels over them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos_roads import MQTT
from tests.contract.mqtt_site import bridge_settings
from tests.contract.relay_world import RelayWorld, eventually, within
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET, Prosody
from transport_adapters.server.mqtt_accounts import BUCKETS
from transport_adapters.server.mqtt_bridge import MqttBridge
from transport_adapters.server.xmpp import XmppComponent, XmppSettings

Brokers = tuple[Mosquitto, Prosody] | None


@asynccontextmanager
async def joined(name: str, brokers: Brokers, world: RelayWorld) -> AsyncIterator[tuple[MqttBridge | None, int | None]]:
    """Connect the relay to the transport's broker; return the bridge to MQTT, and the broker's port for clients."""
    if brokers is None:
        yield None, None
    elif name == MQTT:
        bridge = MqttBridge(world.relay, bridge_settings(brokers[0], brokers[0].port))
        await bridge.start()
        await eventually(lambda: len(bridge.buckets) == BUCKETS)
        yield bridge, brokers[0].port
        await bridge.close()
    else:
        settings = XmppSettings(COMPONENT, SECRET, frozenset({DOMAIN}), port=brokers[1].component_port)
        component = XmppComponent(world.relay, settings)
        component.start()
        await within(component.online.wait())
        yield None, brokers[1].port
        await component.close()
