"""The login of a host application, as far as the key server sees it: keys, tokens, and a key set behind a URL.

Owns: key pairs of each algorithm, their JWK form, an HTTP server on loopback whose answer a test chooses.
Does not know about: what a test asserts.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.keyserver_world import START

HOUR = 3600


class HostKey(NamedTuple):
    """A key pair of the host application."""

    algorithm: str
    private_pem: str
    public_pem: str

    def jwk(self, kid: str | None, **changes: Any) -> dict[str, Any]:
        """The public key as an entry of a key set."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        entry: dict[str, Any] = json.loads(algorithm.to_jwk(algorithm.prepare_key(self.public_pem)))
        entry |= {"use": "sig", "alg": self.algorithm} | ({} if kid is None else {"kid": kid})
        return entry | changes

    def token(self, user: str, kid: str | None = None, /, **claims: Any) -> str:
        """A token of the user, as the host signs it at the tests' time."""
        known = {"sub": user, "iat": START // 1000, "exp": START // 1000 + HOUR}
        headers = None if kid is None else {"kid": kid}
        return jwt.encode(known | claims, self.private_pem, self.algorithm, headers=headers)


_MAKE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "RS256 short": lambda: rsa.generate_private_key(65537, 1024),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@cache
def host_key(kind: str, number: int = 0) -> HostKey:
    """Make a key pair, once for each kind and number."""
    private = _MAKE[kind]()
    return HostKey(
        kind.partition(" ")[0],
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


def key_set(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


class KeySetServer:
    """An HTTP server that gives `body` with `status`, or waits for `gate` first, and counts what it was asked."""

    def __init__(self) -> None:
        self.body = key_set()
        self.status = "200 OK"
        self.headers = ""
        self.asked = 0
        self.url = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.gate.wait()
        head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n{self.headers}\r\n"
        writer.write(head.encode() + self.body)
        writer.close()


@asynccontextmanager
async def key_set_server() -> AsyncIterator[KeySetServer]:
    """Serve on a free port of loopback."""
    served = KeySetServer()
    listening = await asyncio.start_server(served.answer, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/keys"
    try:
        yield served
    finally:
        served.gate.set()
        listening.close()
