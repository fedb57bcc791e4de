"""Attack: guessing an authenticator byte by byte from the time that its comparison takes (docs/attacks.md, row 30)."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from e2ee.private_keys import RootKey, SecretBytes

ROOT: Final = Path(__file__).parents[2]
SECRET_WORDS: Final = (
    "tag",
    "mac",
    "commitment",
    "secret",
    "token",
    "password",
    "passphrase",
    "chain_key",
    "message_key",
)
"""A name that ends in one of these is an authenticator or a secret, unless it is a constant."""

HARMLESS: Final = {
    "keyserver/client.py": "both tokens are the client's own",
    "keyserver/settings.py": "both secrets are the operator's",
    "transport_adapters/server/xmpp.py": "tags are names of XML elements",
}


def comparisons(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of whatever looks secret and is compared with == or != to anything but a literal."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            continue
        operands = [node.left, *node.comparators]
        if any(isinstance(each, ast.Constant) for each in operands):
            continue
        for operand in operands:
            name = operand.attr if isinstance(operand, ast.Attribute) else getattr(operand, "id", "")
            if name.endswith(SECRET_WORDS):
                yield node.lineno, name


@pytest.mark.parametrize("package", ["e2ee", "keyserver", "transport_adapters"])
def test_no_authenticator_is_compared_with_the_equality_operator(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in HARMLESS
        for line, name in comparisons(ast.parse(path.read_text()))
    ]
    assert found == []


def test_the_search_finds_what_it_is_meant_to_find() -> None:
    for source in ("tag == expected", "message.commitment != commitment", "x == self._secret"):
        assert list(comparisons(ast.parse(source))), source


def test_secrets_compare_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", counted)
    key: SecretBytes = RootKey(bytes(32))
    assert key == RootKey(bytes(32))
    assert key != RootKey(b"\x01" * 32)
    assert compared == [32, 32]
