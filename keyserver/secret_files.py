"""Settings from files, one in each, as orchestrators hand out secrets: /run/secrets, systemd's credentials.

Owns: where that directory is; which database the commands use that need no other setting.
Does not know about: what the settings mean.
"""

import os
from pathlib import Path
from typing import Final

DIRECTORY_VARIABLE: Final = "E2EE_SECRETS_DIRECTORY"
"""Names a directory with files like `e2ee_token_secret`. What the environment says itself goes before them."""

DEFAULT_DATABASE: Final = "keyserver.db"


def secrets_directory() -> Path | None:
    """Return the directory, if the environment names one.

    Raises:
        ValueError: there is no such directory.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        raise ValueError(f"{DIRECTORY_VARIABLE}: there is no such directory: {named}")
    return Path(named)


def database_setting(given: str | None) -> str:
    """Return the database: as given, of the environment, of a file, or the default.

    Raises:
        ValueError: the environment names a directory that is not there, or a file that cannot be read.
    """
    if given or os.environ.get("E2EE_DATABASE"):
        return given or os.environ["E2EE_DATABASE"]
    directory = secrets_directory()
    if directory is None or not (directory / "e2ee_database").exists():
        return DEFAULT_DATABASE
    try:
        return (directory / "e2ee_database").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{directory / 'e2ee_database'} cannot be read") from None
