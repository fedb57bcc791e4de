"""Write docs/api/, and what docs/adopting.md shows of the example, again: `python -m scripts.docs`, or `make docs`."""

from scripts.docs.adopting import PAGE, filled
from scripts.docs.pages import PAGES
from scripts.docs.reference import DIRECTORY, render


def main() -> None:
    """Write every page and remove those that are no page any more."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for stale in {file.name for file in DIRECTORY.iterdir()} - {page.file for page in PAGES}:
        (DIRECTORY / stale).unlink()
    for page in PAGES:
        (DIRECTORY / page.file).write_text(render(page), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
