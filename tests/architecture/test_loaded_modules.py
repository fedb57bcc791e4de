"""What an import really loads, seen in a fresh interpreter; import-linter cannot see through a lazy `__getattr__`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIRE_MODULES = sorted(f"e2ee.wire.{file.stem}" for file in (ROOT / "e2ee/wire").glob("*.py") if file.stem != "__init__")

PUBLIC_DATA = {"e2ee", "e2ee.errors", "e2ee.limits", "e2ee.primitives", "e2ee.primitives.kdf", "e2ee.primitives.verify"}
"""All of e2ee, beside e2ee.wire, that may be loaded in a process that holds no secret."""

SERVER_PACKAGES = {"alembic", "fastapi", "pydantic", "sqlalchemy", "starlette", "uvicorn"}


def test_the_key_server_loads_no_private_key_code() -> None:
    assert beyond_public_data(modules_loaded_by("import keyserver.app")) == set()


@pytest.mark.parametrize("module", ["e2ee.wire", *WIRE_MODULES])
def test_the_wire_formats_load_no_private_key_code(module: str) -> None:
    assert beyond_public_data(modules_loaded_by(f"import {module}")) == set()


@pytest.mark.parametrize("package", ["e2ee", "transport_adapters", "transport_adapters.server", "keyserver"])
def test_a_package_alone_loads_nothing_of_e2ee(package: str) -> None:
    assert {name for name in modules_loaded_by(f"import {package}") if name.startswith("e2ee.")} == set()


def test_messenger_is_exported_by_e2ee() -> None:
    assert "e2ee.messenger" in modules_loaded_by("from e2ee import Messenger")


def test_secure_client_is_exported_by_transport_adapters_and_needs_no_server_package() -> None:
    loaded = modules_loaded_by("from transport_adapters import Lane, SecureClient")

    assert "transport_adapters.secure_client" in loaded
    assert loaded & SERVER_PACKAGES == set()


@pytest.mark.parametrize("package", ["e2ee", "transport_adapters"])
def test_every_lazily_exported_name_exists(package: str) -> None:
    modules_loaded_by(f"from {package} import *")


def test_an_unknown_name_is_an_attribute_error() -> None:
    finished = in_fresh_interpreter("import e2ee; e2ee.Messanger")

    assert finished.stderr.endswith("AttributeError: module 'e2ee' has no attribute 'Messanger'\n")


def modules_loaded_by(statement: str) -> set[str]:
    finished = in_fresh_interpreter(f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')")
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def in_fresh_interpreter(program: str) -> subprocess.CompletedProcess[str]:
    # -P: no module is found by accident in the current directory; what counts is what is installed.
    return subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)


def beyond_public_data(loaded: set[str]) -> set[str]:
    ours = {name for name in loaded if name.split(".")[0] == "e2ee"}
    return {name for name in ours - PUBLIC_DATA if name != "e2ee.wire" and not name.startswith("e2ee.wire.")}
