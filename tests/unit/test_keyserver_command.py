"""The `keyserver` command: what it refuses, and that it says why in a sentence."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from keyserver.__main__ import main
from keyserver.migrations.runner import VERSION_TABLE

ROOT = Path(__file__).parent.parent.parent

COMPLETE = {
    "E2EE_ORIGIN": "https://chat.example",
    "E2EE_TOKEN_SECRET": "token secret of the tests, 32 bytes or more",
    "E2EE_HOST_JWT_ALGORITHM": "HS256",
    "E2EE_HOST_JWT_SECRET": "host secret of the tests, 32 bytes or more",
}


class Result(NamedTuple):
    code: int
    output: str
    errors: str


Run = Callable[..., Result]


@pytest.fixture
def keyserver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, with an environment of the test's own."""
    for name in [name for name in os.environ if name.startswith("E2EE_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as ended:  # argparse
                code = int(ended.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def assert_refused(result: Result, *says: str) -> None:
    assert result.code == 2
    assert "Traceback" not in result.errors
    for part in says:
        assert part in result.errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_built_in_login_never_leaves_this_machine(keyserver: Run, host: str) -> None:
    assert_refused(keyserver("serve", "--dev", "--host", host), "--dev", "loopback only")
    assert_refused(keyserver("serve", "--dev", "--behind-tls-proxy", "--host", host), "--dev", "loopback only")


def test_plaintext_beyond_this_machine_needs_a_declared_proxy(keyserver: Run) -> None:
    assert_refused(keyserver("serve", "--host", "0.0.0.0", **COMPLETE), "--behind-tls-proxy")


def test_with_a_certificate_of_its_own_it_may_be_reached_from_anywhere(keyserver: Run, tmp_path: Path) -> None:
    # No such files: that is what it stops at, and not at the address.
    files = ("--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    result = keyserver("serve", "--host", "0.0.0.0", "--port", "0", *files, **COMPLETE)
    assert_refused(result, "cert.pem", "cannot be used", "No such file")
    alone = keyserver("serve", "--host", "0.0.0.0", "--port", "0", *files[:2], **COMPLETE)
    assert_refused(alone, "go together")


def test_a_name_is_not_taken_for_loopback(keyserver: Run) -> None:
    assert_refused(keyserver("serve", "--dev", "--host", "localhost.example"), "loopback only")


@pytest.mark.parametrize("missing", ["uvicorn", "sqlalchemy"])
def test_a_missing_package_is_a_sentence(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from keyserver.__main__ import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "serve", "--dev"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert_refused(Result(result.returncode, result.stdout, result.stderr), "install 'e2ee-layer[server]'")


def test_serve_without_settings_names_what_is_missing(keyserver: Run) -> None:
    assert_refused(keyserver("serve", "--port", "0"), "E2EE_ORIGIN: is not set", "E2EE_TOKEN_SECRET")


def test_serve_without_a_way_to_verify_users_says_so(keyserver: Run, tmp_path: Path) -> None:
    settings = {name: value for name, value in COMPLETE.items() if "HOST_JWT" not in name}
    arguments = ("serve", "--port", "0", "--database", str(tmp_path / "keys.db"))
    assert_refused(keyserver(*arguments, **settings), "E2EE_HOST_JWT_ALGORITHM is missing")


def test_an_unusable_database_is_a_sentence(keyserver: Run, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere" / "keys.db")
    for arguments in (("serve", "--dev", "--port", "0"), ("migrate",)):
        assert_refused(keyserver(*arguments, "--database", nowhere), "unable to open database file")
    (tmp_path / "text.db").write_text("this is no database, and long enough to be sure of it\n" * 100)
    assert_refused(keyserver("migrate", "--database", str(tmp_path / "text.db")), "not a database")
    assert_refused(keyserver("migrate", "--database", "mysql://host/keys"), "SQLite or PostgreSQL")


def test_migrate_makes_the_tables_and_may_be_repeated(keyserver: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert keyserver("migrate", "--database", str(tmp_path / "keys.db")).code == 0
    assert (tmp_path / "keys.db").stat().st_size > 0


def test_migrate_leaves_the_tables_of_a_newer_release_alone(keyserver: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    assert keyserver("migrate", "--database", str(path)).code == 0
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = path.read_bytes()
    for arguments in (("migrate",), ("serve", "--dev", "--port", "0"), ("admin", "stats"), ("admin", "after-restore")):
        assert_refused(keyserver(*arguments, "--database", str(path)), "newer release")
    assert path.read_bytes() == before


@pytest.mark.parametrize("port", ["65536", "-1", "http", "²"])
@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_what_is_no_port_is_called_so(keyserver: Run, option: str, port: str) -> None:
    assert_refused(keyserver("serve", "--dev", f"{option}={port}"), f"{option}: {port!r} is not a port")


def test_settings_are_named_as_the_environment_names_them(keyserver: Run) -> None:
    half = keyserver("check-config", **COMPLETE, E2EE_TLS_KEY="/key.pem")
    assert_refused(half, "E2EE_TLS_CERTIFICATE and E2EE_TLS_KEY go together")
    other = keyserver("check-config", **COMPLETE | {"E2EE_HOST_JWT_ALGORITHM": "RS256"})
    assert_refused(other, "E2EE_HOST_JWT_SECRET has no use with RS256")


def test_a_list_that_is_not_json_is_shown_how_to_be_written(keyserver: Run) -> None:
    result = keyserver("check-config", **COMPLETE, E2EE_TRUSTED_PROXIES="10.0.0.1, geheim")
    assert_refused(result, 'E2EE_TRUSTED_PROXIES: a list is written as JSON: ["one", "two"]')
    assert "geheim" not in result.errors


def test_a_mistyped_setting_is_noticed_and_a_clients_is_not(keyserver: Run) -> None:
    result = keyserver(
        "check-config", **COMPLETE, E2EE_ORIGINN="x", E2EE_DATABSE="y", E2EE_PASSPHRASE="z", E2EE_HOME="."
    )
    assert result.code == 0
    notes = [line for line in result.output.splitlines() if "is no setting" in line]
    assert [note.split()[1] for note in notes] == ["E2EE_DATABSE", "E2EE_ORIGINN"]
    assert notes[0].endswith("is E2EE_DATABASE meant?")


def test_check_config_accepts_complete_settings_and_names_what_is_wrong(keyserver: Run) -> None:
    assert keyserver("check-config", **COMPLETE).code == 0
    weak = COMPLETE | {"E2EE_HOST_JWT_SECRET": "secret"}
    assert_refused(keyserver("check-config", **weak), "E2EE_HOST_JWT_SECRET", "32 bytes")
    same = COMPLETE | {"E2EE_HOST_JWT_SECRET": COMPLETE["E2EE_TOKEN_SECRET"]}
    assert_refused(keyserver("check-config", **same), "must differ")
    for value in COMPLETE.values():
        assert "secret of the tests" not in keyserver("check-config", **same).errors, value


def test_a_bridge_without_a_broker_says_what_is_missing(keyserver: Run) -> None:
    assert_refused(keyserver("mqtt-bridge", **COMPLETE), "E2EE_MQTT_BROKER", "mqtts://")


def test_check_config_reads_the_brokers_certificates(keyserver: Run, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    broker = {"E2EE_MQTT_BROKER": "mqtts://broker.example", "E2EE_MQTT_PASSWORD": "geheim"}
    for name in ("nowhere.pem", "text.pem"):
        result = keyserver("check-config", **COMPLETE, **broker, E2EE_MQTT_CA_FILE=str(tmp_path / name))
        assert_refused(result, "E2EE_MQTT_CA_FILE")
        assert "geheim" not in result.errors


def test_help_names_every_command(keyserver: Run) -> None:
    result = keyserver("--help")
    assert result.code == 0
    assert all(command in result.output for command in ("serve", "mqtt-bridge", "migrate", "check-config"))
    assert keyserver().code == 2
