"""Carries end-to-end encrypted envelopes over the transport an application already has.

Names are loaded on first use: an adapter, or the server side, must not load the client's cryptography.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2ee.wire.envelope import Lane
    from transport_adapters.secure_client.client import Message, SecureClient

__all__ = ["Lane", "Message", "SecureClient"]

_CLIENT = "transport_adapters.secure_client.client"
_HOMES = {"Lane": "e2ee.wire.envelope", "Message": _CLIENT, "SecureClient": _CLIENT}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
