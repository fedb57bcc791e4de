"""Without the packages of an extra, a command says which extra to install; help works all the same.

A hook in a fresh interpreter hides packages, as if they were not installed.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_processes import Desk, environment, serving
from tests.push_services import p256_key

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


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        desk.init("alice")
        yield desk


@pytest.mark.parametrize(
    ("missing", "transport", "extra"),
    [
        ("httpx", "socketio", "client"),
        ("socketio", "socketio", "client"),
        ("aiohttp", "socketio", "client"),
        ("websockets", "websocket", "websocket"),
        ("paho", "mqtt", "mqtt"),
        ("slixmpp", "xmpp", "xmpp"),
    ],
)
def test_client_without_its_extra(tmp_path: Path, desk: Desk, missing: str, transport: str, extra: str) -> None:
    home = str(desk.directory / "alice")
    ended = run(tmp_path, (missing,), "e2ee.cli", "receive", "--home", home, "--transport", transport)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"e2ee: this command needs {missing}: install 'e2ee-layer[{extra}]'\n"


def test_server_without_its_extra(tmp_path: Path) -> None:
    for command in (["serve", "--dev"], ["migrate"], ["check-config"]):
        ended = run(tmp_path, _SERVER, "keyserver", *command)

        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.count("\n") == 1
        assert "install 'e2ee-layer[server]'" in ended.stderr


def test_push_without_its_extra(tmp_path: Path) -> None:
    p256_key(tmp_path / "vapid.pem")
    (tmp_path / "sitecustomize.py").write_text(_HIDE.format(hidden=("h2",)))
    settings = {
        "E2EE_ORIGIN": "https://chat.example",
        "E2EE_TOKEN_SECRET": "token secret of the tests, 32 bytes or more",
        "E2EE_HOST_JWT_ALGORITHM": "HS256",
        "E2EE_HOST_JWT_SECRET": "host secret of the tests, 32 bytes or more",
        "E2EE_VAPID_KEY_FILE": str(tmp_path / "vapid.pem"),
        "E2EE_VAPID_SUBJECT": "mailto:admin@chat.example",
    }
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    ended = subprocess.run(
        [sys.executable, "-m", "keyserver", "check-config"],
        capture_output=True,
        text=True,
        env=environment(tmp_path, PYTHONPATH=path, **settings),
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "keyserver: push needs httpx and h2: install 'e2ee-layer[push]'\n"


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
