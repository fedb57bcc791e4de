"""The documents: links lead somewhere, named tests exist, lists of codes are those of the code."""

import re
from pathlib import Path

import pytest

from e2ee import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_documents_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_every_test_that_the_page_of_attacks_names_exists() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    file = ""
    for word in re.findall(r"`([\w/]+\.py|test_\w+)`", page):
        if word.endswith(".py"):
            file = (ROOT / "tests" / word).read_text()
        else:
            assert f"def {word}(" in file, word


def test_the_page_of_attacks_names_every_file_of_attacks() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    missing = [file.name for file in ROOT.glob("tests/attacks/test_*.py") if file.name not in page]
    assert missing == []


def test_the_protocol_lists_every_error_with_its_code_and_remedy() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.E2EEError)]
    for kind in kinds:
        if kind.remedy:
            assert f"| `{kind.code}` | `{kind.__name__}` |" in page
            assert kind.remedy in page, kind.__name__
