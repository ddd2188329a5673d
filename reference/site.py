"""Checks that the generator does not make: missing files, pages outside the menu, files from other hosts."""

import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TARGETS = {"a": "href", "img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}
INERT = {"canonical", "prev", "next", "alternate"}  # links of a page's head that no browser loads


def faults(project: Path) -> list[str]:
    """A line for each fault of the site in `site/`. Raises ValueError where there is none."""
    built = (project / "site").resolve()
    pages = sorted(built.rglob("*.html"))
    if not pages:
        raise ValueError("there is no site: zensical build")
    return [*_menu(project), *(fault for page in pages for fault in _targets(page, built))]


def _menu(project: Path) -> Iterator[str]:
    navigation = tomllib.loads((project / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = set(_leaves(navigation))
    there = {path.relative_to(project / "docs").as_posix() for path in (project / "docs").rglob("*.md")}
    for name in sorted(listed ^ there):
        yield f"docs/{name} is " + ("in the menu of zensical.toml, but no file" if name in listed else "in no menu")


def _leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from _leaves(each)


class _Targets(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []  # tag and target

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get(TARGETS.get(tag, ""))
        if target and values.get("rel") not in INERT:
            self.found.append((tag, target))


def _targets(page: Path, built: Path) -> Iterator[str]:
    parser = _Targets()
    parser.feed(page.read_text(encoding="utf-8"))
    shown = page.relative_to(built)
    for tag, target in parser.found:
        address = urlsplit(target)
        if address.netloc and tag != "a":
            yield f"{shown} loads {target} from another host"
        elif address.path and not address.scheme and not address.netloc:
            folder = built if address.path.startswith("/") else page.parent
            file = (folder / unquote(address.path).lstrip("/")).resolve()
            if not (file.is_relative_to(built) and file.exists()):
                yield f"{shown} leads to {target}, which is not there"
