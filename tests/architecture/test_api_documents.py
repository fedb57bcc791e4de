"""The reference pages in docs/api say what the docstrings say, and the docstrings say enough."""

import ast

import e2ee
import transport_adapters
from scripts.docs.pages import PAGES
from scripts.docs.reference import (
    DIRECTORY,
    faults,
    judge,
    known_errors,
    members,
    prose,
    render,
    selected,
    split_errors,
)


def test_the_committed_pages_are_what_the_docstrings_give() -> None:
    stale = [page.file for page in PAGES if (DIRECTORY / page.file).read_text(encoding="utf-8") != render(page)]
    assert stale == [], "run `make docs`"


def test_no_page_is_left_over() -> None:
    assert {file.name for file in DIRECTORY.iterdir()} == {page.file for page in PAGES}


def test_everything_public_has_a_docstring_and_raises_errors_that_exist() -> None:
    assert faults() == []


def test_every_name_that_a_package_offers_at_its_top_is_on_a_page() -> None:
    shown = {member.name for page in PAGES for selection in page.selections for member in selected(selection)}
    assert shown >= {*e2ee.__all__, *transport_adapters.__all__}


PLANTED = '''
def described() -> None:
    """Do it.

    Raises:
        ValueError, MalformedMessageError: see elsewhere,
            over two lines.
        See `undescribed`.
    """

def undescribed() -> None: ...

def unheard_of() -> None:
    """Do it.

    Raises:
        NoSuchError: never.
    """

def nameless() -> None:
    """Do it.

    Raises:
        something or other.
    """

def _private() -> None: ...

SPEAKS_FOR_ITSELF = 1

DESCRIBED = 2
"""Two."""
'''


def test_planted_faults_are_found_and_nothing_else() -> None:
    found = {
        member.name: list(judge(member.name, member, known_errors())) for member in members(ast.parse(PLANTED).body)
    }
    assert found == {
        "described": [],
        "undescribed": ["undescribed has no docstring"],
        "unheard_of": ["unheard_of raises NoSuchError, which does not exist"],
        "nameless": ["nameless raises something without a name: something or other."],
        "SPEAKS_FOR_ITSELF": [],
        "DESCRIBED": [],
    }


def test_errors_become_a_list() -> None:
    described = next(iter(members(ast.parse(PLANTED).body))).docstring
    assert described is not None
    assert split_errors(described)[1] == [
        (["ValueError", "MalformedMessageError"], "see elsewhere, over two lines."),
        ([], "See `undescribed`."),
    ]
    assert prose(described) == (
        "Do it.\n\nRaises:\n\n"
        "* `ValueError`, `MalformedMessageError`: see elsewhere, over two lines.\n"
        "* See `undescribed`."
    )


def test_the_projects_own_errors_and_those_of_python_are_known() -> None:
    own = {"MalformedMessageError", "KeyServerRefusedError", "TransportUnavailableError", "TokenInvalidProblem"}
    assert known_errors() >= {*own, "ValueError", "OSError"}
    assert not known_errors() & {"Messenger", "Reception", "ValueErrors"}
