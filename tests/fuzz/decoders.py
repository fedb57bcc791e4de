"""Fuzz targets for everything that is read from bytes or text of somebody else, or from a store.

Owns: one target per format. The property: a typed error comes out, or a value whose one encoding is the input.
Does not know about: sessions, who would send such bytes.
"""

import json
from collections.abc import Callable
from typing import Final

from e2ee import persist
from e2ee.errors import CorruptStateError, E2EEError, MalformedMessageError
from e2ee.ports import Table
from e2ee.recovery import ExportFile
from e2ee.stores import message_records, records
from e2ee.stores.memory import MemoryStore
from e2ee.transfer import ExportedMessage, ExportPayload, LinkPayload, decode_messages
from e2ee.wire.codec import Writer, from_base64url, to_base64url
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from e2ee.wire.login_assertion import parse_origin
from e2ee.wire.padding import pad, unpad
from e2ee.wire.public_keys import IdentityKey
from tests.fuzz.script import Script
from tests.properties.strategies import WIRE_TYPES
from transport_adapters.frames import parse_client_frame, parse_server_frame

Target = Callable[[bytes], None]


def canonical(decode: Callable[[bytes], object], encode: Callable[..., bytes]) -> Target:
    """Return the target of a binary format: what is accepted has no second encoding."""

    def target(data: bytes) -> None:
        try:
            value = decode(data)
        except E2EEError:
            return
        assert encode(value) == data

    return target


def text(data: bytes) -> None:
    """Every text form accepts one spelling of a value."""
    for parse, write in _TEXT_FORMS:
        spelling = data.decode(errors="replace")
        try:
            value = parse(spelling)
        except E2EEError:
            continue
        assert write(value) == spelling


_TEXT_FORMS: Final[tuple[tuple[Callable[[str], object], Callable[..., str]], ...]] = (
    (from_base64url, to_base64url),
    (DeviceAddress.parse, str),
    (DeviceId.from_hex, str),
    (IdentityKey.from_hex, str),
    (parse_user_id, str),
    (parse_origin, str),
)


def frames(data: bytes) -> None:
    """A frame is refused as malformed, or its fields are those that came in.

    The input is JSON: [who, event, fields], with `{"hex": "..."}` where a transport would carry bytes.
    """
    try:
        who, event, fields = json.loads(data, object_hook=_bytes_of_hex)
    except (ValueError, TypeError, RecursionError):
        return
    parse = parse_client_frame if who == "client" else parse_server_frame
    try:
        frame = parse(event, fields)
    except MalformedMessageError:
        return
    assert parse(event, frame.to_fields()) == frame
    assert _typed(frame.to_fields()) == _typed(fields)


def _typed(fields: dict[str, object]) -> str:
    """Return the fields as text, in which true, 1 and 1.0 differ; only the one number of seconds may be either."""
    if "retry_after" in fields:
        fields = fields | {"retry_after": float(str(fields["retry_after"]))}
    return json.dumps(fields, sort_keys=True, default=bytes.hex)


def _bytes_of_hex(fields: dict[str, object]) -> object:
    written = fields.get("hex")
    return bytes.fromhex(written) if len(fields) == 1 and isinstance(written, str) else fields


def persisted(decode: Callable[[bytes], object], encode: Callable[..., bytes]) -> Target:
    """Return the target of a layout at rest: an unreadable one is corrupt state, a readable one reads back the same.

    Not canonical: the store authenticates what it returns, so nobody but this program wrote it.
    """

    def target(data: bytes) -> None:
        try:
            value = decode(data)
        except CorruptStateError:
            return
        assert encode(decode(encode(value))) == encode(value)

    return target


def store_rows(data: bytes) -> None:
    """Contacts, own lists, outbox and inbound rows: whatever a store returns is read, or is corrupt state."""
    script = Script(data)
    table = script.pick((Table.CONTACTS, Table.OWN_DEVICE_LISTS, Table.OUTBOX, Table.INBOUND))
    user_id = parse_user_id("bob")
    with MemoryStore().write() as tx:
        tx.put(table, user_id.encode(), script.rest())
        try:
            records.load_contact(tx, user_id)
            if table is Table.OWN_DEVICE_LISTS:
                records.own_device_list(tx)
            message_records.outbox(tx)
            message_records.inbound(tx)
        except CorruptStateError:
            return


def _history(data: bytes) -> tuple[ExportedMessage, ...]:
    return decode_messages(data, parse_user_id("alice"))


def _encoded_history(messages: tuple[ExportedMessage, ...]) -> bytes:
    writer = Writer()
    for message in messages:
        message.encode_into(writer)
    return writer.finish()


DECODERS: Final[dict[str, Target]] = {
    **{wire.name.replace(" ", "_"): canonical(wire.decode, wire.encode) for wire in WIRE_TYPES},
    "padding": canonical(unpad, pad),
    "link_payload": canonical(LinkPayload.decode, LinkPayload.encode),
    "export_payload": canonical(ExportPayload.decode, ExportPayload.encode),
    "export_file": canonical(ExportFile.decode, ExportFile.encode),
    "exported_history": canonical(_history, _encoded_history),
    "text": text,
    "frames": frames,
    "stored_account": persisted(persist.decode_account, persist.encode_account),
    "stored_prekey": persisted(persist.decode_prekey, persist.encode_prekey),
    "stored_session": persisted(persist.decode_session, persist.encode_session),
    "store_rows": store_rows,
}
