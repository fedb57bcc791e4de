"""Where a command-line device lives, and what `e2ee init` wrote down about it.

Owns: the home directory, its settings file.
Does not know about: passphrases and tokens (credentials.py), what the commands do.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

_TEXTS: Final = ("user", "server")
_OPTIONAL_TEXTS: Final = ("token_command", "token_file", "passphrase_file")


@final
class UsageError(Exception):
    """The command cannot run as it was called. The text says what to do."""


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What `e2ee init` wrote down. No secret is among it, only where to find them."""

    user: str
    server: str
    dev: bool = False
    token_command: str | None = None
    token_file: str | None = None
    passphrase_file: str | None = None

    def save(self, home: Path) -> None:
        """Write the settings file, making the directory.

        Raises:
            UsageError: the file system refuses.
        """
        path = _settings_path(home)
        draft = path.with_suffix(".new")
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
            draft.replace(path)
        except OSError as error:
            raise UsageError(f"{home} cannot be written: {error.strerror}. Name another --home") from None

    @classmethod
    def load(cls, home: Path) -> "Settings":
        """Read the settings file.

        Raises:
            UsageError: there is none, or it is not ours.
        """
        path = _settings_path(home)
        try:
            fields = json.loads(path.read_text())
            _check(fields)
            return cls(**fields)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"no device in {home}: make one with 'e2ee init' (or name another --home)") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError):
            raise UsageError(f"{path} is damaged: run 'e2ee init' again, with the same --home; keys are kept") from None


def home_directory(given: str | None) -> Path:
    """Return the device's directory: the option, the environment, or ~/.e2ee."""
    return Path(given or os.environ.get("E2EE_HOME") or Path.home() / ".e2ee")


def store_path(home: Path) -> Path:
    """Return where the device's store is."""
    return home / "store.db"


def absolute(path: str | None) -> str | None:
    """Return a path that means the same in every directory."""
    return str(Path(path).absolute()) if path is not None else None


def _settings_path(home: Path) -> Path:
    return home / "settings.json"


def _check(fields: object) -> None:
    if not isinstance(fields, dict):
        raise TypeError
    if not all(isinstance(fields.get(name), str) for name in _TEXTS):
        raise TypeError
    if not all(isinstance(fields.get(name), str | None) for name in _OPTIONAL_TEXTS):
        raise TypeError
