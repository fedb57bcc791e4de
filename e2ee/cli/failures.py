"""What an error becomes: one line for a person, and an exit code.

Owns: that judgement.
Does not know about: how the line is printed.
"""

import traceback
from typing import Final, NamedTuple

from e2ee.cli.online import UnansweredError, root_cause
from e2ee.cli.output import OutputClosedError
from e2ee.cli.settings import UsageError
from e2ee.errors import DeviceListStaleError, E2EEError, StateError
from keyserver.client import (
    InsecureServerUrlError,
    KeyServerError,
    KeyServerUnavailableError,
    MalformedAnswerError,
)
from transport_adapters.base import InsecureUrlError, TransportError, TransportRefusedError, TransportUnavailableError

DONE: Final = 0
REFUSED: Final = 1
WRONG_USE: Final = 2
UNAVAILABLE: Final = 3
BUG: Final = 70
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 141

_WRONG_USE: Final = (UsageError, StateError, InsecureUrlError, InsecureServerUrlError)
_UNAVAILABLE: Final = (UnansweredError, KeyServerUnavailableError, MalformedAnswerError, TransportUnavailableError)
_REFUSED: Final = (E2EEError, KeyServerError, TransportError)

_ADVICE: Final = {
    "device_revoked": "This device stays out: to go on here, delete its directory and begin with 'e2ee link'",
    "link_not_found": "Is the code that of a device of the same user? It lasts ten minutes",
    "token_invalid": "Do --token-command or --token-file, as given to 'e2ee init', give a token of this server's chat?",
    "token_expired": "Is what --token-command or --token-file gives a fresh token?",
}
"""What a person can do about a refusal, by the server's code."""


class Failure(NamedTuple):
    """How a command ends that could not do what it was asked to."""

    text: str
    """Empty: there is nothing to say."""
    exit_code: int
    code: str = ""
    """What a program can tell it by: the error's code, or what kind of failure it is."""


def explain(error: BaseException) -> Failure:
    """Return what to say about an error, and the exit code."""
    cause = root_cause(error)
    if isinstance(cause, KeyboardInterrupt):
        return Failure("", INTERRUPTED)
    if isinstance(cause, OutputClosedError):
        return Failure("", OUTPUT_CLOSED)
    if isinstance(cause, _WRONG_USE) and not isinstance(cause, DeviceListStaleError):
        return Failure(str(cause), WRONG_USE, _code(cause, "wrong_use"))
    if isinstance(cause, _UNAVAILABLE):
        return Failure(str(cause), UNAVAILABLE, _code(cause, "unavailable"))
    if isinstance(cause, _REFUSED):
        code = cause.reason if isinstance(cause, TransportRefusedError) else cause.code
        advice = _ADVICE.get(code)
        return Failure(f"{cause} {advice}" if advice else str(cause), REFUSED, code)
    return Failure(f"a bug in this program: {_place(cause)}. Please report it; --verbose shows more", BUG, "bug")


def _code(error: BaseException, otherwise: str) -> str:
    return str(getattr(error, "code", otherwise))


def _place(error: BaseException) -> str:
    """Name an error that nobody expected. Its text stays untold: it could quote a message."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{type(error).__name__}{where}"
