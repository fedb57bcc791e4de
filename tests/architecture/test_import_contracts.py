"""Every import contract of pyproject.toml is seen red: one planted fault per promise it makes.

A contract that can no longer fail (a module renamed, an expression that matches nothing) looks exactly like one that is
kept. So each fault is written into a copy of the packages, and import-linter must name the very contract.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("e2ee", "keyserver", "transport_adapters")
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

# (contract, importing module, what it imports)
FAULTS = [
    ("e2ee-layers", "e2ee.wire.envelope", "e2ee.session"),
    ("e2ee-layers", "e2ee.errors", "e2ee.limits"),
    ("e2ee-layers", "e2ee.pqxdh", "e2ee.ratchet.state"),
    ("e2ee-layers", "e2ee.utils", "e2ee.errors"),  # the contract is exhaustive: a module without a layer is a fault
    ("e2ee-no-io", "e2ee.messenger", "asyncio"),
    ("e2ee-no-io", "e2ee.wire.codec", "logging"),
    ("e2ee-no-io", "e2ee.stores.sqlite", "socket"),
    ("e2ee-no-io", "e2ee.account", "keyserver.client"),
    ("e2ee-one-database", "e2ee.stores.memory", "sqlite3"),
    ("e2ee-one-database", "e2ee.stores.sqlite", "sqlalchemy"),
    ("crypto-backends", "e2ee.ratchet.chains", "nacl.bindings"),
    ("crypto-backends", "keyserver.auth", "cryptography.hazmat.primitives.serialization"),
    ("wire-is-public", "e2ee.wire.prekey_bundle", "e2ee.primitives.sign"),
    ("wire-is-public", "e2ee.primitives.verify", "e2ee.primitives.dh"),
    ("adapter-layers", "transport_adapters.longpoll", "transport_adapters.socketio"),
    ("adapter-layers", "transport_adapters.socketio", "transport_adapters.server.relay"),
    ("adapter-layers", "transport_adapters.server.relay", "transport_adapters.memory"),
    ("adapter-layers", "transport_adapters.utils", "transport_adapters.base"),
    ("adapters-see-envelopes", "transport_adapters.longpoll", "e2ee.messenger"),
    ("adapters-see-envelopes", "transport_adapters.socketio", "e2ee.wire.content"),
    ("adapters-see-envelopes", "transport_adapters.secure_client", "e2ee.private_keys"),
    ("server-holds-no-secret", "keyserver.service", "e2ee.private_keys"),
    ("server-holds-no-secret", "keyserver.client", "e2ee.primitives.sign"),
    ("server-holds-no-secret", "transport_adapters.server.relay", "e2ee.session"),
    ("adapters-know-no-keyserver", "transport_adapters.server.relay", "keyserver.service"),
    ("adapters-know-no-keyserver", "transport_adapters.longpoll", "keyserver.client"),
    ("adapters-know-no-keyserver", "transport_adapters.secure_client", "keyserver.service"),
    ("one-composition-root", "keyserver.service", "transport_adapters.server.relay"),
    ("one-composition-root", "keyserver.app", "transport_adapters.socketio"),
    ("clients-need-no-server", "keyserver.client", "sqlalchemy"),
    ("clients-need-no-server", "transport_adapters.longpoll", "fastapi"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the packages and of the configuration."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_untouched_copy_keeps_every_contract(project: Path) -> None:
    report = lint_imports(project)

    assert [name for name in CONTRACTS.values() if f"{name} KEPT" not in report] == [], report


@pytest.mark.parametrize(("contract", "importer", "imported"), FAULTS, ids=lambda value: value)
def test_a_planted_fault_breaks_its_contract(project: Path, contract: str, importer: str, imported: str) -> None:
    plant(project, importer, f"import {imported}\n")
    if imported.startswith(PACKAGES):
        plant(project, imported, "")  # so that it exists, whatever has been written so far

    report = lint_imports(project, "--contract", contract)

    assert f"{CONTRACTS[contract]} BROKEN" in report, report


def test_every_contract_has_a_planted_fault() -> None:
    assert {contract for contract, _, _ in FAULTS} == set(CONTRACTS)


def plant(project: Path, module: str, line: str) -> None:
    """Put a line on top of a module, where neither TYPE_CHECKING nor a function hides it from import-linter."""
    path = project / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    file.write_text(line + (file.read_text() if file.exists() else ""))


def lint_imports(project: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", *arguments]
    environment = {"COLUMNS": "400", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    return finished.stdout + finished.stderr
