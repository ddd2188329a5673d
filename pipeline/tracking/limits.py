"""What every tracking store takes of a text: databases refuse longer ones, and some characters."""

import re

from pipeline.text import visible

# Characters. SQLite takes any number; PostgreSQL and MySQL take what the columns in mlflow.store.tracking.dbmodels
# hold, and servers may be older than this MLflow: tags were of 5,000 before they were of 8,000.
NAME, TAG, PARAM = 250, 5_000, 6_000
END = 60  # of a name that is cut: results stand there
REFUSED = re.compile(r"[\x00\ud800-\udfff]")  # by PostgreSQL; and bytes of a file's name that are no text


def name(text: str) -> str:
    """A run's name that every store takes: a long one lacks its middle."""
    text = _storable(text)
    return text if len(text) <= NAME else f"{text[: NAME - END - 3]}...{text[-END:]}"


def tag(text: str) -> str:
    """The value of a tag that every store takes."""
    return _cut(text, TAG)


def param(text: str) -> str:
    """The value of a parameter that every store takes; `params.json` holds it whole."""
    return _cut(text, PARAM)


def _cut(text: str, most: int) -> str:
    text = _storable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _storable(text: str) -> str:
    return REFUSED.sub(lambda found: visible(found[0]), text)
