"""PostgreSQL and Redis over TLS, as the settings name them: their certificate is verified, and a wrong one refused."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from redis.exceptions import RedisError
from sqlalchemy import text

from keyserver.carriers import make_wire
from keyserver.database import Database, database_url
from keyserver.postgresql import DatabaseUnavailableError
from keyserver.redis_buckets import RedisBuckets
from keyserver.repository.rate_limits import RateLimit
from tests.certificates import Certificate, make_certificate
from tests.databases import postgresql
from tests.keyserver_world import Clock, settings
from tests.servers.redis import Redis

LIMIT = RateLimit(1, 60_000)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Certificate:
    """An authority that signed nothing here."""
    return make_certificate(tmp_path, "stranger")


class TlsRedis(Redis):
    """Redis that speaks nothing but TLS."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__()
        self._files = [readable(each, self.directory) for each in (certificate.certificate, certificate.key)]

    def command(self) -> Sequence[str | Path]:
        program, *rest = super().command()
        chain, key = self._files
        tls = "--tls-port", str(self.port), "--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", chain
        return program, *rest, "--port", "0", *tls, "--tls-auth-clients", "no"

    def trusting(self, authority: Path) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={authority}"


def readable(file: Path, directory: Path) -> Path:
    """Copy a file to where the server's user, and nobody else, reads it."""
    copy = directory / file.name
    shutil.copy(file, copy)
    owner = directory.stat()
    shutil.chown(copy, owner.st_uid, owner.st_gid)
    copy.chmod(0o600)
    return copy


@pytest.fixture
def redis(certificate: Certificate) -> Iterator[TlsRedis]:
    with TlsRedis(certificate) as server:
        yield server


@pytest.fixture
def database(certificate: Certificate) -> Iterator[str]:
    """A database whose cluster speaks TLS as long as the test runs."""
    cluster = postgresql()
    files = [readable(each, cluster.directory) for each in (certificate.certificate, certificate.key)]
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        for name, value in zip(("ssl_cert_file", "ssl_key_file"), files, strict=True):
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
        yield cluster.new_database()
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")


def trusting(database: str, authority: Path) -> str:
    return f"{database}?sslmode=verify-full&sslrootcert={authority}"


async def test_rate_limits_and_bus_use_redis_over_tls(
    redis: TlsRedis, certificate: Certificate, tmp_path: Path
) -> None:
    url = redis.trusting(certificate.authority)
    configured = settings(tmp_path / "server.db", rate_limits=url, bus=url)
    buckets = RedisBuckets(configured.rate_limits, "test", Clock())
    assert await buckets.take("one", LIMIT, 1) == 0
    assert await buckets.take("one", LIMIT, 1) > 0
    await buckets.close()
    wire = make_wire(configured)
    assert wire is not None
    await wire.send("news")
    await wire.close()


@pytest.mark.parametrize("how", ["another authority", "no authority", "plaintext"])
async def test_a_redis_that_is_not_known_is_told_nothing(
    how: str, redis: TlsRedis, stranger: Certificate, tmp_path: Path
) -> None:
    urls = {
        "another authority": redis.trusting(stranger.authority),
        "no authority": f"rediss://127.0.0.1:{redis.port}/0",
        "plaintext": redis.url,
    }
    configured = settings(tmp_path / "server.db", rate_limits=urls[how], bus=urls[how])
    buckets, wire = RedisBuckets(configured.rate_limits, "test", Clock()), make_wire(configured)
    assert wire is not None
    refused = "reset by peer|closed" if how == "plaintext" else "certificate verify failed"
    with pytest.raises(RedisError, match=refused):
        await buckets.take("one", LIMIT, 1)
    with pytest.raises(RedisError, match=refused):
        await wire.send("news")
    await buckets.close()
    await wire.close()


async def test_the_database_and_its_bus_are_reached_over_tls(
    database: str, certificate: Certificate, tmp_path: Path
) -> None:
    configured = settings(tmp_path / "unused").model_copy(
        update={"database": trusting(database, certificate.authority), "bus": "postgresql"}
    )
    opened = Database(database_url(configured.database))
    await opened.start()
    encrypted = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert await opened.read(lambda connection: connection.execute(encrypted).scalar_one()) is True
    await opened.close()
    wire = make_wire(configured)
    assert wire is not None
    await wire.send("news")
    await wire.close()


async def test_a_database_server_that_is_not_known_is_told_nothing(
    database: str, stranger: Certificate, tmp_path: Path
) -> None:
    configured = settings(tmp_path / "unused").model_copy(
        update={"database": trusting(database, stranger.authority), "bus": "postgresql"}
    )
    opened = Database(database_url(configured.database))
    await opened.start()
    with pytest.raises(DatabaseUnavailableError):
        await opened.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    await opened.close()
    wire = make_wire(configured)
    assert wire is not None
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        await wire.send("news")
    await wire.close()
