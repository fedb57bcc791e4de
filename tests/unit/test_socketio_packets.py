"""The gate before Socket.IO: what it lets through (what it stops: tests/attacks/test_socketio_hostile_packets.py)."""

import json
from typing import Any, ClassVar

import pytest
from socketio.packet import Packet

from transport_adapters.server.packets import MAX_ATTACHMENTS, PacketGate, is_engine_packet


class Serialised(Packet):  # type: ignore[misc]  # the library has no types
    """As with the library's msgpack: one binary message holds everything."""

    uses_binary_events: ClassVar[bool] = False

    def decode(self, encoded_packet: Any) -> int:
        self.packet_type, self.namespace, self.data = json.loads(encoded_packet)
        return 0


@pytest.mark.parametrize(
    "packet",
    ["0", "0/chat,", '0/chat?token=1,{"a":1}', "1", "1/chat,", '2["a"]', '2/chat,17["a",{"b":[1]}]', "2[7]", "317[]"],
)
def test_packets_of_a_hosts_honest_clients_pass(packet: str) -> None:
    assert PacketGate("/e2ee").admits(packet)
    assert is_engine_packet("4" + packet)


def test_a_hosts_packet_may_have_many_attachments_and_the_next_begins_after_the_last() -> None:
    gate = PacketGate("/e2ee")
    for _ in range(2):
        assert gate.admits(f'5{MAX_ATTACHMENTS}-["picture",{{"_placeholder":true,"num":{MAX_ATTACHMENTS - 1}}}]')
        assert all(gate.admits(b"x") for _ in range(MAX_ATTACHMENTS))
    assert gate.admits('2["a"]')


def test_an_event_of_the_host_may_bear_any_name() -> None:
    assert PacketGate("/e2ee").admits('2/chat,["disconnect"]')


def test_a_server_with_another_serialiser_is_judged_by_what_it_decodes() -> None:
    gate = PacketGate("/e2ee", Serialised)
    assert gate.admits(b'[2, "/e2ee", ["hello", {}]]')
    assert gate.admits(b'[2, "/e2ee", ["hello", {}]]')
    assert not gate.admits(b'[2, "/e2ee", ["connect", {}]]')
    assert not gate.admits(b"[")
