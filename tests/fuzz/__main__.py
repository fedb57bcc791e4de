"""`python -m tests.fuzz`: runs atheris over the targets, and keeps what it finds.

    run [--seconds N] [TARGET ...]     fuzz; exits with 1 if a property broke
    replay TARGET FILE                 run one input, under a debugger if you like
    keep TARGET FILE NAME              add an input to tests/fuzz/corpus, where every test run replays it

Owns: the command line.
Does not know about: how a campaign is carried out (campaign.py).
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz import campaign, corpus


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the decoders and the conversations."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fuzz with atheris")
    run.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    run.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    for name, text in (("replay", "run one input"), ("keep", "add an input to the corpus")):
        command = commands.add_parser(name, help=text)
        command.add_argument("target")
        command.add_argument("file", type=Path)
        if name == "keep":
            command.add_argument("name", help="what the input is, in a few words")
    chosen = parser.parse_args()
    if chosen.command == "run":
        return campaign.run(chosen.targets, chosen.seconds)

    from tests.fuzz.targets import TARGETS

    if chosen.target not in TARGETS:
        parser.error(f"no target {chosen.target}; there are {' '.join(TARGETS)}")
    data = chosen.file.read_bytes()
    if chosen.command == "keep":
        corpus.keep(chosen.target, chosen.name, data)
    else:
        TARGETS[chosen.target](data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
