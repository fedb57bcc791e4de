"""Socket.IO packets, judged before the library takes them.

Owns: which packets of a peer are let through, and how many attachments it may announce.
Does not know about: sockets and sessions, what the frames in the packets say.

The library decodes what a peer sends wherever it happens to be: some of it ends a handler half-way and leaves its
session behind, some of it only fills the log. It keeps attachments without bound while it waits for the last one. And
it calls the handlers of `connect`, `disconnect` and `*` for events that a peer names so. No honest client sends any of
this, so the first such packet ends its connection, as the reference server does with what it cannot parse.
"""

import re
from typing import Any, Final, final

from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT, DISCONNECT, EVENT, Packet

MAX_ATTACHMENTS: Final = 64
"""Of one packet in a namespace of the host application; each is bounded by the server's `max_http_buffer_size`."""
OUR_ATTACHMENTS: Final = 1
"""Of one packet in the relay's namespace: no frame has more than one envelope."""
MAX_NAMESPACE: Final = 256
"""Characters. The library answers a namespace that it does not know by its name, whatever its length."""

_ENGINE_PACKET: Final = re.compile(r"[12356]|4[0-9]")
_RESERVED: Final = frozenset({"connect", "disconnect", "*"})


def is_engine_packet(text: str) -> bool:
    """Say whether a WebSocket's text is an Engine.IO packet that a Socket.IO client may send."""
    return _ENGINE_PACKET.match(text) is not None


@final
class PacketGate:
    """Judges the packets of one session, in their order."""

    def __init__(self, namespace: str, packet_class: type[Packet] = Packet) -> None:
        self._namespace = namespace
        self._packet_class = packet_class
        self._missing = 0

    def admits(self, data: object) -> bool:
        """Say whether a packet, or an attachment, may go on to the library. After False the session must end."""
        if self._packet_class.uses_binary_events:  # other serialisers put everything into one binary message
            if isinstance(data, bytes | bytearray):
                self._missing -= 1
                return self._missing >= 0
            if self._missing or not isinstance(data, str):
                return False
        try:
            packet = self._packet_class(encoded_packet=data)
            packet.reconstruct_binary(packet.data, [b""] * min(packet.attachment_count, MAX_ATTACHMENTS))
        except Exception:  # noqa: BLE001 - of many kinds, among them RecursionError: the library checks nothing
            return False
        self._missing = packet.attachment_count
        return self._is_packet(packet)

    def _is_packet(self, packet: Any) -> bool:
        is_ours = packet.namespace == self._namespace
        is_binary = packet.packet_type in (BINARY_EVENT, BINARY_ACK)
        most = OUR_ATTACHMENTS if is_ours else MAX_ATTACHMENTS
        if (packet.attachment_count > 0) is not is_binary or packet.attachment_count > most:
            return False
        if len(packet.namespace or "") > MAX_NAMESPACE:
            return False
        if packet.packet_type in (EVENT, BINARY_EVENT):
            return _is_event(packet.data, is_ours)
        if packet.packet_type in (ACK, BINARY_ACK):
            return isinstance(packet.data, list)
        return packet.packet_type in (CONNECT, DISCONNECT)


def _is_event(data: object, is_ours: bool) -> bool:
    if not isinstance(data, list) or not data or not isinstance(data[0], str | int):  # some clients number theirs
        return False
    return not is_ours or data[0] not in _RESERVED
