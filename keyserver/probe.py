"""`keyserver check-config --url`: looks at a server from outside, as a client and an attacker would.

Owns: what is looked for, and what is wrong with what was found.
Does not know about: the server's settings; it may run on any machine. It sends no token and no content.
"""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, final
from urllib.parse import SplitResult, urlsplit

import httpx

from keyserver.loopback import is_loopback

TIMEOUT: Final = 5.0
"""Seconds for each question."""

_PATHS: Final = ("/", "/healthz", "/v1/device-lists", "/v1/tokens", "/socket.io/")
"""What clients ask, and what a proxy may send elsewhere."""
_NOT_PUBLIC: Final = {"/metrics": "the metrics", "/dev/token": "the login of --dev, which lets anybody in as anybody"}
_FOREIGN: Final = "https://probe.invalid"


class Finding(NamedTuple):
    """Something that is wrong (`is_wrong`), or worth knowing."""

    is_wrong: bool
    text: str


@final
@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """`authority`: trust this certificate authority besides the system's. `plain_port`: where plaintext would be."""

    authority: Path | None = None
    plain_port: int = 80


def probe(url: str, options: ProbeOptions) -> list[Finding]:
    """Look at a server; return what was found, in the order of looking.

    Raises:
        ValueError: not the URL of a server, or the authority cannot be read.
    """
    parts = _parsed(url)
    try:
        context = ssl.create_default_context(cafile=None if options.authority is None else str(options.authority))
    except OSError:
        raise ValueError(f"{options.authority} holds no certificate authority") from None
    looked = _Look(parts, context, options)
    if not looked.reaches_the_server():
        return looked.findings
    looked.follows_no_downgrade()
    looked.hides_what_is_not_public()
    looked.refuses_foreign_pages()
    if parts.scheme == "https":
        looked.refuses_old_tls()
        looked.speaks_no_plaintext()
    return looked.findings


def _parsed(url: str) -> SplitResult:
    form = "the URL of a server is https://host[:port]"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(form) from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(form)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("the URL is not https: clients refuse it, unless it is this machine")
    return parts


@dataclass
class _Look:
    parts: SplitResult
    context: ssl.SSLContext
    options: ProbeOptions
    findings: list[Finding] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    def wrong(self, text: str) -> None:
        self.findings.append(Finding(is_wrong=True, text=text))

    def note(self, text: str) -> None:
        self.findings.append(Finding(is_wrong=False, text=text))

    def reaches_the_server(self) -> bool:
        try:
            with self._client() as client:
                answer = client.get("/readyz")
        except httpx.HTTPError as error:
            self.wrong(f"the server is not reached: {_reason(error)}")
            return False
        if answer.status_code != 200 or not _says_ok(answer):
            self.wrong(f"/readyz is answered with {answer.status_code}: the server is not ready, or it is another one")
        secured = answer.headers.get("strict-transport-security")
        if self.parts.scheme == "https" and secured is None:
            self.note(
                "no Strict-Transport-Security: does the proxy say X-Forwarded-Proto, and is it in TRUSTED_PROXIES?"
            )
        return True

    def follows_no_downgrade(self) -> None:
        """Clients follow no redirect; a browser does, and one to plaintext shows what it sends."""
        for path in _PATHS:
            for method in ("GET", "POST"):
                answer = self._ask(method, path)
                target = "" if answer is None else answer.headers.get("location", "")
                if answer is None or not answer.is_redirect:
                    continue
                if target.lower().startswith("http:"):
                    self.wrong(f"{method} {path} is redirected to plaintext: {target}")
                else:
                    self.wrong(f"{method} {path} is redirected, which clients do not follow: {target}")

    def hides_what_is_not_public(self) -> None:
        for path, what in _NOT_PUBLIC.items():
            answer = self._ask("GET", path)
            # 405: there is such a path, which takes another method.
            if answer is not None and answer.status_code in (200, 405):
                self.wrong(f"{path} is reached from outside: {what}")

    def refuses_foreign_pages(self) -> None:
        answer = self._ask("GET", "/healthz", {"Origin": _FOREIGN})
        if answer is None:
            return
        if answer.headers.get("access-control-allow-origin") in ("*", _FOREIGN):
            self.wrong("scripts of any page may read what the server says (Access-Control-Allow-Origin)")
        elif answer.status_code != 403:
            self.note("a request of another origin is not refused: is the service part of another application?")

    def refuses_old_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with contextlib.suppress(ssl.SSLError):
            context.set_ciphers("ALL:@SECLEVEL=0")
        try:
            with self._connected(self.port) as plain, context.wrap_socket(plain, server_hostname=self.host) as secured:
                self.wrong(f"{secured.version()} is spoken, which has been withdrawn")
        except OSError:
            pass  # refused, as it should be

    def speaks_no_plaintext(self) -> None:
        for port in dict.fromkeys((self.options.plain_port, self.port)):
            try:
                with httpx.Client(base_url=self._base("http", port), timeout=TIMEOUT, trust_env=False) as client:
                    answer = client.get("/v1/device-lists")
            except httpx.HTTPError:
                continue  # nobody there, or nobody who speaks plaintext
            target = answer.headers.get("location", "")
            if answer.is_redirect and _is_same_host(target, self.host):
                self.note(
                    f"port {port} redirects plaintext to https, after it has read it; better nobody listens there"
                )
            elif answer.is_redirect:
                self.wrong(f"plaintext on port {port} is redirected to {target}, which is not this server over https")
            elif answer.status_code not in (400, 403, 421, 426):
                self.wrong(f"plaintext on port {port} is answered with {answer.status_code}")

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response | None:
        try:
            with self._client() as client:
                return client.request(method, path, headers=headers)
        except httpx.HTTPError as error:
            self.wrong(f"{method} {path} is not answered: {_reason(error)}")
            return None

    def _client(self) -> httpx.Client:
        base = self._base(self.parts.scheme, self.port)
        return httpx.Client(
            base_url=base, verify=self.context, timeout=TIMEOUT, follow_redirects=False, trust_env=False
        )

    def _base(self, scheme: str, port: int) -> str:
        return f"{scheme}://[{self.host}]:{port}" if ":" in self.host else f"{scheme}://{self.host}:{port}"

    @contextlib.contextmanager
    def _connected(self, port: int) -> Iterator[socket.socket]:
        with socket.create_connection((self.host, port), TIMEOUT) as connected:
            yield connected


def _says_ok(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json() == {"status": "ok"})
    except ValueError:
        return False


def _is_same_host(target: str, host: str) -> bool:
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    return parts.scheme == "https" and parts.hostname == host


def _reason(error: httpx.HTTPError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
