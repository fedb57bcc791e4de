"""Accounts: passwords, and the tokens that a login gives out.

Owns: who somebody is.
Does not know about: HTTP, conversations.

Left to what stands in front of such a chat: limits on guessing passwords, and TLS.
"""

import os
import time
from typing import NamedTuple

import jwt
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from .tables import users

TOKEN_SECONDS = 12 * 3600


class NotLoggedInError(Exception):
    """The name, the password or the token does not count."""


class NameTakenError(Exception):
    """Another user has this name."""


class User(NamedTuple):
    """Who asks. `since` is when the token was issued, Unix seconds."""

    id: int
    name: str
    since: int


class Accounts:
    """The users of the chat. Calls block on the database."""

    def __init__(self, engine: Engine, secret: str) -> None:
        self._engine = engine
        self._secret = secret
        self._nobody = _hashed("", os.urandom(16))

    def register(self, name: str, password: str) -> int:
        """Make an account; return its number."""
        values = {"name": name, "password_hash": _hashed(password, os.urandom(16))}
        try:
            with self._engine.begin() as connection:
                return int(connection.execute(insert(users).values(values).returning(users.c.id)).scalar_one())
        except IntegrityError:
            raise NameTakenError from None

    def log_in(self, name: str, password: str) -> str:
        """Return a token."""
        with self._engine.connect() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
        # An unknown name takes as long as a wrong password.
        if not _matches(password, self._nobody if row is None else row.password_hash) or row is None:
            raise NotLoggedInError
        now = int(time.time())
        claims = {"sub": str(row.id), "ver": row.token_version, "iat": now, "exp": now + TOKEN_SECONDS}
        return jwt.encode(claims, self._secret, "HS256")

    def log_out(self, user_id: int) -> None:
        """End all tokens of a user."""
        with self._engine.begin() as connection:
            connection.execute(
                update(users).where(users.c.id == user_id).values(token_version=users.c.token_version + 1)
            )

    def user_of(self, token: str) -> User:
        """Return whose token it is."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=["HS256"], options={"require": ["sub", "ver", "iat", "exp"]}
            )
            user_id, issued_at = int(claims["sub"]), int(claims["iat"])
        except (jwt.InvalidTokenError, ValueError):
            raise NotLoggedInError from None
        with self._engine.connect() as connection:
            row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
        if row is None or row.token_version != claims["ver"]:
            raise NotLoggedInError
        return User(row.id, row.name, issued_at)

    def numbers_of(self, names: list[str]) -> list[int]:
        """Return the numbers of those who exist."""
        with self._engine.connect() as connection:
            return list(connection.execute(select(users.c.id).where(users.c.name.in_(names))).scalars())

    def count_connection(self, user_id: int, change: int) -> None:
        """Remember that a user came (1) or left (-1)."""
        with self._engine.begin() as connection:
            connection.execute(
                update(users).where(users.c.id == user_id).values(connections=users.c.connections + change)
            )


def _hashed(password: str, salt: bytes) -> str:
    kdf = Argon2id(salt=salt, length=32, iterations=2, lanes=1, memory_cost=19 * 1024)  # as OWASP recommends
    return kdf.derive_phc_encoded(password.encode())


def _matches(password: str, hashed: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), hashed)
    except InvalidKey:
        return False
    return True
