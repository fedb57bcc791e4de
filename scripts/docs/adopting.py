"""docs/adopting.md shows what the example is: its diffs and excerpts come from the files.

Owns: which blocks are filled, from where.
Does not know about: the prose around them.

A block ```diff whose first line is `--- before/NAME` holds the difference between the two files of that name. A block
```python whose first line is `# after/NAME` holds that file from its first import on; with `: A, B` behind it, only the
definitions of these names.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "adopting.md"
EXAMPLE: Final = ROOT / "examples" / "existing_chat"
_CONTEXT: Final = 2
_BLOCK: Final = re.compile(
    r"^(?P<head>```diff\n--- before/(?P<shared>\w+\.py)\n"
    r"|```python\n# after/(?P<new>\w+\.py)(?:: (?P<names>[\w, ]+))?\n)(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def filled(page: str) -> str:
    """Return the page with every block as the files are now."""
    return _BLOCK.sub(lambda block: f"{block['head']}{_content(block)}```", page)


def shown(page: str) -> set[str]:
    """Return the names of the files whose difference, or a part of them, the page shows."""
    return {block["shared"] or block["new"] for block in _BLOCK.finditer(page)}


def shared_files() -> list[str]:
    """Return the names of the files that both chats have."""
    return sorted(file.name for file in (EXAMPLE / "before").glob("*.py"))


def difference(name: str) -> list[str]:
    """Return the lines of the unified diff of a file, without the line that names its old form; empty if equal."""
    before, after = ((EXAMPLE / kind / name).read_text().splitlines() for kind in ("before", "after"))
    names = (f"before/{name}", f"after/{name}")
    return list(difflib.unified_diff(before, after, *names, n=_CONTEXT, lineterm=""))[1:]


def _content(block: "re.Match[str]") -> str:
    if block["shared"] is not None:
        return "".join(f"{line}\n" for line in difference(block["shared"]))
    source = (EXAMPLE / "after" / block["new"]).read_text()
    if block["names"] is None:
        return source.partition('"""\n\n')[2]
    return "\n\n".join(_definitions(source, block["names"].split(", ")))


def _definitions(source: str, names: list[str]) -> Iterator[str]:
    lines = source.splitlines(keepends=True)
    found = {
        node.name: node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for name in names:
        node = found[name]
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        text = "".join(lines[first - 1 : node.end_lineno])
        yield "".join(line.removeprefix(" " * node.col_offset) for line in text.splitlines(keepends=True))
