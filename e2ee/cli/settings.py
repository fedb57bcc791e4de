"""Where a command-line device lives, and how it gets its passphrase and its tokens.

Owns: the home directory, its settings file, the sources of passphrase and host token.
Does not know about: what the commands do.
"""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

TokenProvider = Callable[[], Awaitable[str]]


@final
class UsageError(Exception):
    """The command cannot run as it was called. The text says what to do."""


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What `e2ee init` wrote down. No secret is among it."""

    user: str
    server: str
    dev: bool = False
    token_command: str | None = None
    token_file: str | None = None

    def save(self, home: Path) -> None:
        """Write the settings file."""
        (home / "settings.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, home: Path) -> "Settings":
        """Read the settings file.

        Raises:
            UsageError: there is none, or it is not ours.
        """
        path = home / "settings.json"
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise UsageError(f"no device in {home}: make one with 'e2ee init' (or name another --home)") from None
        except (OSError, ValueError, TypeError):
            raise UsageError(f"{path} cannot be read: restore it, or make a new device with 'e2ee init'") from None

    def token_provider(self) -> TokenProvider:
        """Return the source of the host application's JWT."""
        if self.dev:
            return lambda: dev_token(self.server, self.user)
        if self.token_command is not None:
            return lambda: _token_of_command(self.token_command or "")
        return lambda: _token_of_file(Path(self.token_file or ""))


def home_directory(given: str | None) -> Path:
    """Return the device's directory: the option, the environment, or ~/.e2ee."""
    return Path(given or os.environ.get("E2EE_HOME") or Path.home() / ".e2ee")


def store_path(home: Path) -> Path:
    return home / "store.db"


def passphrase(file: str | None, *, new: bool = False) -> str:
    """Return the passphrase: from a file, the environment, or a terminal.

    Raises:
        UsageError: none of the three has one, or the two entries of a new one differ.
    """
    if file is not None:
        try:
            with Path(file).open() as lines:
                return _non_empty(lines.readline().rstrip("\r\n"))
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if "E2EE_PASSPHRASE" in os.environ:
        return _non_empty(os.environ["E2EE_PASSPHRASE"])
    if not sys.stdin.isatty():
        raise UsageError("no passphrase: set E2EE_PASSPHRASE, or use --passphrase-file")
    entered = _non_empty(getpass.getpass("Passphrase: "))
    if new and getpass.getpass("Again: ") != entered:
        raise UsageError("the two passphrases differ")
    return entered


async def dev_token(server: str, user: str) -> str:
    """Ask a development server's built-in issuer for a JWT."""
    import httpx

    async with httpx.AsyncClient(base_url=server, timeout=10) as http:
        response = await http.post("/dev/token", json={"user": user})
        response.raise_for_status()
        return str(response.json()["token"])


async def _token_of_command(command: str) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise UsageError(f"the token command ended with exit code {process.returncode}")
    return output.decode().strip()


async def _token_of_file(path: Path) -> str:
    try:
        return (await asyncio.to_thread(path.read_text)).strip()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _non_empty(text: str) -> str:
    if not text:
        raise UsageError("the passphrase is empty")
    return text
