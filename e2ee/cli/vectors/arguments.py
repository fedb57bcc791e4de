"""The arguments of `e2ee vectors`.

Owns: the grammar, apart from everything else so that the parser of `e2ee` loads nothing for it.
Does not know about: what the commands do (command.py).
"""

import argparse


def add_vectors_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands to the parser of `e2ee vectors`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    checking = actions.add_parser("verify", help="check this package, or another program, against the vectors")
    checking.add_argument("--command", dest="program", metavar="CMD", help="check what this command answers")
    checking.add_argument("--partial", action="store_true", help="let the command leave out what it does not support")
    making = actions.add_parser("generate", help="write the vectors again; the bytes are always the same")
    making.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    making.add_argument("--record", action="store_true", help="make KEM encapsulations that new cases need")
    for each in (checking, making):
        each.add_argument("directory", nargs="?", default="vectors", metavar="DIR", help="default: vectors")
