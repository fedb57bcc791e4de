"""XMPP keeps the contract of all transports, over a real Prosody; and the heart of it over ejabberd."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos_proxy import ChaosProxy, running
from tests.contract.relay_world import PATIENT, RelayWorld, relay_world, within
from tests.contract.transport_contract import Carrier, Scene, TransportContract
from tests.servers.ejabberd import Ejabberd
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


@pytest.fixture(scope="module")
def ejabberd() -> Iterator[Ejabberd]:
    with Ejabberd({"phone": PASSWORD}) as server:
        yield server


async def password() -> str:
    return PASSWORD


class XmppCarrier:
    def __init__(self, proxy: ChaosProxy) -> None:
        self._proxy = proxy

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        reached = XmppOptions(COMPONENT, "127.0.0.1", self._proxy.port, link=options)
        return XmppTransport(f"phone@{DOMAIN}", password, token=token, cursor=cursor, options=reached)

    async def drop(self) -> None:
        self._proxy.reset()


@asynccontextmanager
async def carried(server: Prosody | Ejabberd, world: RelayWorld) -> AsyncIterator[Carrier]:
    settings = XmppSettings(COMPONENT, SECRET, frozenset({DOMAIN}), port=server.component_port, first_retry=0.01)
    component = XmppComponent(world.relay, settings)
    component.start()
    await within(component.online.wait())
    async with running(ChaosProxy(server.port)) as proxy:
        yield XmppCarrier(proxy)
        await world.relay.close()
    await component.close()


class TestXmppTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, prosody: Prosody) -> None:
        self.prosody = prosody

    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        return carried(self.prosody, world)


@pytest.mark.parametrize(
    "promise",
    [
        TransportContract.test_the_largest_envelope_passes,
        TransportContract.test_many_sends_at_once_keep_their_order,
        TransportContract.test_acked_envelopes_are_gone_and_others_come_again_after_a_reconnect,
        TransportContract.test_a_send_cut_off_before_its_answer_says_so_and_its_retry_is_stored_once,
        TransportContract.test_a_revoked_device_is_cut_for_good,
        TransportContract.test_presence_and_typing_are_carried_and_presence_is_said_again_after_a_break,
    ],
    ids=lambda promise: promise.__name__,
)
async def test_what_depends_on_the_xmpp_server_holds_over_ejabberd(
    tmp_path: Path, ejabberd: Ejabberd, promise: Callable[[TransportContract, Scene], Awaitable[None]]
) -> None:
    async with relay_world(tmp_path, PATIENT) as world, carried(ejabberd, world) as carrier:
        scene = Scene(world, carrier)
        await promise(TransportContract(), scene)
        for peer in scene.peers:
            await peer.close()
