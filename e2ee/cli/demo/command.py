"""`e2ee demo`: plays the story, prints what came of it, tidies up.

Owns: the demo's directory, its exit code, what Ctrl-C does.
Does not know about: the story (story.py), what counts as success (checks.py).
"""

import argparse
import asyncio
import contextlib
import shutil
import signal
import tempfile
from pathlib import Path

from e2ee.cli.demo.checks import inspect
from e2ee.cli.demo.processes import DemoError
from e2ee.cli.demo.report import fields, render
from e2ee.cli.demo.story import Story
from e2ee.cli.failures import DONE, INTERRUPTED, REFUSED, explain
from e2ee.cli.output import Printer
from e2ee.cli.settings import UsageError


def run_demo(arguments: argparse.Namespace) -> int:
    """Play the story; return 0 only if everything held."""
    printer = Printer(as_json=arguments.json)
    try:
        directory = _directory(arguments.keep)
    except UsageError as error:
        printer.remark(str(error))
        return explain(error).exit_code
    code = INTERRUPTED
    try:
        code = asyncio.run(_perform(directory, printer, arguments))
    except DemoError as failure:
        code = failure.exit_code
        printer.remark(f"the demo failed: {failure}")
        printer.result("", held=False, error=str(failure), directory=str(directory))
    except (asyncio.CancelledError, KeyboardInterrupt):
        pass
    except Exception as error:  # noqa: BLE001 - told in one line, as everywhere
        told = explain(error)
        code = told.exit_code
        if told.text:
            printer.remark(told.text)
    finally:
        if code == REFUSED:
            printer.remark(f"everything is left in {directory}")
        elif not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _perform(directory: Path, printer: Printer, arguments: argparse.Namespace) -> int:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C does, so that no process is left behind.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel if task else int)
    async with Story(directory, printer, arguments.transport) as story:
        evidence = await story.play()
        report = inspect(evidence)
        printer.result(render(report), **fields(report))
        if arguments.interactive:
            with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C, as it is meant to end
                await story.stay()
    return DONE if report.held else REFUSED


def _directory(keep: str | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="e2ee-demo-"))
    directory = Path(keep).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty: name a new directory")
    except OSError as error:
        raise UsageError(f"{directory} cannot be used: {error.strerror}") from None
    return directory
