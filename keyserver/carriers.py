"""Makes what carries frames as the settings say: the bus between processes, MQTT's bridge, XMPP's component.

Owns: which setting means which of them. Libraries come with extras and are imported where they are wanted.
Does not know about: the key service.
"""

import hmac
import ssl
from typing import TYPE_CHECKING

from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.database import database_url
from keyserver.settings import LOCAL_BUS, POSTGRESQL_BUS, Settings
from transport_adapters.server.bus import Bus, LocalBus
from transport_adapters.server.nodes import NodesBus, Wire, cut_at_nodes
from transport_adapters.server.relay import Relay

if TYPE_CHECKING:
    from transport_adapters.server.mqtt_bridge import MqttBridge
    from transport_adapters.server.xmpp import XmppComponent


def make_bus(settings: Settings) -> Bus:
    """Make the bus that the settings name. The libraries come with the extras `postgres` and `redis`."""
    wire = make_wire(settings)
    return LocalBus() if wire is None else NodesBus(wire)


def make_wire(settings: Settings) -> Wire | None:
    """Make what carries the bus from process to process; None if there is one process."""
    if settings.bus == LOCAL_BUS:
        return None
    channel = settings.own_name("e2ee_bus")
    if settings.bus == POSTGRESQL_BUS:
        from transport_adapters.server.bus_postgresql import PostgreSqlWire

        url = database_url(settings.database).set(drivername="postgresql")
        return PostgreSqlWire(url.render_as_string(hide_password=False), channel)
    from transport_adapters.server.bus_redis import RedisWire

    return RedisWire(settings.bus, channel)


async def cut_everywhere(settings: Settings, target: DeviceAddress | UserId) -> bool:
    """Tell every running node that a device was revoked for good, or all of a user's logins; False without a bus.

    Raises:
        Exception: of the database's or broker's driver; they may not have been told.
    """
    wire = make_wire(settings)
    if wire is None:
        return False
    await cut_at_nodes(wire, target)
    return True


def make_bridge(settings: Settings, relay: Relay) -> "MqttBridge | None":
    """Make the bridge to the broker that the settings name. The library comes with the extra `mqtt`."""
    if settings.mqtt_broker is None or settings.mqtt_password is None:
        return None
    from transport_adapters.server.mqtt_bridge import MqttBridge, MqttSettings

    chosen = MqttSettings(
        settings.mqtt_broker,
        settings.mqtt_user,
        settings.mqtt_password.get_secret_value(),
        settings.mqtt_public_url or settings.mqtt_broker,
        hmac.digest(settings.token_secret.get_secret_value().encode(), b"E2EE/1 mqtt accounts", "sha256"),
        broker_trust(settings),
        is_only=settings.bus == LOCAL_BUS,
    )
    return MqttBridge(relay, chosen)


def broker_trust(settings: Settings) -> ssl.SSLContext | None:
    """Return by what the broker is known; None: by the system's certificate store.

    Raises:
        ValueError: the file of certificates cannot be read.
    """
    if settings.mqtt_ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.mqtt_ca_file))
    except OSError as error:
        raise ValueError(f"E2EE_MQTT_CA_FILE: no certificates can be read: {error.strerror or error}") from None


def make_xmpp(settings: Settings, relay: Relay) -> "XmppComponent | None":
    if settings.xmpp_component is None or settings.xmpp_secret is None:
        return None
    # Imported where it is wanted: it needs an extra.
    from transport_adapters.server.xmpp import XmppComponent, XmppSettings

    secret = settings.xmpp_secret.get_secret_value()
    where = settings.xmpp_host, settings.xmpp_port
    return XmppComponent(relay, XmppSettings(settings.xmpp_component, secret, settings.xmpp_domains, *where))
