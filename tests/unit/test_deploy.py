"""What is in deploy/ says what the server understands, and makes no secret public. Containers are not started here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyserver.__main__ import _parser, main
from keyserver.commands import load_settings
from keyserver.secret_files import DIRECTORY_VARIABLE, database_setting
from keyserver.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHAT_SECRET = "a secret of the chat's own, 32 bytes or more"


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What deploy/secrets.sh makes, and the chat's secret."""
    for name in [name for name in os.environ if name.startswith("E2EE_")]:
        monkeypatch.delenv(name)
    made = tmp_path / "secrets"
    subprocess.run([DEPLOY / "secrets.sh", made], check=True, capture_output=True, timeout=60)
    (made / "e2ee_host_jwt_secret").write_text(CHAT_SECRET + "\n")
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(made))
    return made


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bE2EE_[A-Z_]+\b", text)) - {DIRECTORY_VARIABLE}


def is_setting(variable: str) -> bool:
    return variable.removeprefix("E2EE_").lower() in Settings.model_fields


@pytest.mark.parametrize("name", ["compose.yaml", "keyserver.service", "Dockerfile"])
def test_every_variable_that_is_named_is_a_setting(name: str) -> None:
    assert [each for each in variables((DEPLOY / name).read_text()) if not is_setting(each)] == []


def test_every_secret_of_the_server_is_a_setting_or_a_file_that_one_names(compose: dict[str, Any]) -> None:
    service = compose["services"]["keyserver"]
    named = " ".join(map(str, service["environment"].values()))
    for secret in service["secrets"]:
        assert is_setting(secret.upper()) or f"/run/secrets/{secret}" in named, secret
    assert set(compose["secrets"]) >= {each for it in compose["services"].values() for each in it.get("secrets", ())}


def test_every_command_is_one_that_the_program_takes(compose: dict[str, Any]) -> None:
    unit = (DEPLOY / "keyserver.service").read_text()
    commands = [it["command"] for name, it in compose["services"].items() if name in ("keyserver", "migrate")]
    commands += [line.split()[1:] for line in re.findall(r"(?m)^ExecStart(?:Pre)?=(.+)$", unit)]
    commands.append(re.findall(r'"([^"]+)"', (DEPLOY / "Dockerfile").read_text().split("CMD [")[1]))
    for command in commands:
        _parser().parse_args(command)


def test_only_the_servers_tls_port_is_reachable_from_outside(compose: dict[str, Any]) -> None:
    published = {name: it["ports"] for name, it in compose["services"].items() if "ports" in it}
    assert published == {"keyserver": ["443:8440"]}
    assert compose["networks"]["back"]["internal"] is True
    for name in ("postgres", "redis", "migrate"):
        assert compose["services"][name]["networks"] == ["back"]
    environment = compose["services"]["keyserver"]["environment"]
    assert environment["E2EE_TLS_CERTIFICATE"]
    assert environment["E2EE_TLS_KEY"]


def test_no_secret_stands_in_a_file_or_in_the_image(compose: dict[str, Any]) -> None:
    for it in compose["services"].values():
        for name, value in it.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|KEY|DATABASE", name) or str(value).startswith("/run/secrets"), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert not [line for line in ignored if "deploy" in line.lower().replace("deploy/dockerfile", "")]
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text()):
        copied |= set(line.split())
    assert copied == allowed
    assert all((ROOT / each).exists() for each in copied)


def test_the_pins_of_the_image_hold_what_the_server_needs_at_the_versions_that_are_tested() -> None:
    everything = pins("constraints.txt")
    server = pins("constraints-server.txt")
    assert {"fastapi", "uvicorn", "uvloop", "psycopg-binary", "redis", "prometheus-client", "hatchling"} <= set(server)
    assert not {"pytest", "schemathesis", "mypy"} & set(server)
    assert {name: version for name, version in server.items() if everything.get(name) != version} == {}


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text()))


def test_the_secrets_that_are_made_are_good_ones_and_the_settings_are_complete(
    secrets: Path, compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in compose["services"]["keyserver"]["environment"].items():
        if name.startswith("E2EE_") and "TLS" not in name and name != DIRECTORY_VARIABLE:
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
    monkeypatch.setenv("E2EE_ORIGIN", "https://chat.example")
    settings = load_settings()
    password = (secrets / "postgres_password").read_text().strip()
    assert settings.database == f"postgresql://e2ee:{password}@postgres/e2ee" == database_setting(None)
    assert settings.host_jwt_secret is not None
    assert settings.host_jwt_secret.get_secret_value() == CHAT_SECRET
    configured = (secrets / "redis_configuration").read_text().split()
    assert settings.rate_limits == f"redis://:{configured[1]}@redis:6379/0"
    assert main(["check-config"]) == 0
    output = capsys.readouterr()
    assert password not in output.out + output.err


def test_secrets_that_are_there_stay_and_nobody_else_reads_the_directory(secrets: Path) -> None:
    before = {each.name: each.read_bytes() for each in secrets.iterdir()}
    subprocess.run([DEPLOY / "secrets.sh", secrets], check=True, capture_output=True, timeout=60)
    assert {each.name: each.read_bytes() for each in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_the_environment_goes_before_a_file_and_a_missing_directory_is_a_sentence(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("E2EE_DATABASE", "here.db")
    assert database_setting(None) == "here.db"
    assert database_setting("given.db") == "given.db"
    monkeypatch.delenv("E2EE_DATABASE")
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(secrets / "nowhere"))
    for command in (["check-config"], ["migrate"], ["admin", "stats"]):
        assert main(command) == 2
        assert "there is no such directory" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "keyserver.service"
    program = Path(sys.executable).parent / "keyserver"
    unit.write_text((DEPLOY / "keyserver.service").read_text().replace("/opt/keyserver/bin/keyserver", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    about_us = [line for line in (verified.stdout + verified.stderr).splitlines() if "keyserver.service" in line]
    assert about_us == []
    assessed = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    rated = subprocess.run(assessed, capture_output=True, text=True, timeout=60, check=False)
    assert rated.returncode == 0, rated.stdout[-300:]
