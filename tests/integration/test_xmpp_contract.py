"""XMPP keeps the contract of all transports, over a real Prosody."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.chaos_proxy import ChaosProxy, running
from tests.contract.relay_world import RelayWorld, within
from tests.contract.transport_contract import Carrier, TransportContract
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET, Prosody
from transport_adapters.base import EnvelopeTransport
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.server.xmpp import XmppComponent, XmppSettings
from transport_adapters.xmpp import XmppOptions, XmppTransport

PASSWORD = "a password"


@pytest.fixture(scope="module")
def prosody() -> Iterator[Prosody]:
    with Prosody() as server:
        server.register("phone", PASSWORD)
        yield server


async def password() -> str:
    return PASSWORD


def component_of(prosody: Prosody, world: RelayWorld) -> XmppComponent:
    settings = XmppSettings(COMPONENT, SECRET, frozenset({DOMAIN}), port=prosody.component_port, first_retry=0.01)
    return XmppComponent(world.relay, settings)


class XmppCarrier:
    def __init__(self, proxy: ChaosProxy) -> None:
        self._proxy = proxy

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        reached = XmppOptions(COMPONENT, "127.0.0.1", self._proxy.port, link=options)
        return XmppTransport(f"phone@{DOMAIN}", password, token=token, cursor=cursor, options=reached)

    async def drop(self) -> None:
        self._proxy.reset()


class TestXmppTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, prosody: Prosody) -> None:
        self.prosody = prosody

    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            component = component_of(self.prosody, world)
            component.start()
            await within(component.online.wait())
            async with running(ChaosProxy(self.prosody.port)) as proxy:
                yield XmppCarrier(proxy)
                await world.relay.close()
            await component.close()

        return carried()
