"""What the reference pages hold.

Owns: which modules, which names of them, in which order.
Does not know about: how they are rendered (reference.py).
"""

from typing import Final, NamedTuple


class Selection(NamedTuple):
    """A module, and what an application sees of it: the names given, or all public ones."""

    module: str
    names: str = ""
    omit: str = ""
    """Names, also of methods, that are for the inside, or that repeat what an interface says."""


class Page(NamedTuple):
    """One page."""

    file: str
    title: str
    introduction: str
    selections: tuple[Selection, ...]


_OF_THE_INTERFACE: Final = "send receive ack signal aclose"
_OF_UVICORN: Final = "connection_made pause_writing resume_writing receive on_task_complete"

PAGES: Final = (
    Page(
        "e2ee.md",
        "e2ee",
        "The library in client programs: no network, no event loop. [`Messenger`](#messenger) is the way in; a caller "
        "hands in what it says it lacks.",
        (
            Selection("e2ee.messenger"),
            Selection("e2ee.registration", "Registration"),
            Selection("e2ee.outbox", "Outbox"),
            Selection("e2ee.delivery", "Delivery"),
            Selection("e2ee.own_devices", "OwnDevices"),
            Selection("e2ee.contact_book", "ContactBook AccountKeyChange"),
            Selection("e2ee.account_reset", "AccountResets AccountReset"),
            Selection("e2ee.backup", "Backup Merged"),
            Selection("e2ee.reception", "DeliveryPosition Outcome Reception"),
            Selection("e2ee.status", "Status"),
            Selection("e2ee.sending", "Draft Queued"),
            Selection("e2ee.prekey_supply", "ServerCounts PreKeyPublication"),
            Selection("e2ee.history_book", "HistoryBook"),
            Selection("e2ee.history", "Conversation"),
            Selection("e2ee.stores.history_records", "HistoryEntry EntryState FOREVER"),
            Selection("e2ee.stores.message_records", "OutboxEntry InboundMessage"),
            Selection("e2ee.stores.records", "Contact"),
            Selection(
                "e2ee.account",
                "Account",
                omit="generate first_device_list signed_prekey one_time_prekey kem_prekey",
            ),
            Selection("e2ee.pqxdh", "Party"),
            Selection("e2ee.safety_number"),
            Selection("e2ee.errors"),
            Selection("e2ee.ports"),
            Selection("e2ee.stores.rules"),
            Selection("e2ee.stores.memory", "MemoryStore", omit="begin end"),
            Selection("e2ee.stores.sqlite", "SqliteStore"),
            Selection("e2ee.wire.identifiers", omit="decode_ascii decode encode"),
            Selection("e2ee.wire.envelope"),
            Selection("e2ee.wire.content"),
            Selection("e2ee.wire.call_signal"),
            Selection("e2ee.wire.sync"),
            Selection("e2ee.wire.device_list", omit="encode_into"),
            Selection("e2ee.wire.prekey_bundle", omit="prekey_signed_bytes kem_prekey_label"),
            Selection("e2ee.wire.public_keys"),
        ),
    ),
    Page(
        "keyserver.md",
        "keyserver",
        "The server side, inside an application that exists or on its own, and the client of its HTTP interface, which "
        "is described in [keyserver-api.md](../keyserver-api.md).",
        (
            Selection("keyserver.app", omit="MAILBOX_TABLES"),
            Selection("keyserver.settings", "Settings", omit="model_config"),
            Selection("keyserver.host_token", "HostIdentity VerifyHostToken HostJwtVerifier Claims"),
            Selection("keyserver.problems", "Problem UnauthorizedProblem TokenInvalidProblem TokenExpiredProblem"),
            Selection("keyserver.service.policy", "ContactRule everybody nobody"),
            Selection("keyserver.client", "KeyServerClient PreKeyUpload PreKeyCounts Claim"),
            Selection("keyserver.client_http", omit="JsonApi Answer MAX_ANSWER"),
        ),
    ),
    Page(
        "transport_adapters.md",
        "transport_adapters",
        "What carries envelopes. An application uses [`SecureClient`](#secureclient); a server mounts "
        "[`attach`](#attach) and [`guard`](#guard); a new transport is made of [`Link`](#link) and [`Relay`](#relay).",
        (
            Selection("transport_adapters.secure_client.client", "SecureClient"),
            Selection("transport_adapters.secure_client.messages", "Message Received"),
            Selection("transport_adapters.secure_client.history", "History"),
            Selection("transport_adapters.secure_client.devices", "Devices"),
            Selection("transport_adapters.secure_client.contacts", "Contacts"),
            Selection("transport_adapters.secure_client.receipts", "Receipts"),
            Selection("transport_adapters.secure_client.presence", "Presence"),
            Selection("transport_adapters.secure_client.push", "Push"),
            Selection("transport_adapters.secure_client.opening", "TransportFactory socketio_transport"),
            Selection("transport_adapters.secure_client.parts", "TokenProvider TokenProviderError OnEvent Pace"),
            Selection("transport_adapters.secure_client.directory", "UserUnreachableError"),
            Selection("transport_adapters.secure_client.calls", "Call CallStateError"),
            Selection("transport_adapters.secure_client.call_states", "CallState CallEnd"),
            Selection("transport_adapters.events"),
            Selection("transport_adapters.base"),
            Selection("transport_adapters.socketio", "SocketIoOptions SocketIoTransport", omit=_OF_THE_INTERFACE),
            Selection("transport_adapters.memory", "MemoryTransport", omit=_OF_THE_INTERFACE),
            Selection("transport_adapters.server.socketio", "attach"),
            Selection("transport_adapters.server.guard", "guard"),
            Selection("transport_adapters.server.raw_sockets", "AsgiApp"),
            Selection("transport_adapters.server.websocket_protocol", "BoundedWebSocket", omit=_OF_UVICORN),
            Selection("transport_adapters.server.relay"),
            Selection("transport_adapters.server.channel", "Channel"),
            Selection("transport_adapters.server.connection", "Connection"),
            Selection("transport_adapters.server.settings", "MailboxSettings Rate RelaySettings"),
            Selection("transport_adapters.server.ports", omit="T OK"),
            Selection("transport_adapters.link"),
            Selection("transport_adapters.exchange", "TokenSource CursorSource LinkOptions Wire Receiver"),
            # Every frame has both methods, and the module says what they do.
            Selection("transport_adapters.frames", omit="to_fields from_fields"),
            Selection("transport_adapters.codes"),
        ),
    ),
)
