"""Login assertion: a device proves to one server that it holds its signing key (protocol.md section 3.3).

Owns: the signed bytes of an assertion, the form of the origin it is bound to.
Does not know about: the token a server gives for it, how counters are kept.
"""

import re
from dataclasses import dataclass
from typing import Final, final

from e2ee.errors import MalformedMessageError
from e2ee.primitives.verify import verify
from e2ee.wire.codec import Writer
from e2ee.wire.identifiers import DeviceAddress, FixedBytes
from e2ee.wire.public_keys import DeviceSigningKey

LOGIN_ASSERTION_LABEL: Final = b"E2EE/1 login assertion"

MAX_ORIGIN: Final = 512

_ORIGIN: Final = re.compile(r"(https?)://(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@final
class LoginId(FixedBytes):
    """16 random bytes chosen by the server when the host application's login is shown to it."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class LoginAssertion:
    """What a device signs to get a token. `counter` is above every counter that the device used before."""

    origin: str
    address: DeviceAddress
    login_id: LoginId
    counter: int

    def signed_bytes(self) -> bytes:
        """Encode what the device signing key signs.

        | field | bytes |
        |---|---|
        | label `E2EE/1 login assertion` | u8 length, ASCII |
        | origin of the server, `https://host[:port]` | u16 length, ASCII |
        | address | u8 length, user id, device id 16 |
        | login id | 16 |
        | counter | u64 |
        """
        writer = Writer().bytes8(LOGIN_ASSERTION_LABEL).bytes16(self.origin.encode("ascii"))
        return writer.raw(self.address.encode()).raw(self.login_id.raw).u64(self.counter).finish()

    def verify(self, key: DeviceSigningKey, signature: bytes) -> None:
        """Check the 64-byte signature.

        Raises:
            InvalidSignatureError: signed by another key, or for another origin, address, login or counter.
        """
        verify(key.raw, self.signed_bytes(), signature, "login assertion")


def parse_origin(text: str) -> str:
    """Check an origin: scheme, lower-case ASCII host, a port unless it is the scheme's own. One spelling per origin.

    Raises:
        MalformedMessageError: upper case, a path, a trailing slash, a default port, or no origin at all.
    """
    parts = _ORIGIN.fullmatch(text)
    if parts is None or len(text) > MAX_ORIGIN:
        raise MalformedMessageError("an origin is https://host[:port] in lower case, without a path")
    scheme, port = parts.groups()
    if port is not None and (port == _DEFAULT_PORTS[scheme] or int(port) > 0xFFFF):
        raise MalformedMessageError("an origin names its port only if it is not the default one")
    return text
