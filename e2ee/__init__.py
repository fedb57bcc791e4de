"""End-to-end encryption for chat applications.

Names are loaded on first use: importing `e2ee.wire`, as servers do, must load no private-key code.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2ee.errors import E2EEError, ProtocolError, StateError, TrustError
    from e2ee.messenger import Messenger

__all__ = ["E2EEError", "Messenger", "ProtocolError", "StateError", "TrustError"]

_HOMES = {"Messenger": "e2ee.messenger"} | dict.fromkeys(
    ("E2EEError", "ProtocolError", "StateError", "TrustError"), "e2ee.errors"
)

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
