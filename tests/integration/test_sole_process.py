"""One process on a database, unless all of them hear each other."""

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import psycopg
import pytest

from keyserver import sole_process as sole_process_module
from keyserver.sole_process import SecondProcessError, check_alone, sole_process
from tests.contract.relay_world import eventually
from tests.databases import database_for, each_database, on_postgresql  # noqa: F401 - fixtures
from tests.keyserver_world import HOST_SECRET, TOKEN_SECRET, settings
from tests.servers.process import free_port


async def test_a_second_process_is_refused_until_the_first_one_ends(tmp_path: Path) -> None:
    first = settings(tmp_path / "server.db")
    async with sole_process(first):
        with pytest.raises(SecondProcessError, match="E2EE_BUS"):
            check_alone(first)
        with pytest.raises(SecondProcessError):
            async with sole_process(first):
                pass
    check_alone(first)


@pytest.mark.usefixtures("on_postgresql")
async def test_a_lock_that_went_with_the_database_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole_process_module, "_WATCH_SECONDS", 0.02)
    first = settings(tmp_path / "server.db")
    with psycopg.connect(first.database, autocommit=True) as other:
        holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
        async with sole_process(first):
            (before,) = other.execute(holder).fetchall()
            other.execute("SELECT pg_terminate_backend(%s, 5000)", before)
            await eventually(lambda: other.execute(holder).fetchall() not in ([], [before]))
            with pytest.raises(SecondProcessError):
                check_alone(first)
    check_alone(first)


async def test_processes_with_a_bus_share_a_database(tmp_path: Path) -> None:
    shared = settings(tmp_path / "server.db", bus="redis://127.0.0.1:1")
    async with sole_process(shared), sole_process(shared):
        check_alone(shared)


async def test_the_command_says_so_in_a_sentence(tmp_path: Path) -> None:
    first = settings(tmp_path / "server.db")
    async with sole_process(first):
        environment = {
            "E2EE_DATABASE": first.database,
            "E2EE_ORIGIN": "http://127.0.0.1:8000",
            "E2EE_TOKEN_SECRET": TOKEN_SECRET,
            "E2EE_HOST_JWT_ALGORITHM": "HS256",
            "E2EE_HOST_JWT_SECRET": HOST_SECRET,
            "E2EE_MIGRATE": "true",
            "PYTHONPATH": ":".join(sys.path),
        }
        command = [sys.executable, "-m", "keyserver", "serve", "--port", str(free_port())]
        run = partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=60, check=False)
        ended = await asyncio.to_thread(run, command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("keyserver: another process serves this database")
    assert ended.stderr.count("\n") == 1
