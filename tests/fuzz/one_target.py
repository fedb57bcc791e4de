"""The process that atheris takes over: `python -m tests.fuzz.one_target TARGET [libFuzzer flags] DIRECTORY`.

Owns: which code is instrumented.
Does not know about: campaigns. This is the one module that imports atheris.
"""

import sys

import atheris

with atheris.instrument_imports(include=["e2ee", "transport_adapters"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
