"""From docstrings to reference pages.

Owns: reading modules without importing them, the form of the pages, what is wrong with a docstring.
Does not know about: what belongs on which page (pages.py).

Signatures are the text of the source, so that a page says `TokenProvider` where the code does, and does not depend on
the Python that generates it.
"""

import ast
import builtins
import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import dedent, indent
from typing import Final, NamedTuple

from scripts.docs.pages import PAGES, Page, Selection

ROOT: Final = Path(__file__).parents[2]
DIRECTORY: Final = ROOT / "docs" / "api"
PACKAGES: Final = ("e2ee", "keyserver", "transport_adapters")
WIDTH: Final = 100
"""Signatures that are longer take one line per parameter."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Variable = ast.Assign | ast.AnnAssign


class Member(NamedTuple):
    """Something public: a function, a class, or a variable with the string that follows it."""

    name: str
    node: Function | ast.ClassDef | Variable
    docstring: str | None


class Module(NamedTuple):
    """A module's text and tree."""

    source: str
    tree: ast.Module

    def text(self, node: ast.AST) -> str:
        """Return a node's own text, on one line."""
        return " ".join((ast.get_source_segment(self.source, node) or "").split())


@cache
def load(name: str) -> Module:
    """Read a module of the project."""
    path = ROOT.joinpath(*name.split("."))
    source = path.with_suffix(".py").read_text() if not path.is_dir() else (path / "__init__.py").read_text()
    return Module(source, ast.parse(source))


def members(body: Sequence[ast.stmt]) -> Iterator[Member]:
    """Find what is public, in the order of the source; of special methods those that have something to say."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, Function | ast.ClassDef):
            docstring = ast.get_docstring(statement)
            name = statement.name
            if not name.startswith("_") or name == "__call__" or (docstring and name.startswith("__")):
                yield Member(name, statement, docstring)
        elif isinstance(statement, Variable):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield Member(target.id, statement, _string(following))


def selected(selection: Selection) -> Iterator[Member]:
    """Find what a selection names, in its order.

    Raises:
        KeyError: a name that the module does not have.
    """
    found = {member.name: member for member in members(load(selection.module).tree.body)}
    yield from (found[name] for name in selection.names.split() or found if name not in selection.omit.split())


def methods(node: ast.ClassDef, selection: Selection) -> Iterator[Member]:
    """Find the methods that the page shows."""
    for member in members(node.body):
        if isinstance(member.node, Function) and member.name not in ("__init__", *selection.omit.split()):
            yield member


# --- Rendering -----------------------------------------------------------------------------------------------


def render(page: Page) -> str:
    """Return a page's Markdown."""
    parts = [f"# {page.title}", page.introduction, "Generated from the docstrings by `make docs`; do not edit."]
    contents, bodies = [], []
    for selection in page.selections:
        shown = list(selected(selection))
        links = ", ".join(f"[{member.name}](#{member.name.lower()})" for member in shown)
        contents.append(f"* [{selection.module}](#{selection.module.replace('.', '').lower()}): {links}")
        bodies += [f"## {selection.module}", prose(ast.get_docstring(load(selection.module).tree) or "")]
        bodies += [part for member in shown for part in _member(selection, member)]
    return "\n\n".join(part for part in [*parts, "\n".join(contents), *bodies] if part) + "\n"


def _member(selection: Selection, member: Member) -> Iterator[str]:
    module, node = load(selection.module), member.node
    yield f"### {member.name}"
    if isinstance(node, ast.ClassDef):
        own = {each.name: each for each in members(node.body)}
        constructor = next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)
        construction = [_signature(module, constructor, node.name, returns=False)] if constructor else []
        yield _code(*_decorators(module, node), _class(module, node), *construction)
        yield prose(member.docstring or "")
        yield prose((constructor and ast.get_docstring(constructor)) or "")
        yield "\n".join(
            _attribute(module, each)
            for each in own.values()
            if isinstance(each.node, Variable) and each.name not in selection.omit.split()
        )
        for method in methods(node, selection):
            yield f"#### {member.name}.{method.name}"
            yield _function(module, method)
    elif isinstance(node, Function):
        yield _function(module, member)
    else:
        yield _code(module.text(node))
        yield prose(member.docstring or "")


def _function(module: Module, member: Member) -> str:
    node = member.node
    assert isinstance(node, Function)
    keyword = "async def " if isinstance(node, ast.AsyncFunctionDef) else "def "
    signature = _signature(module, node, keyword + node.name)
    if "@property" in _decorators(module, node) and node.returns:
        signature = f"{node.name}: {module.text(node.returns)}"
    return "\n\n".join([_code(*_decorators(module, node), signature), prose(member.docstring or "")])


def _signature(module: Module, node: Function, name: str, *, returns: bool = True) -> str:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    shown = [_parameter(module, *each) for each in zip(positional, [*defaults, *given.defaults], strict=True)]
    if positional and positional[0].arg in ("self", "cls"):
        del shown[0]
    if given.vararg or given.kwonlyargs:
        shown.append("*" + (_parameter(module, given.vararg, None) if given.vararg else ""))
    shown += [_parameter(module, *each) for each in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    shown += ["**" + _parameter(module, given.kwarg, None)] if given.kwarg else []
    result = f" -> {module.text(node.returns)}" if returns and node.returns else ""
    whole = f"{name}({', '.join(shown)}){result}"
    return whole if len(whole) <= WIDTH else "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){result}"])


def _parameter(module: Module, node: ast.arg, default: ast.expr | None) -> str:
    text = f"{node.arg}: {module.text(node.annotation)}" if node.annotation else node.arg
    if default is None:
        return text
    value = module.text(default)
    return f"{text} = {'...' if value.startswith('_') else value}"


def _class(module: Module, node: ast.ClassDef) -> str:
    bases = ", ".join(module.text(base) for base in node.bases)
    return f"class {node.name}({bases})" if bases else f"class {node.name}"


def _attribute(module: Module, member: Member) -> str:
    shown = f"* `{module.text(member.node)}`"
    return f"{shown}: {indent(prose(member.docstring), '  ').strip()}" if member.docstring else shown


def _decorators(module: Module, node: Function | ast.ClassDef) -> list[str]:
    return [f"@{text}" for text in map(module.text, node.decorator_list) if text != "final"]


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def prose(docstring: str) -> str:
    """Turn a docstring into Markdown: its list of errors becomes a list."""
    before, errors = split_errors(docstring)
    listed = [
        f"* {', '.join(f'`{name}`' for name in names)}: {text}" if names else f"* {text}" for names, text in errors
    ]
    return "\n\n".join(part for part in [before, "Raises:" if listed else "", "\n".join(listed)] if part)


def split_errors(docstring: str) -> tuple[str, list[tuple[list[str], str]]]:
    """Cut a docstring at `Raises:`. Return what is before, and (names, text) of each entry; no names in a reference."""
    before, _, after = docstring.partition("\nRaises:\n")
    entries = re.split(r"\n(?! )", dedent(after).strip()) if after else []
    return before.strip(), [_entry(" ".join(entry.split())) for entry in entries]


def _entry(text: str) -> tuple[list[str], str]:
    matched = re.match(r"((?:\w+, )*\w+): (.*)", text)
    return (matched[1].split(", "), matched[2]) if matched else ([], text)


# --- Checking ------------------------------------------------------------------------------------------------


def faults() -> list[str]:
    """Return what is wrong with the docstrings of all pages: missing ones, and errors that do not exist."""
    known, found = known_errors(), list[str]()
    for selection in [selection for page in PAGES for selection in page.selections]:
        for member in selected(selection):
            found += judge(f"{selection.module}.{member.name}", member, known)
            for method in methods(member.node, selection) if isinstance(member.node, ast.ClassDef) else ():
                found += judge(f"{selection.module}.{member.name}.{method.name}", method, known)
    return found


def judge(name: str, member: Member, known: frozenset[str]) -> Iterator[str]:
    """Say what is wrong with one docstring. A variable may speak for itself."""
    if member.docstring is None and not isinstance(member.node, Variable):
        yield f"{name} has no docstring"
    for names, text in split_errors(member.docstring or "")[1]:
        if not names and not text.startswith("See "):
            yield f"{name} raises something without a name: {text}"
        yield from (f"{name} raises {error}, which does not exist" for error in names if error not in known)


@cache
def known_errors() -> frozenset[str]:
    """Return the names of all exceptions of the project and of Python."""
    known = {
        name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, BaseException)
    }
    bases: dict[str, set[str]] = {}
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base) for base in node.bases}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    return frozenset(known)


def _string(statement: ast.stmt | None) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        text = statement.value.value
        return inspect.cleandoc(text) if isinstance(text, str) else None
    return None
