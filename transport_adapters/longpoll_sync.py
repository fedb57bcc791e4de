"""Long-polling for programs without asyncio: one connection, one call at a time.

Owns: the requests of a connection, in the thread that calls.
Does not know about: reconnecting, which is a new object; stores and threads.

    relay = LongPoll("https://chat.example", token=device_token)
    relay.hello(Cursor(*messenger.delivery.cursor()))
    while True:
        for delivery in relay.deliveries(wait=15):
            messenger.receive(delivery.envelope, DeliveryPosition(delivery.epoch, delivery.seq))
            relay.ack(delivery.epoch, [SeqRange(delivery.seq, delivery.seq)])

Not safe to share between threads. Any error but `ValueError` means that the connection is over: make a new one.
"""

import json
import secrets
import ssl
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, final

from e2ee.errors import E2EEError, MalformedMessageError
from e2ee.wire.identifiers import EnvelopeId
from transport_adapters.base import (
    Accepted,
    Connected,
    Cursor,
    Delivery,
    Outgoing,
    SendResult,
    SeqRange,
    TransportRefusedError,
    TransportUnavailableError,
)
from transport_adapters.codes import ErrorCode
from transport_adapters.fields import MAX_ACK_RANGES
from transport_adapters.frames import (
    Ack,
    ClientFrame,
    Credit,
    Deliver,
    Error,
    Hello,
    InstanceId,
    Refresh,
    Send,
    Sent,
    ServerFrame,
    Welcome,
    parse_server_frame,
)
from transport_adapters.link import require_secure
from transport_adapters.received import connected, delivered, refused
from transport_adapters.text import encode_frame, from_pair, load_json

try:
    import httpx
except ImportError as missing:
    raise ImportError("HTTP transports need httpx: install 'e2ee-layer[client]'") from missing

CREDIT: Final = 64
CREDIT_BYTES: Final = 256 * 1024
_TIMEOUT: Final = 40.0
_MAX_REPLY: Final = 512 * 1024
_HOLD: Final = 15.0


@final
class LongPoll:
    """One connection to a relay. `token` is a device token; a fresh one is handed in with `refresh`.

    Raises:
        InsecureUrlError: a plaintext URL to a host that is not loopback.
        ValueError: not a URL.
    """

    def __init__(self, url: str, *, token: str, prefix: str = "/e2ee", tls: ssl.SSLContext | None = None) -> None:
        require_secure(url)
        self._base = url.rstrip("/") + prefix
        self._client = httpx.Client(verify=tls or ssl.create_default_context(), timeout=_TIMEOUT, trust_env=False)
        self._token = token
        self._connection = ""
        self._deliveries: deque[Delivery] = deque()
        self._answers: dict[EnvelopeId, SendResult] = {}
        self._welcome: Connected | None = None
        self.token_expired = False
        """The relay asks for a fresh token; it waits 25 seconds for `refresh`."""

    def hello(self, cursor: Cursor, instance: InstanceId | None = None, number: int = 1) -> Connected:
        """Open the connection. A program that reconnects keeps its instance, and counts its connections.

        Raises:
            TransportRefusedError: the relay refused for good.
            TransportUnavailableError: it did not answer, or refused for now.
        """
        instance = instance or InstanceId(secrets.token_bytes(InstanceId.LENGTH))
        hello = Hello(self._token, instance, number, cursor.epoch, cursor.watermark, CREDIT, CREDIT_BYTES)
        self._post("/poll", [hello], _HOLD)
        while self._welcome is None:
            self._post("/poll", [], _HOLD)
        return self._welcome

    def deliveries(self, wait: float = _HOLD) -> list[Delivery]:
        """Return what has arrived; if nothing has, wait for it, 0 to 15 seconds.

        Raises:
            TransportRefusedError, TransportUnavailableError: see `hello`.
        """
        if not self._deliveries:
            self._post("/poll", [], wait)
        taken = list(self._deliveries)
        self._deliveries.clear()
        if taken:
            # Asked for: so the relay may send as much again.
            self._post("/frames", [Credit(len(taken), sum(len(each.envelope or b"") for each in taken))])
        return taken

    def send(self, outgoing: Outgoing) -> SendResult:
        """Hand one envelope to the relay and wait for its answer.

        Raises:
            TransportRefusedError, TransportUnavailableError: see `hello`. The envelope may have been stored: send the
                same bytes again on the next connection.
        """
        send = Send(outgoing.counter, outgoing.recipient_list, outgoing.sender_list, outgoing.envelope)
        self._post("/frames", [send])
        while outgoing.envelope_id not in self._answers:
            self._post("/poll", [], _HOLD)
        return self._answers.pop(outgoing.envelope_id)

    def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        """Tell the relay what is committed: ascending, disjoint ranges.

        Raises:
            TransportRefusedError, TransportUnavailableError: see `hello`.
        """
        for at in range(0, len(ranges), MAX_ACK_RANGES):
            self._post("/frames", [Ack(epoch, tuple(ranges[at : at + MAX_ACK_RANGES]))])

    def refresh(self, token: str) -> None:
        """Hand in a fresh device token.

        Raises:
            TransportRefusedError, TransportUnavailableError: see `hello`.
        """
        self._post("/frames", [Refresh(token)])
        self._token, self.token_expired = token, False

    def close(self) -> None:
        """End the connection. Idempotent; never raises."""
        try:
            if self._connection:
                headers = self._headers()
                self._client.request("DELETE", self._base + "/frames", headers=headers, timeout=2.0)
        except (httpx.HTTPError, RuntimeError):
            pass  # the relay finds out by itself
        self._connection = ""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return headers | ({"E2EE-Connection": self._connection} if self._connection else {})

    def _post(self, path: str, frames: Sequence[ClientFrame], wait: float | None = None) -> None:
        waiting = "" if wait is None else f',"wait":{json.dumps(wait)}'
        body = f'{{"frames":[{",".join(map(encode_frame, frames))}]{waiting}}}'
        try:
            with self._client.stream("POST", self._base + path, headers=self._headers(), content=body) as response:
                reply = bytearray()
                for piece in response.iter_raw():
                    reply += piece
                    if len(reply) > _MAX_REPLY:
                        raise TransportUnavailableError("the reply is too large")
        except httpx.HTTPError as error:
            raise TransportUnavailableError(f"the request failed: {type(error).__name__}") from None
        self._take(bytes(reply))
        if response.status_code >= 400:
            raise TransportUnavailableError(f"the server refused the request: {response.status_code}")

    def _take(self, reply: bytes) -> None:
        try:
            value = load_json(reply)
            if not isinstance(value, dict) or not isinstance(frames := value.get("frames"), list):
                raise MalformedMessageError("a reply is an object with frames")
            if isinstance(given := value.get("connection"), str) and given.isalnum():
                self._connection = given
            for pair in frames:
                self._understand(parse_server_frame(*from_pair(pair)))
        except E2EEError as error:
            raise TransportUnavailableError(f"the server does not speak frames: {error.code}") from None

    def _understand(self, frame: ServerFrame) -> None:
        match frame:
            case Welcome():
                self._welcome = connected(frame)
            case Deliver():
                self._deliveries.append(delivered(frame))
            case Sent(envelope_id, duplicate):
                self._answers[envelope_id] = Accepted(envelope_id, duplicate)
            case Error(envelope_id=None, close_code=None):
                self.token_expired = self.token_expired or frame.code is ErrorCode.TOKEN_EXPIRED
            case Error(envelope_id=envelope_id, close_code=None) if envelope_id is not None:
                self._answers[envelope_id] = refused(frame, envelope_id)
            case Error(code=code, close_code=close_code) if close_code is not None and close_code.terminal:
                raise TransportRefusedError(code.value, int(close_code))
            case Error(code=code):
                raise TransportUnavailableError(f"the server ended the connection: {code.value}")
            case _:
                pass  # presence, which this client does not ask for
