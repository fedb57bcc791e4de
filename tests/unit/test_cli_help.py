"""The help of the command line: every command has one, and it can be shown."""

import argparse
from collections.abc import Iterator

import pytest

from e2ee.cli.__main__ import _parser, main


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(_parser())), ids=" ".join)
def test_every_command_shows_its_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(" ".join(("usage: e2ee", *path)))
