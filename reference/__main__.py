"""python -m reference pages|check

pages writes docs/parameters.md and docs/steps.md from the code. check says what is wrong with the built site.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reference import parameters, site, steps

PROJECT = Path(__file__).resolve().parent.parent
PAGES: dict[str, Callable[[], str]] = {"parameters.md": parameters.page, "steps.md": steps.page}


def main(arguments: Sequence[str]) -> int:
    """Runs the command that `arguments` name. Returns 0; 1 where the site has faults; 2 where it cannot be made."""
    try:
        if list(arguments) == ["pages"]:
            return _write_pages()
        if list(arguments) == ["check"]:
            return _check_site()
        raise ValueError("give pages or check")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _write_pages() -> int:
    for name, page in PAGES.items():
        (PROJECT / "docs" / name).write_text(page(), encoding="utf-8")
    return 0


def _check_site() -> int:
    faults = site.faults(PROJECT)
    print("\n".join(faults) or "the site has all its files, and loads none from another host")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
