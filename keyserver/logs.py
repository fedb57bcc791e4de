"""How the server process logs: lines for people, or JSON for machines.

Owns: format and levels. Does not know about: what is logged; nothing of it holds tokens, keys or content.
"""

import json
import logging
from typing import final

QUIET = ("alembic", "engineio", "socketio", "uvicorn")
"""Libraries whose warnings are of interest and whose news is not: it holds URLs, and those hold session ids."""


def configure(*, as_json: bool) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@final
class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
