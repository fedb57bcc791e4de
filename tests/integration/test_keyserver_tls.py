"""The server speaks TLS itself: nothing below 1.2, no plaintext on the port, a renewed certificate without a stop."""

import asyncio
import hashlib
import signal
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from keyserver.tls import ServerTls
from tests.certificates import Certificate, make_certificate
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def server(tmp_path: Path, certificate: Certificate) -> AsyncIterator[ServerProcess]:
    copies = make_copy(certificate, tmp_path)
    process = ServerProcess(tmp_path, tls_certificate=str(copies.certificate), tls_key=str(copies.key))
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.kill)


def make_copy(certificate: Certificate, directory: Path) -> Certificate:
    copies = Certificate(directory / "live.pem", directory / "live.key", certificate.authority)
    copies.certificate.write_bytes(certificate.certificate.read_bytes())
    copies.key.write_bytes(certificate.key.read_bytes())
    return copies


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


def fingerprint(certificate: Certificate) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())).hexdigest()


async def shown(server: ServerProcess) -> str:
    """The SHA-256 of the certificate that a new connection sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(raw).hexdigest()


async def test_https_and_wss_are_served_and_plaintext_on_the_port_gets_no_answer(
    server: ServerProcess, certificate: Certificate
) -> None:
    context = trusting(certificate.authority)
    async with httpx.AsyncClient(verify=context) as client:
        answer = await client.get(f"{server.url}/readyz")
        assert answer.json() == {"status": "ok"}
        assert answer.headers["strict-transport-security"].startswith("max-age=")
    async with websockets.connect(server.url.replace("https", "wss") + "/e2ee/ws", ssl=context) as socket:
        assert socket.state.name == "OPEN"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        assert not (await reader.read()).startswith(b"HTTP")
    writer.close()


async def test_versions_below_1_2_are_refused(server: ServerProcess) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that old versions are named at all
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


async def test_a_renewed_certificate_is_taken_on_sighup_and_a_broken_one_is_not(
    server: ServerProcess, tmp_path: Path
) -> None:
    before = await shown(server)
    renewed = make_certificate(tmp_path, "renewed")
    (tmp_path / "live.pem").write_bytes(renewed.certificate.read_bytes())  # its key is missing still
    server.signal(signal.SIGHUP)
    await server.logged("not loaded again")
    assert await shown(server) == before
    (tmp_path / "live.key").write_bytes(renewed.key.read_bytes())
    server.signal(signal.SIGHUP)
    await server.logged("was loaded again")
    assert await shown(server) == fingerprint(renewed)


async def test_it_drains_over_tls_as_well(server: ServerProcess) -> None:
    assert await asyncio.to_thread(server.stop) == 0


def test_a_certificate_that_cannot_be_used_is_a_sentence_and_nobody_is_asked_for_a_password(
    certificate: Certificate, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path, "other")
    with pytest.raises(ValueError, match="cannot be used"):
        ServerTls(certificate.certificate, other.key)
    with pytest.raises(ValueError, match="No such file"):
        ServerTls(tmp_path / "missing.pem", other.key)
    (tmp_path / "text.pem").write_text("no certificate\n")
    with pytest.raises(ValueError, match="cannot be used"):
        ServerTls(tmp_path / "text.pem", other.key)
    locked = tmp_path / "locked.key"
    locked.write_bytes(encrypted(other.key))
    with pytest.raises(ValueError, match="cannot be used"):
        ServerTls(other.certificate, locked)


def encrypted(key: Path) -> bytes:
    private = load_pem_private_key(key.read_bytes(), None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
