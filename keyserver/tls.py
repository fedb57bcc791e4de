"""TLS of the server's own, without a proxy.

Owns: versions, the certificate and how a renewed one is taken.
Does not know about: sockets.
"""

import logging
import ssl
from pathlib import Path
from typing import final

_log = logging.getLogger("keyserver")


@final
class ServerTls:
    """The server's certificate. `reload` takes a renewed one for new connections; those that live go on."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load certificate chain and private key, PEM.

        Raises:
            ValueError: a file cannot be read or used, or the two do not belong together.
        """
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)

    def reload(self) -> None:
        """Take what the files hold now; if they cannot be used, go on with what was loaded before."""
        try:
            # Elsewhere first: a certificate without its key must not replace half of what works.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except ValueError as error:
            _log.error("the certificate was not loaded again: %s", error)
        else:
            _log.info("the certificate was loaded again")

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A password is never asked for: nobody sits at a server's terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ValueError(f"{self._certificate} and {self._key} cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "no certificate with its unencrypted private key, PEM"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
