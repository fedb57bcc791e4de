"""The project names no package registry and no file of the machine it was made on.

People install from the registry or mirror that they trust; an address in a lock file would override that choice.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", ".hypothesis", "node_modules", "__pycache__", "dist", "build", "mutants"}

# Written so that this file does not match itself.
HOSTS = (
    "pypi[.]org",
    "pythonhosted[.]org",
    "npmjs[.](?:org|com)",
    "yarnpkg[.]com",
    "crates[.]io",
    "proxy[.]golang[.]org",
)
ADDRESS = re.compile("|".join(HOSTS) + "|(?:extra-)?index-url[ =]" + "|file:/" + "//")


def test_no_file_holds_the_address_of_a_package_registry() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in files(ROOT)
        for match in ADDRESS.finditer(file.read_bytes().decode("utf-8", errors="replace"))
    ]

    assert found == []


def test_the_pinned_dependencies_hold_no_address_at_all() -> None:
    for name in ("constraints.txt", "constraints-campaigns.txt"):
        assert "://" not in (ROOT / name).read_text()


def files(directory: Path) -> list[Path]:
    found: list[Path] = []
    for entry in directory.iterdir():
        if entry.name in NOT_OURS or entry.name.endswith("_cache") or entry.is_symlink():
            continue
        if entry.is_dir():
            found += files(entry)
        else:
            found.append(entry)
    return found
