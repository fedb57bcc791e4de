"""`keyserver migrate` and `keyserver check-config`.

Owns: what they do. Does not know about: how arguments are written (__main__.py).
"""

import difflib
import os
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keyserver.app import system_clock
from keyserver.carriers import broker_trust
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.host_token import host_token_verifier
from keyserver.loopback import is_loopback
from keyserver.migrations.runner import check_current, upgrade
from keyserver.push_services import make_providers
from keyserver.secret_files import database_setting, secrets_directory
from keyserver.settings import Settings
from keyserver.sole_process import SecondProcessError, check_alone
from keyserver.tls import ServerTls

_PREFIX: Final = "E2EE_"


def migrate(database: str | None) -> None:
    """Bring the tables up to date.

    Raises:
        ValueError: no such database, or it refuses.
    """
    _prepare(database_url(database_setting(database)), change=True)


def prepare(settings: Settings) -> None:
    """Do before the server starts what it would do itself, so that a failure is a sentence.

    Raises:
        ValueError: the database cannot be opened, its tables are not those of this release, or another process serves
            it.
    """
    url = database_url(settings.database)
    _prepare(url, change=settings.migrate or is_sqlite(url))
    try:
        check_alone(settings)
    except SecondProcessError as error:
        raise ValueError(str(error)) from None


def load_settings(**given: object) -> Settings:
    """Read the settings from the environment and from secret files; `given` goes first.

    Raises:
        ValueError: what is wrong, by the names of the environment variables and without their values.
    """
    directory = secrets_directory()
    if directory is not None:
        given["_secrets_dir"] = directory
    try:
        return Settings(**given)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        raise ValueError("\n".join(_sentence(each["loc"], each["msg"]) for each in error.errors())) from None
    except SettingsError as error:
        # Its own text names the field; what stands in the variable it does not repeat, and neither do we.
        named = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "settings")
        raise ValueError(f'E2EE_{named.upper()}: a list is written as JSON: ["one", "two"]') from None


def check_config() -> list[str]:
    """Check the settings that `keyserver serve` would use, and the files they name.

    Returns what is allowed, and perhaps not meant.

    Raises:
        ValueError: what is wrong.
        ImportError: an extra that they need is not installed.
    """
    settings = load_settings()
    host_token_verifier(settings, system_clock)
    make_providers(settings, system_clock)
    broker_trust(settings)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        ServerTls(settings.tls_certificate, settings.tls_key)
    return list(_hints(settings))


def by_variable(text: str) -> str:
    """Name settings as the environment does, in a sentence that names them as the arguments of `Settings`."""
    # Those of one word ("database", "bus") are words of sentences as well.
    names = [name for name in Settings.model_fields if "_" in name]
    return re.sub(rf"(?<![\w/.-])({'|'.join(names)})(?![\w/.-])", lambda found: _PREFIX + found[0].upper(), text)


def _hints(settings: Settings) -> Iterator[str]:
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(os.environ):
        # Only what resembles one of ours: the same machine may run clients, whose variables begin alike.
        if name.startswith(_PREFIX) and name not in known and (meant := difflib.get_close_matches(name, known, 1, 0.9)):
            yield f"{name} is no setting and counts for nothing: is {meant[0]} meant?"
    if settings.proxy_is_unknown:
        yield "E2EE_TRUSTED_PROXIES does not name the proxy: addresses are not limited, and nothing that it says counts"
    if settings.host_jwt_audience is None:
        yield "E2EE_HOST_JWT_AUDIENCE is not set: every token of the chat that names no audience counts here"
    if settings.metrics_port is not None and not is_loopback(settings.metrics_host):
        yield f"metrics are served in plaintext on {settings.metrics_host}: let nobody reach them but who watches"
    for name, url in (("E2EE_BUS", settings.bus), ("E2EE_RATE_LIMITS", settings.rate_limits)):
        parts = urlsplit(url)
        if parts.scheme == "redis" and not is_loopback(parts.hostname or ""):
            yield f"{name} is Redis without TLS: whoever is on the way reads who talks to whom, or changes it"


def _prepare(url: URL, *, change: bool) -> None:
    engine = sqlite_engine(url) if is_sqlite(url) else create_engine(url, hide_parameters=True)
    try:
        with engine.begin() as connection:
            if change:
                upgrade(connection)
            else:
                check_current(connection)
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        raise ValueError(f"the database cannot be used: {reason}") from None
    finally:
        engine.dispose()


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ")
    if not place:
        return f"settings: {by_variable(said)}"
    return f"{_PREFIX}{str(place[0]).upper()}: {'is not set' if said == 'Field required' else said}"
