"""News between nodes as text: `{"node": hex, "news": [[kind, field, ...], ...]}`, JSON, at most 7,500 bytes.

Owns: these bytes. They are between the nodes of one release, no part of the protocol.
Does not know about: what carries them. PostgreSQL bounds a payload to 8,000 bytes.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from e2ee.errors import MalformedMessageError
from e2ee.wire.identifiers import DeviceAddress, parse_conversation_id, parse_user_id
from transport_adapters.codes import ErrorCode
from transport_adapters.frames import InstanceId
from transport_adapters.server.bus import Admitted, Cut, PresenceChanged, TypingChanged

MAX_PAYLOAD: Final = 7_500
_KINDS: Final = frozenset({"hint", "cut", "admitted", "presence", "typing"})
_MAX_NUMBER: Final = (1 << 63) - 1


class Hint(NamedTuple):
    """A device's mailbox has something new."""

    address: DeviceAddress


News = Hint | Cut | Admitted | PresenceChanged | TypingChanged


def encode_news(news: News) -> str:
    """Return one piece of news as JSON."""
    fields: list[object]
    match news:
        case Hint(address):
            fields = ["hint", str(address)]
        case Cut(target, code):
            fields = ["cut", str(target), isinstance(target, DeviceAddress), code.value]
        case Admitted(address, instance, number, at):
            fields = ["admitted", str(address), str(instance), number, at]
        case PresenceChanged(user_id):
            fields = ["presence", user_id]
        case TypingChanged(sender, recipient, conversation, active):
            fields = ["typing", sender, recipient, conversation, active]
    return json.dumps(fields, separators=(",", ":"))


def payloads(node: str, encoded: Iterable[str]) -> Iterator[str]:
    """Put news together to payloads, as few as will hold them."""
    frame = f'{{"node":"{node}","news":[%s]}}'
    room = MAX_PAYLOAD - len(frame)
    pieces: list[str] = []
    for each in encoded:
        if pieces and sum(map(len, pieces)) + len(pieces) + len(each) > room:
            yield frame % ",".join(pieces)
            pieces = []
        pieces.append(each)
    if pieces:
        yield frame % ",".join(pieces)


def decode_news(payload: str) -> tuple[str, list[News]]:
    """Return the node that spoke, and what it said. News of a kind unknown to this release are left out.

    Raises:
        MalformedMessageError: it is none of ours.
    """
    if len(payload) > MAX_PAYLOAD:
        raise MalformedMessageError("news are too long")
    try:
        whole = json.loads(payload)
        node, several = whole["node"], whole["news"]
        if not isinstance(node, str):
            raise TypeError
        decoded = [_decode(kind, fields) for kind, *fields in several]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MalformedMessageError("news do not decode") from None
    return node, [news for news in decoded if news is not None]


def _decode(kind: str, fields: list[Any]) -> News | None:
    match kind, fields:
        case "hint", [str(address)]:
            return Hint(DeviceAddress.parse(address))
        case "cut", [str(target), bool(is_device), str(code)]:
            return Cut(DeviceAddress.parse(target) if is_device else parse_user_id(target), ErrorCode(code))
        case "admitted", [str(address), str(instance), int(number), int(at)] if max(number, at) <= _MAX_NUMBER:
            return Admitted(DeviceAddress.parse(address), InstanceId.from_hex(instance), number, at)
        case "presence", [str(user_id)]:
            return PresenceChanged(parse_user_id(user_id))
        case "typing", [str(sender), str(recipient), (str() | None) as conversation, bool(active)]:
            name = None if conversation is None else parse_conversation_id(conversation)
            return TypingChanged(parse_user_id(sender), parse_user_id(recipient), name, active)
        case (str(), _) if kind not in _KINDS:
            return None
        case _:
            raise TypeError
