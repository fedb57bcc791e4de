"""How a command-line device gets its passphrase, and the host application's tokens.

Owns: where they come from, in which order, and what is said when they do not come.
Does not know about: what they open.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from e2ee.cli.settings import Settings, UsageError
from keyserver.client import KeyServerRefusedError
from keyserver.client_http import ClientOptions, JsonApi

TokenProvider = Callable[[], Awaitable[str]]

_MAX_SECRET: Final = 64 * 1024
"""A longer file is not the one that was meant, /dev/zero for example."""
_COMMAND_SECONDS: Final = 60


def passphrase(file: str | None, settings: Settings | None = None) -> str:
    """Return the passphrase: from the file given, the environment, the file that init was given, or a terminal.

    Without `settings` it is a new one, and a person types it twice.

    Raises:
        UsageError: none of them has one, or the two entries of a new one differ.
    """
    remembered = settings.passphrase_file if settings is not None else None
    if file is None and "E2EE_PASSPHRASE" in os.environ:
        return _non_empty(os.environ["E2EE_PASSPHRASE"], "E2EE_PASSPHRASE")
    if file is None and remembered is None:
        return _typed(twice=settings is None)
    path = Path(file or remembered or "")
    return _non_empty(_text_of(path).partition("\n")[0].rstrip("\r"), f"the first line of {path}")


def secret_of(file: str | None, prompt: str, option: str) -> str:
    """Return a secret that is asked for each time: the first line of a file, or typed at a terminal.

    Raises:
        UsageError: there is none.
    """
    if file is not None:
        path = Path(file)
        return _non_empty(_text_of(path).partition("\n")[0].rstrip("\r"), f"the first line of {path}")
    if not _is_terminal():
        raise UsageError(f"there is no terminal to ask at: use {option}")
    try:
        return _non_empty(getpass.getpass(prompt), "what was typed")
    except EOFError:
        raise UsageError("nothing was typed") from None


def token_provider(settings: Settings) -> TokenProvider:
    """Return the source of the host application's JWT. It raises UsageError if a person must do something."""

    async def provide() -> str:
        if settings.dev:
            return await _dev_token(settings.server, settings.user)
        if settings.token_command is not None:
            return _token(await _output(settings.token_command), "the token command's output")
        path = Path(settings.token_file or "")
        return _token(await asyncio.to_thread(_text_of, path), str(path))

    return provide


async def _dev_token(server: str, user: str) -> str:
    """Ask a development server's built-in issuer."""
    api = JsonApi(server, None, ClientOptions())
    try:
        answer = await api.request("POST", "/dev/token", body={"user": user})
        return answer.text("token")
    except KeyServerRefusedError as refusal:
        if refusal.status == 404:
            raise UsageError(
                f"{server} has no development login: start it with 'keyserver serve --dev', "
                "or run 'e2ee init' with --token-command or --token-file"
            ) from None
        raise
    finally:
        await api.aclose()


async def _output(command: str) -> str:
    # Its standard input is not ours: it would read the messages that are typed there.
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise UsageError(f"the token command did not end within {_COMMAND_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise UsageError(f"the token command ended with exit code {process.returncode}")
    return output.decode("ascii", "replace")


def _token(text: str, where: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{where} is not a token: one word of ASCII characters is expected")
    return token


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET + 1)
        if len(content) > _MAX_SECRET:
            raise UsageError(f"{path} is too long to be the right file")
        return content.decode()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None


def _typed(*, twice: bool) -> str:
    if not _is_terminal():
        raise UsageError("no passphrase: set E2EE_PASSPHRASE, or use --passphrase-file")
    try:
        entered = _non_empty(getpass.getpass("Passphrase: "), "the passphrase")
        if twice and getpass.getpass("Again: ") != entered:
            raise UsageError("the two passphrases differ: nothing was done")
    except EOFError:
        raise UsageError("no passphrase was typed") from None
    return entered


def _is_terminal() -> bool:
    """Say whether somebody can be asked: getpass talks to the terminal even if standard input is a pipe."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except (OSError, AttributeError):
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def _non_empty(text: str, where: str) -> str:
    if not text:
        raise UsageError(f"{where} is empty")
    return text
