"""Reads a report as a program does: its numbers with their sources, its tables, and embedded data."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Table:
    """A table of a report, with the run and file that it names as its source."""

    source: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[tuple[str, str | None]]] = field(default_factory=list)  # text and value of each cell


class Page(HTMLParser):
    """The content of a report: `charted` is the data of its charts."""

    def __init__(self, html):
        super().__init__()
        self.numbers = []  # (source, value, text)
        self.tables = []
        self.tags = []  # (name, attributes)
        self.text = ""
        self.embedded = ""
        self._number = self._cell = None
        self._inside = ""
        self.feed(html)

    @property
    def charted(self):
        return json.loads(self.embedded)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self._inside = given.get("id", "") if tag == "script" else tag if tag == "style" else ""
        if tag == "script" and not self._inside:
            self._inside = "script"
        if tag == "data":
            self._number = [given["data-source"], given["value"], ""]
        if tag == "table":
            self.tables.append(Table(given.get("data-source", "")))
        if tag == "tr" and self.tables:
            self.tables[-1].rows.append([])
        if tag in ("td", "th"):
            if "data-column" in given:
                self.tables[-1].columns.append(given["data-column"])
            self._cell = ["", given.get("data-value")]

    def handle_endtag(self, tag):
        if tag == "data":
            self.numbers.append(tuple(self._number))
            self._number = None
        if tag in ("td", "th"):
            self.tables[-1].rows[-1].append(tuple(self._cell))
            self._cell = None
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data):
        if self._inside == "data":
            self.embedded += data
        elif not self._inside:
            self.text += data
            if self._number:
                self._number[2] += data
            if self._cell:
                self._cell[0] += data
