"""`keyserver migrate` and `keyserver check-config`.

Owns: what they do. Does not know about: how arguments are written (__main__.py).
"""

import os

from pydantic import ValidationError
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keyserver.app import system_clock
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.host_token import host_token_verifier
from keyserver.migrations.runner import NOT_CURRENT, is_current, upgrade
from keyserver.push_services import make_providers
from keyserver.settings import DEFAULT_DATABASE, Settings
from keyserver.sole_process import SecondProcessError, check_alone


def migrate(database: str | None) -> None:
    """Bring the tables up to date.

    Raises:
        ValueError: no such database, or it refuses.
    """
    _prepare(database_url(database or os.environ.get("E2EE_DATABASE") or DEFAULT_DATABASE), change=True)


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
    """Read the settings from the environment; `given` goes first.

    Raises:
        ValueError: what is wrong, by the names of the environment variables and without their values.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        raise ValueError("\n".join(_sentence(each["loc"], each["msg"]) for each in error.errors())) from None


def check_config() -> None:
    """Check the settings that `keyserver serve` would use, and the key files they name.

    Raises:
        ValueError: what is wrong.
        ImportError: an extra that they need is not installed.
    """
    settings = load_settings()
    host_token_verifier(settings, system_clock)
    make_providers(settings, system_clock)


def _prepare(url: URL, *, change: bool) -> None:
    engine = sqlite_engine(url) if is_sqlite(url) else create_engine(url, hide_parameters=True)
    try:
        with engine.begin() as connection:
            if change:
                upgrade(connection)
            elif not is_current(connection):
                raise ValueError(NOT_CURRENT)
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        raise ValueError(f"the database cannot be used: {reason}") from None
    finally:
        engine.dispose()


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    name = f"E2EE_{str(place[0]).upper()}" if place else "settings"
    return f"{name}: {message.removeprefix('Value error, ')}"
