"""Shortens texts to what every tracking store accepts: databases refuse long texts and some characters."""

import re

from pipeline.text import visible

# In characters. SQLite takes any length; PostgreSQL and MySQL take the column widths in mlflow.store.tracking.dbmodels.
# A server may be older than this MLflow: the limit for tags was 5,000 before it was 8,000.
NAME, TAG, PARAM = 250, 5_000, 6_000
NAME_END = 60  # characters kept at the end of a shortened name, because results stand there
REFUSED = re.compile(r"[\x00\ud800-\udfff]")  # PostgreSQL refuses NUL; surrogates are bytes of a file name, not text


def name(text: str) -> str:
    """A run's name that every store accepts; a long name loses its middle."""
    text = _storable(text)
    return text if len(text) <= NAME else f"{text[: NAME - NAME_END - 3]}...{text[-NAME_END:]}"


def tag(text: str) -> str:
    """The value of a tag that every store accepts; a long value loses its end."""
    return _cut(text, TAG)


def param(text: str) -> str:
    """The value of a parameter that every store accepts; `params.json` holds the complete value."""
    return _cut(text, PARAM)


def _cut(text: str, most: int) -> str:
    text = _storable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _storable(text: str) -> str:
    return REFUSED.sub(lambda found: visible(found[0]), text)
