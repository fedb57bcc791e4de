"""XMPP with people who should not: other users, forged stanzas, no TLS, a wrong secret; and with deaths.

Over Prosody; what depends on what the XMPP server does, over ejabberd, too.
"""

import asyncio
import base64
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress
from tests.certificates import make_certificate
from tests.chaos_proxy import Admission, ChaosProxy, running
from tests.client_world import client_world
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    Peer,
    RelayWorld,
    eventually,
    relay_world,
    within,
)
from tests.servers.ejabberd import Ejabberd
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET, Prosody
from transport_adapters.base import Accepted, Outgoing, TransportUnavailableError
from transport_adapters.codes import CloseCode
from transport_adapters.frames import Deliver, Hello, InstanceId, Ping, Welcome
from transport_adapters.server.xmpp import XmppComponent, XmppSettings
from transport_adapters.xmpp import XmppOptions, XmppTransport, xmpp_transport
from transport_adapters.xmpp_stanzas import NAMESPACE, frame_stanza

PASSWORD = "a password"
PATIENT_LINK = replace(EAGER_LINK, silence_timeout=30.0)
THE_END = "the stream has ended"
CANARY = b"the canary of this test, which nobody may store"
PLANTED = "the canary that an XMPP server does store"


XmppServer = Prosody | Ejabberd


async def password() -> str:
    return PASSWORD


@pytest.fixture(scope="module")
def prosody() -> Iterator[Prosody]:
    with Prosody() as server:
        for user in ("phone", "mallory"):
            server.register(user, PASSWORD)
        yield server


@pytest.fixture(scope="module")
def ejabberd() -> Iterator[Ejabberd]:
    with Ejabberd(dict.fromkeys(("phone", "mallory"), PASSWORD)) as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> XmppServer:
    """Prosody, unless a test is `over_each`."""
    chosen: XmppServer = request.getfixturevalue(getattr(request, "param", "prosody"))
    return chosen


over_each = pytest.mark.parametrize("server", ["prosody", "ejabberd"], indirect=True)


def settings_of(server: XmppServer, secret: str = SECRET) -> XmppSettings:
    return XmppSettings(
        COMPONENT, secret, frozenset({DOMAIN}), port=server.component_port, first_retry=0.01, longest_retry=0.1
    )


@dataclass
class Scene:
    world: RelayWorld
    server: XmppServer
    alice: DeviceAddress
    bob: DeviceAddress
    peers: list[Peer]
    component: XmppComponent

    def peer(self, owner: DeviceAddress, options: XmppOptions | None = None) -> Peer:
        async def token() -> str:
            return self.world.tokens.issue(owner)

        cell = CursorCell()
        reached = options or XmppOptions(COMPONENT, "127.0.0.1", self.server.port, link=PATIENT_LINK)
        self.peers.append(
            Peer(XmppTransport(f"phone@{DOMAIN}", password, token=token, cursor=cell, options=reached), cell)
        )
        return self.peers[-1]


@asynccontextmanager
async def scene_on(tmp_path: Path, server: XmppServer) -> AsyncIterator[Scene]:
    async with relay_world(tmp_path) as world, serving(world, settings_of(server)) as component:
        scene = Scene(world, server, await world.device("alice"), await world.device("bob"), [], component)
        yield scene
        for peer in scene.peers:
            await peer.close()
        await world.relay.close()


@asynccontextmanager
async def serving(world: RelayWorld, settings: XmppSettings) -> AsyncIterator[XmppComponent]:
    component = XmppComponent(world.relay, settings)
    component.start()
    await within(component.online.wait())
    yield component
    await component.close()


@pytest.fixture
async def scene(tmp_path: Path, server: XmppServer) -> AsyncIterator[Scene]:
    async with scene_on(tmp_path, server) as made:
        yield made


class Stranger(ClientXMPP):
    """Another user of the XMPP server, who says what he likes."""

    def __init__(self, server: XmppServer) -> None:
        plain = {"feature_mechanisms": {"unencrypted_scram": True}}
        super().__init__(f"mallory@{DOMAIN}/m", PASSWORD, plugin_config=plain)
        self.enable_direct_tls = self.enable_starttls = False
        self.enable_plaintext = True
        self.started = asyncio.Event()
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.add_event_handler("session_start", lambda _event: self.started.set())
        self.add_event_handler("disconnected", lambda _reason: self.heard.put_nowait(THE_END))
        every = MatchXPath("{jabber:client}message")
        self.register_handler(Callback("every", every, lambda message: self.heard.put_nowait(str(message))))
        self._port = server.port

    async def online(self) -> None:
        self.connect("127.0.0.1", self._port)
        await within(self.started.wait())

    async def next(self) -> str:
        return await within(self.heard.get())


@asynccontextmanager
async def stranger(server: XmppServer) -> AsyncIterator[Stranger]:
    made = Stranger(server)
    await made.online()
    yield made
    await made.disconnect(wait=1.0)
    made.abort()


# --- who may speak ----------------------------------------------------------------------------------------------


HELLO = Hello("stolen", InstanceId(bytes(16)), 1, 0, 0, 64, 1 << 18)
ACK = f"<message to='{COMPONENT}'><frame xmlns='{NAMESPACE}'>[\"ack\",{{}}]</frame></message>"


@over_each
async def test_a_stanza_in_another_users_name_is_its_real_senders(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as known:
        known.setattr("transport_adapters.xmpp.secrets.token_hex", lambda _length: "known")
        bob = scene.peer(scene.bob)
        await bob.online()
    async with stranger(scene.server) as mallory:
        mallory.send_raw(frame_stanza(COMPONENT, HELLO, by=f"phone@{DOMAIN}/known"))
        # Taken for bob's it would be a second hello, of which he would hear. ejabberd ends the forger's stream.
        said = await mallory.next()
        assert "token_invalid" in said or said == THE_END
    assert scene.world.relay.is_live(scene.bob)


async def test_who_has_not_said_hello_is_told_that_there_is_no_connection(scene: Scene) -> None:
    async with stranger(scene.server) as mallory:
        mallory.send_raw(ACK)
        assert "<end " in await mallory.next()


async def test_a_token_that_proves_nothing_ends_the_connection(scene: Scene) -> None:
    async with stranger(scene.server) as mallory:
        mallory.send_raw(frame_stanza(COMPONENT, HELLO))
        assert "token_invalid" in await mallory.next()
        assert "<end " in await mallory.next()
        mallory.send_raw(ACK)
        assert "<end " in await mallory.next()


@over_each
async def test_nobody_but_the_component_speaks_to_a_device_for_the_relay(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as known:
        known.setattr("transport_adapters.xmpp.secrets.token_hex", lambda _length: "known")
        bob = scene.peer(scene.bob)
        await bob.online()
    jid = f"phone@{DOMAIN}/known"
    async with stranger(scene.server) as mallory:
        for child in ("<end xmlns='{}'/>", "<frame xmlns='{}'>[1]</frame>"):
            mallory.send_raw(f"<message to='{jid}' type='headline'>{child.format(NAMESPACE)}</message>")
        mallory.send_raw(f"<message to='mallory@{DOMAIN}/m' type='headline'><body>after those</body></message>")
        await mallory.next()
    alice = scene.peer(scene.alice)
    await alice.online()
    await alice.transport.send(scene.world.outgoing(scene.alice, scene.bob))
    await bob.next()
    assert bob.connected.empty()  # still the first connection


async def test_a_user_of_another_domain_is_refused(tmp_path: Path, prosody: Prosody) -> None:
    async with relay_world(tmp_path) as world:
        settings = settings_of(prosody)._replace(domains=frozenset({"another.example"}))
        async with serving(world, settings), stranger(prosody) as mallory:
            mallory.send_raw(frame_stanza(COMPONENT, HELLO))
            assert "<end " in await mallory.next()


async def test_a_component_with_a_wrong_secret_serves_nobody_and_says_so(
    tmp_path: Path, prosody: Prosody, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay_world(tmp_path) as world:
        component = XmppComponent(world.relay, settings_of(prosody, "not the secret"))
        component.start()
        await eventually(lambda: "No XMPP server takes the component" in caplog.text)
        assert not component.online.is_set()
        assert "not the secret" not in caplog.text
        await component.close()
    assert SECRET not in repr(settings_of(prosody))


# --- stanzas that hurt others -----------------------------------------------------------------------------------


DEEP = "<a>" * 3000 + "</a>" * 3000
HURTFUL = [
    f"<iq to='{COMPONENT}' type='get' id='1'><q xmlns='of:nobody'>{DEEP}</q></iq>",
    f"<iq to='{COMPONENT}' type='result' id='1'><q xmlns='of:nobody'>{DEEP}</q></iq>",
    f"<message to='{COMPONENT}'><frame xmlns='{NAMESPACE}'>{DEEP}</frame></message>",
    f"<message to='{COMPONENT}'><frame xmlns='{NAMESPACE}'>{'[' * 100_000}</frame><end xmlns='{NAMESPACE}'/></message>",
    f"<message to='{COMPONENT}' type='error'><frame xmlns='{NAMESPACE}'/><end xmlns='{NAMESPACE}'/></message>",
    f"<presence to='{COMPONENT}'>{DEEP}</presence>",
    f"<presence to='{COMPONENT}' type='subscribe'/><presence to='{COMPONENT}' type='probe'/>",
]


def hurtful_to(jid: str) -> list[str]:
    return [
        f"<iq to='{jid}' type='get' id='1'><q xmlns='of:nobody'>{DEEP}</q></iq>",
        f"<iq to='{jid}' type='result' id='1'><q xmlns='of:nobody'>{DEEP}</q></iq>",
        f"<iq to='{jid}' type='error' id='1'>{DEEP}</iq>",
        f"<message to='{jid}' type='headline'><frame xmlns='{NAMESPACE}'>{DEEP}</frame></message>",
        f"<presence to='{jid}'>{DEEP}</presence>",
        f"<presence to='{jid}' type='subscribe'/><presence to='{jid}' type='probe'/>",
    ]


@over_each
async def test_no_stanza_of_another_user_ends_a_devices_stream(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as known:
        known.setattr("transport_adapters.xmpp.secrets.token_hex", lambda _length: "known")
        bob = scene.peer(scene.bob)
        await bob.online()
    jid = f"phone@{DOMAIN}/known"
    async with stranger(scene.server) as mallory:
        for stanza in hurtful_to(jid):
            mallory.send_raw(stanza)
        asked = mallory.make_iq_get("of:nobody", ito=jid)
        with pytest.raises(IqError) as refusal:
            await within(asked.send())  # type: ignore[no-untyped-call]  # slixmpp's types are incomplete
        assert refusal.value.condition == "service-unavailable"
    alice = scene.peer(scene.alice)
    await alice.online()
    await alice.transport.send(scene.world.outgoing(scene.alice, scene.bob))
    await bob.next()
    assert bob.connected.empty()  # still the first connection


@pytest.mark.parametrize("stanza", HURTFUL, ids=range(len(HURTFUL)))
async def test_no_stanza_of_one_user_ends_the_stream_of_all(scene: Scene, stanza: str) -> None:
    bob = scene.peer(scene.bob)
    await bob.online()
    async with stranger(scene.server) as mallory:
        mallory.send_raw(stanza)
        mallory.send_raw(ACK)
        while "<end " not in await mallory.next():
            pass
    assert scene.world.relay.is_live(scene.bob)
    assert bob.connected.empty()  # still the first connection


async def test_a_question_to_the_component_is_answered(scene: Scene) -> None:
    async with stranger(scene.server) as mallory:
        asked = mallory.make_iq_get("of:nobody", ito=COMPONENT)
        asked["id"] = "<'&\">"
        with pytest.raises(IqError) as refusal:
            await within(asked.send())  # type: ignore[no-untyped-call]  # slixmpp's types are incomplete
        assert refusal.value.condition == "service-unavailable"


async def test_who_sends_presence_is_not_kept(scene: Scene) -> None:
    async with stranger(scene.server) as mallory:
        mallory.send_raw(f"<presence to='{COMPONENT}'/><presence to='{COMPONENT}' type='subscribe'/>{ACK}")
        await mallory.next()
        stream = scene.component._stream
        assert stream is not None
        kept = {jid for owner in list(stream.roster) for jid in list(stream.roster[owner])}
        assert f"mallory@{DOMAIN}" not in kept


async def test_an_account_has_a_bound_of_connections(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport_adapters.server.xmpp.MAX_PER_ACCOUNT", 1)
    await scene.peer(scene.bob).online()  # the account is alice's, too
    alice = scene.peer(scene.alice)
    async with stranger(scene.server) as mallory:
        mallory.send_raw(frame_stanza(COMPONENT, HELLO))
        assert "token_invalid" in await mallory.next()  # another account has its own
    assert alice.connected.empty()
    assert not scene.world.relay.is_live(scene.alice)


async def test_an_end_that_comes_late_harms_no_newer_connection_of_the_same_address(scene: Scene) -> None:
    stream = scene.component._stream
    assert stream is not None
    hello = replace(HELLO, token=scene.world.tokens.issue(scene.bob))
    async with stranger(scene.server) as client:
        client.send_raw(frame_stanza(COMPONENT, hello))
        assert Welcome.EVENT in await client.next()
        (old,) = [line.channel for line in stream._lines.values()]
        client.send_raw(f"<presence to='{COMPONENT}' type='unavailable'/>")
        client.send_raw(frame_stanza(COMPONENT, replace(hello, connection=2)))
        assert Welcome.EVENT in await client.next()
        await old.close(CloseCode.DRAINING)
        with pytest.raises(OSError, match="gone"):
            await old.send(Ping())
        assert scene.world.relay.is_live(scene.bob)
        alice = scene.peer(scene.alice)
        await alice.online()
        await alice.transport.send(scene.world.outgoing(scene.alice, scene.bob))
        assert Deliver.EVENT in await client.next()  # and no end before it


# --- TLS --------------------------------------------------------------------------------------------------------


async def test_without_tls_no_password_goes_out_but_to_this_machine(scene: Scene) -> None:
    # The server offers no TLS; the client would take it for another machine, as it has certificates to check.
    context = ssl.create_default_context()
    options = XmppOptions(COMPONENT, "127.0.0.1", scene.server.port, tls=context, link=PATIENT_LINK)
    asked = []

    async def secret() -> str:
        asked.append(1)
        return PASSWORD

    cell = CursorCell()
    transport = XmppTransport(f"phone@{DOMAIN}", secret, token=secret, cursor=cell, options=options)
    peer = Peer(transport, cell)
    await eventually(lambda: len(asked) >= 5)  # a token and a password each time, and no connection
    with pytest.raises(TransportUnavailableError):
        await transport.send(scene.world.outgoing(scene.alice, scene.bob))
    assert not scene.world.relay.is_live(scene.bob)
    await peer.close()


async def test_over_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    certificate, key, _ = make_certificate(tmp_path)
    with Prosody(certificate, key) as prosody:
        prosody.register("phone", PASSWORD)
        async with scene_on(tmp_path, prosody) as scene:
            trusting = ssl.create_default_context(cafile=certificate)
            reached = XmppOptions(COMPONENT, "127.0.0.1", prosody.port, tls=trusting, link=PATIENT_LINK)
            await scene.peer(scene.bob, reached).online()
            strict = replace(reached, tls=ssl.create_default_context())
            alice = scene.peer(scene.alice, strict)
            again = scene.peer(scene.bob, reached)
            await again.online()
            assert alice.connected.empty()


# --- deaths -----------------------------------------------------------------------------------------------------


@over_each
async def test_the_end_of_a_clients_stream_is_known_at_once(scene: Scene) -> None:
    # The relay's heartbeat would take 40 seconds; the XMPP server says so, because the client sent presence.
    async with running(ChaosProxy(scene.server.port)) as proxy:
        reached = XmppOptions(COMPONENT, "127.0.0.1", proxy.port, link=PATIENT_LINK)
        await scene.peer(scene.bob, reached).online()
        proxy.admission = Admission.REFUSED
        proxy.reset()
        await eventually(lambda: not scene.world.relay.is_live(scene.bob))


@over_each
async def test_a_killed_xmpp_server_and_a_killed_component_lose_and_double_nothing(
    tmp_path: Path, server: XmppServer
) -> None:
    quick = replace(EAGER_LINK, silence_timeout=1.0, connect_timeout=2.0, hello_timeout=2.0, answer_timeout=2.0)
    bodies = [f"{number}".encode() for number in range(60)]
    async with relay_world(tmp_path, replace(PATIENT, ping_interval=0.2)) as world:
        reached = XmppOptions(COMPONENT, "127.0.0.1", server.port, link=quick)
        async with serving(world, settings_of(server)) as component:
            scene = Scene(world, server, await world.device("alice"), await world.device("bob"), [], component)
            alice, bob = scene.peer(scene.alice, reached), scene.peer(scene.bob, reached)
            got: dict[bytes, int] = {}
            taking = asyncio.create_task(take_all(bob, got, len(bodies)))
            for number, body in enumerate(bodies):
                if number == 20:
                    server.kill()
                    server.start()  # by this thread: it dies with the one that started it
                if number == 40:
                    component.abort()
                await send(alice, world.outgoing(scene.alice, scene.bob, body))
            await within(taking, 60)
            assert sorted(got) == sorted(bodies)
            for peer in scene.peers:
                await peer.close()
            scene.peers.clear()


async def send(peer: Peer, outgoing: Outgoing) -> None:
    """Send until it is accepted, as a client's outbox does."""
    async with asyncio.timeout(60):
        while True:
            try:
                assert isinstance(await peer.transport.send(outgoing), Accepted)
            except TransportUnavailableError:
                await asyncio.sleep(0.02)
            else:
                return


async def take_all(peer: Peer, got: dict[bytes, int], count: int) -> None:
    """Take and acknowledge until so many different ones have come."""
    while len(got) < count:
        delivery = await peer.deliveries.get()
        assert delivery.envelope is not None
        body = Envelope.decode(delivery.envelope).body
        got[body] = got.get(body, 0) + 1
        await peer.ack(delivery)


# --- what stays behind ------------------------------------------------------------------------------------------


@over_each
async def test_neither_storage_nor_logs_of_the_xmpp_server_hold_an_envelope(tmp_path: Path, server: XmppServer) -> None:
    async with scene_on(tmp_path, server) as scene:
        alice, bob = scene.peer(scene.alice), scene.peer(scene.bob)
        await alice.online()
        await bob.online()
        await alice.transport.send(scene.world.outgoing(scene.alice, scene.bob, CANARY))
        await bob.next()
        await bob.close()  # and what comes now finds nobody
        await alice.transport.send(scene.world.outgoing(scene.alice, scene.bob, CANARY))
        async with stranger(server) as mallory:  # the canary is found where it is: an ordinary message, stored
            mallory.send_raw(f"<message to='phone@{DOMAIN}' type='chat'><body>{PLANTED}</body></message>")
            mallory.send_raw(f"<message to='mallory@{DOMAIN}/m'><body>after it</body></message>")
            await mallory.next()
    server.signal(signal.SIGTERM)  # so that it writes what it has
    kept = b"".join(file.read_bytes() for file in server.directory.rglob("*") if file.is_file())
    server.start()
    assert PLANTED.encode() in kept
    assert CANARY not in kept
    encoded = [base64.urlsafe_b64encode(bytes(shift) + CANARY)[8:-8] for shift in range(3)]
    assert not [each for each in encoded if each in kept]
    assert b"secret-token" not in kept


async def test_the_device_token_is_not_printed_by_the_clients_library(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="slixmpp.xmlstream.xmlstream"):
        bob = scene.peer(scene.bob)
        await bob.online()
    sent = [record.getMessage() for record in caplog.records if record.getMessage().startswith("SEND")]
    assert sent
    assert not any("secret-token" in each for each in sent)


# --- the whole server -------------------------------------------------------------------------------------------


async def test_two_people_talk_over_an_xmpp_server_that_a_key_server_is_a_component_of(
    tmp_path: Path, prosody: Prosody
) -> None:
    component: dict[str, Any] = {"xmpp_component": COMPONENT, "xmpp_secret": SECRET, "xmpp_domains": {DOMAIN}}
    async with client_world(tmp_path, **component, xmpp_port=prosody.component_port) as chat:
        reached = XmppOptions(COMPONENT, "127.0.0.1", prosody.port, link=PATIENT_LINK)
        over_xmpp = xmpp_transport(f"phone@{DOMAIN}", password, reached)
        alice, bob = await chat.talking(transport=over_xmpp)
        await alice.client.send("bob", "over XMPP")
        assert await bob.read() == ["over XMPP"]
