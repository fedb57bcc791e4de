"""docs/adopting.md shows the example as it is, and what is added to a chat stays little."""

from scripts.docs.adopting import EXAMPLE, PAGE, difference, filled, shared_files, shown

MOST_CHANGED_LINES = 180
MOST_CHANGED_LINES_OF_THE_SERVER = 30


def changed(name: str) -> int:
    return sum(line[0] in "+-" for line in difference(name)[1:])


def test_the_page_shows_the_files() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "run make docs"


def test_the_page_shows_every_file_that_differs_and_every_new_one() -> None:
    new = {file.name for file in (EXAMPLE / "after").glob("*.py")} - set(shared_files())
    assert shown(PAGE.read_text()) == {name for name in shared_files() if difference(name)} | new


def test_little_is_added() -> None:
    assert sum(changed(name) for name in shared_files() if difference(name)) <= MOST_CHANGED_LINES
    assert changed("server.py") <= MOST_CHANGED_LINES_OF_THE_SERVER


def test_an_outdated_block_is_noticed() -> None:
    page = PAGE.read_text()
    for line in ("+    attach(sio, services.relay)", "async def may_contact(self", "async def _receive(self)"):
        assert line in page
        assert filled(page.replace(line, line + "# old")) == page
