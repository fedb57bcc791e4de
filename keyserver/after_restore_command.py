"""The arguments of `keyserver admin after-restore`, and how its result is shown.

Owns: names, text, exit codes (0 done, 2 wrong use, or the database cannot be used).
Does not know about: what it does (after_restore.py), which is imported only when it runs.
"""

import argparse
import os
import sys
from typing import Any


def add_command(commands: Any) -> None:
    """Put `after-restore` among the commands below `keyserver admin`."""
    about = "make a database that came from a backup fit to be served; run it before the first process starts"
    command: argparse.ArgumentParser = commands.add_parser("after-restore", help=about, description=about)
    command.add_argument("--database", help="path of an SQLite file, or a postgresql:// URL (default: E2EE_DATABASE)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from keyserver.after_restore import restore_database
    from keyserver.settings import DEFAULT_DATABASE

    try:
        done = restore_database(str(options.database or os.environ.get("E2EE_DATABASE") or DEFAULT_DATABASE))
    except ValueError as error:
        sys.stderr.write(f"keyserver: {error}\n")
        return 2
    sys.stdout.write("".join(f"{name.replace('_', ' ')}: {number}\n" for name, number in done._asdict().items()))
    return 0
