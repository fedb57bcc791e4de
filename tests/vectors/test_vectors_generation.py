"""The generator writes the committed files, byte for byte, whatever machine and process it runs in."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from e2ee.cli.vectors import drawn, generate
from e2ee.cli.vectors.cases import people, primitives
from e2ee.cli.vectors.flags import FLAGS
from e2ee.cli.vectors.model import Case, CaseGroup
from e2ee.cli.vectors.operations import padding
from e2ee.cli.vectors.registry import FILES
from e2ee.primitives import kem

VECTORS: Final = Path(__file__).parents[2] / "vectors"


def test_generation_gives_the_committed_files_byte_for_byte() -> None:
    assert [name for name, _ in generate.differences(VECTORS, list(generate.generate()))] == []


def test_every_committed_file_is_generated() -> None:
    committed = {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}
    assert committed == {name for name, _ in generate.generate()} | {"README.md"}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_generation_in_a_fresh_place_and_process_gives_the_same_bytes(tmp_path: Path, seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-m", "e2ee.cli", "vectors", "generate", str(tmp_path / "new")]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 2 * len(FILES)
    for path in (tmp_path / "new").rglob("*.json"):
        assert path.read_bytes() == (VECTORS / path.relative_to(tmp_path / "new")).read_bytes()


def test_a_check_reports_what_differs_and_writes_nothing(tmp_path: Path) -> None:
    generate.write(tmp_path)
    changed = tmp_path / "padding.json"
    changed.write_bytes(changed.read_bytes() + b" ")
    before = changed.read_bytes()
    command = [sys.executable, "-m", "e2ee.cli", "vectors", "generate", "--check", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stdout == f"differs: {changed}\n"
    assert changed.read_bytes() == before


def test_the_recorded_encapsulations_are_real_ones() -> None:
    for who in (people.person("alice"), people.person("bob")):
        for own in (who.one_time_kem, who.last_resort):
            pair = people.kem_pair(own)
            for number in range(generate.ENCAPSULATIONS):
                shared_secret, ciphertext = drawn.encapsulation(pair.public.raw, number)
                assert kem.decapsulate_1024(pair.seed.expose(), ciphertext) == shared_secret


def test_an_encapsulation_that_was_not_recorded_is_an_error_and_not_a_new_one() -> None:
    with pytest.raises(LookupError, match="--record"):
        drawn.encapsulation(primitives.KEM_KEY, 99)


def test_recording_again_changes_nothing() -> None:
    before = drawn.RECORD.read_bytes()
    generate.record_encapsulations()
    assert drawn.RECORD.read_bytes() == before


def test_a_case_that_its_operation_contradicts_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = CaseGroup(padding.UNPAD, "wrong", (Case("zeros", {"padded": "00" * 256}, ("Normal",)),))
    monkeypatch.setitem(generate.GROUPS, "padding", lambda: iter([wrong]))
    with pytest.raises(generate.UnexpectedOutcomeError, match="expected valid, found refused at decode"):
        generate.document(padding.FILE)


def test_every_flag_is_used() -> None:
    used = {flag for file in FILES for flag in generate.document(file)["notes"]}
    assert used == set(FLAGS)


def test_the_files_are_of_moderate_size_and_hold_more_than_300_cases() -> None:
    assert max(path.stat().st_size for path in VECTORS.glob("*.json")) < 1_000_000
    assert sum(generate.document(file)["numberOfTests"] for file in FILES) > 300
