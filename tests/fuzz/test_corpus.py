"""Every committed input of every fuzz target, replayed without a fuzzer."""

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

INPUTS = [
    pytest.param(target, data, id=f"{target}: {name}")
    for target in TARGETS
    for name, data in corpus.load(target).items()
]


@pytest.mark.parametrize(("target", "data"), INPUTS)
def test_a_kept_input_breaks_no_property(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_every_target_has_inputs_and_every_file_of_inputs_a_target() -> None:
    assert {path.stem for path in corpus.DIRECTORY.iterdir()} == set(TARGETS)


def test_the_inputs_stay_small() -> None:
    assert sum(path.stat().st_size for path in corpus.DIRECTORY.iterdir()) < 300 * 1024
