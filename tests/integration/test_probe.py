"""`keyserver check-config --url` finds what is wrong with a server from outside, and nothing where nothing is."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keyserver.__main__ import main
from keyserver.probe import Finding, ProbeOptions, probe
from tests.certificates import Certificate, make_certificate
from tests.server_process import ServerProcess
from tests.servers.process import free_port

Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]
OK = b'{"status": "ok"}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def web_server(answer: Answer, certificate: Certificate | None = None, *, old_tls: bool = False) -> Iterator[int]:
    """Some other server, as careless as a test wants it; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def answer(self) -> None:
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        if old_tls:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def careful(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
    """What a good server says."""
    if "Origin" in request.headers:
        return 403, {}, b""
    if request.path in ("/healthz", "/readyz"):
        return 200, {"Strict-Transport-Security": "max-age=1"}, OK
    return 404, {}, b""


def look(certificate: Certificate, answer: Answer, plain: Answer | None = None, *, old_tls: bool = False) -> list[str]:
    """What is wrong with a server that answers so over TLS, and so over plaintext."""
    with web_server(answer, certificate, old_tls=old_tls) as port:
        if plain is None:
            return told(probe(f"https://127.0.0.1:{port}", ProbeOptions(certificate.authority, free_port())))
        with web_server(plain) as plain_port:
            return told(probe(f"https://127.0.0.1:{port}", ProbeOptions(certificate.authority, plain_port)))


def told(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.is_wrong]


@pytest.fixture
async def server(tmp_path: Path, certificate: Certificate) -> AsyncIterator[ServerProcess]:
    settings = {"tls_certificate": str(certificate.certificate), "tls_key": str(certificate.key)}
    process = ServerProcess(tmp_path, **settings)
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.kill)


async def test_nothing_is_wrong_with_our_own_server(
    server: ServerProcess, certificate: Certificate, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check-config", "--url", server.url, "--ca", str(certificate.authority)]
    code = await asyncio.to_thread(main, [*arguments, "--plain-port", str(free_port())])
    assert (code, capsys.readouterr().out) == (0, f"nothing is wrong with {server.url} as seen from here\n")


def test_nothing_is_wrong_with_a_careful_server_and_a_port_that_redirects_is_worth_a_note(
    certificate: Certificate,
) -> None:
    def redirect(_request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return 308, {"Location": "https://127.0.0.1/v1/device-lists"}, b""

    assert look(certificate, careful) == []
    assert look(certificate, careful, redirect) == []


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_a_plaintext_listener_is_found(certificate: Certificate, status: int) -> None:
    (text,) = look(certificate, careful, lambda _request: (status, {}, b""))
    assert text.startswith("plaintext on port ")
    assert text.endswith(f"is answered with {status}")


@pytest.mark.parametrize("target", ["http://127.0.0.1/", "https://evil.example/", "/elsewhere", ""])
def test_a_plaintext_listener_that_redirects_elsewhere_is_found(certificate: Certificate, target: str) -> None:
    (text,) = look(certificate, careful, lambda _request: (302, {"Location": target}, b""))
    assert text.endswith(f"is redirected to {target}, which is not this server over https")


@pytest.mark.parametrize("target", ["http://127.0.0.1/x", "HTTP://chat.example/x"])
def test_a_redirect_from_https_down_to_plaintext_is_found(certificate: Certificate, target: str) -> None:
    def downgrading(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return (302, {"Location": target}, b"") if request.path == "/v1/tokens" else careful(request)

    assert look(certificate, downgrading) == [
        f"{method} /v1/tokens is redirected to plaintext: {target}" for method in ("GET", "POST")
    ]


def test_what_should_not_be_public_is_found(certificate: Certificate) -> None:
    def open_wide(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path == "/metrics":
            return 200, {}, b"e2ee_users 5"
        return (405, {}, b"") if request.path == "/dev/token" else careful(request)

    found = look(certificate, open_wide)
    assert [text.split(" is reached")[0] for text in found] == ["/metrics", "/dev/token"]


@pytest.mark.parametrize("allowed", ["*", "https://probe.invalid"])
def test_a_server_that_lets_any_page_read_is_found(certificate: Certificate, allowed: str) -> None:
    def permissive(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = careful(request)
        return status, headers | {"Access-Control-Allow-Origin": allowed}, body

    (text,) = look(certificate, permissive)
    assert "Access-Control-Allow-Origin" in text


def test_an_old_version_of_tls_is_found(certificate: Certificate) -> None:
    (text,) = look(certificate, careful, old_tls=True)
    assert text == "TLSv1.1 is spoken, which has been withdrawn"


def test_a_certificate_that_nobody_trusts_ends_the_look(certificate: Certificate) -> None:
    with web_server(careful, certificate) as port:
        (text,) = told(probe(f"https://127.0.0.1:{port}", ProbeOptions()))
        assert text.startswith("the server is not reached: its certificate is not valid")


def test_a_server_that_is_not_there_or_is_another_one_is_found(certificate: Certificate) -> None:
    (text,) = told(probe(f"http://127.0.0.1:{free_port()}", ProbeOptions()))
    assert text == "the server is not reached: ConnectError"
    found = look(certificate, lambda request: (403, {}, b"") if "Origin" in request.headers else (404, {}, b"hello"))
    assert [text.split(":")[0] for text in found] == ["/readyz is answered with 404"]


@pytest.mark.parametrize(
    "url",
    [
        "http://chat.example",
        "chat.example",
        "https://",
        "https://a/path",
        "https://u:p@a",
        "https://a:99999",
        "ftp://a",
    ],
)
def test_what_is_no_servers_url_is_wrong_use(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--url", url]) == 2
    assert "URL" in capsys.readouterr().err


def test_findings_give_exit_code_1(certificate: Certificate, capsys: pytest.CaptureFixture[str]) -> None:
    with web_server(lambda _request: (200, {}, OK), certificate) as port:
        arguments = ["check-config", "--url", f"https://127.0.0.1:{port}", "--ca", str(certificate.authority)]
        assert main([*arguments, "--plain-port", str(free_port())]) == 1
    output = capsys.readouterr().out
    assert "wrong: /metrics is reached from outside" in output
    assert "note: no Strict-Transport-Security" in output
