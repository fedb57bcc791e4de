"""Without the packages of an extra, a command says which extra to install; help works all the same.

A hook in a fresh interpreter hides packages, as if they were not installed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_processes import environment

_HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hider(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hider())
"""
_CLIENT = ("httpx", "socketio", "engineio", "aiohttp")
_SERVER = ("alembic", "fastapi", "pydantic", "pydantic_settings", "jwt", "sqlalchemy", "starlette", "uvicorn")


def run(tmp_path: Path, hidden: tuple[str, ...], module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module in an interpreter (and those that it starts) in which packages are hidden."""
    (tmp_path / "sitecustomize.py").write_text(_HIDE.format(hidden=hidden))
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=path),
        start_new_session=True,
        check=False,
    )


@pytest.mark.parametrize("missing", ["httpx", "socketio", "aiohttp"])
def test_client_without_its_extra(tmp_path: Path, missing: str) -> None:
    ended = run(tmp_path, (missing,), "e2ee.cli", "send", "bob", "hi")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"e2ee: this command needs {missing}: install 'e2ee-layer[client]'\n"


def test_server_without_its_extra(tmp_path: Path) -> None:
    for command in (["serve", "--dev"], ["migrate"], ["check-config"]):
        ended = run(tmp_path, _SERVER, "keyserver", *command)

        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.count("\n") == 1
        assert "install 'e2ee-layer[server]'" in ended.stderr


def test_demo_without_the_server_extra(tmp_path: Path) -> None:
    ended = run(tmp_path, ("sqlalchemy",), "e2ee.cli", "demo")

    assert ended.returncode == 2
    assert "install 'e2ee-layer[server]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["e2ee.cli", "keyserver"])
def test_help_needs_no_extra(tmp_path: Path, module: str) -> None:
    ended = run(tmp_path, (*_CLIENT, *_SERVER), module, "--help")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "usage: " in ended.stdout
