"""How the server process logs: lines for people, or JSON for machines.

Owns: format and levels; that no error's own words get in.
Does not know about: what is logged; nothing of it holds tokens, keys or content.

A library's exception may say anything: a driver puts values there, a parser what it could not parse. Of an exception
both formats show its type and where it came from.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, final

QUIET = ("alembic", "engineio", "httpcore", "httpx", "socketio", "uvicorn")
"""Libraries whose warnings are of interest and whose news is not: it holds URLs, and those hold session ids."""

_EVENT: Final = "e2ee_event"
_MAX_CAUSES: Final = 5


def configure(*, as_json: bool) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def event(name: str, **fields: bool | int | str) -> Mapping[str, Any]:
    """Make what `extra` takes: the stable name of what happened, and fields that a machine may count.

    Never a user, a device, an address, or anything that came from outside.
    """
    return {_EVENT: {"event": name, **fields}}


@final
class TextFormatter(logging.Formatter):
    """One line for people, and below it where an exception came from."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatException(self, ei: Any) -> str:
        return "\n".join(_places(ei[1]))


@final
class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (Unix milliseconds), level, logger, message; event and its fields; traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _EVENT, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = _places(record.exc_info[1])
        return json.dumps(line)


def _places(error: BaseException) -> list[str]:
    """Say of an exception and its causes the type, and in which lines of code it passed."""
    lines: list[str] = []
    current: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if current is None:
            break
        lines += [type(current).__name__, *_frames(current.__traceback__)]
        current = current.__cause__ or current.__context__
    return lines


def _frames(trace: TracebackType | None) -> list[str]:
    return [f"  {each.filename}:{each.lineno} in {each.name}" for each in traceback.extract_tb(trace)]
