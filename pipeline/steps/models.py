"""Lists the networks that `model` takes, as a table on standard output."""

import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pipeline.models import catalogue
from pipeline.models.catalogue import Network
from pipeline.params import ModelsParams
from pipeline.progress import answer, say
from pipeline.progress.table import table
from pipeline.settings import command

HEAD = ["model", "parameters", "px", "licence of the default weights"]
SECONDS = 10  # at most, to count parameters: a person waits for the list
HINTS = 3  # similar names to suggest for an unknown one


def run(params: ModelsParams) -> None:
    """Lists the networks whose names match `params.like`; without it, our own, with a hint how to list the others."""
    if params.like:
        _list(_matching(params.like.strip().lower()))
        return
    _list(catalogue.own())
    others = f"torchvision ({len(catalogue.of_torchvision()):,}) and timm ({len(catalogue.of_timm()):,})"
    say(f"and those of {others}; to list some of them: {command('models', like='convnext')}")


def _matching(wanted: str) -> list[str]:
    """The networks with `wanted` in their names. Raises ValueError if there are none, with similar names as a hint."""
    known = [*catalogue.own(), *catalogue.of_torchvision(), *catalogue.of_timm()]
    if found := [name for name in known if fnmatchcase(name, f"*{wanted}*")]:
        return found
    near = list(dict.fromkeys(name for each in (wanted, f"timm/{wanted}") for name in _nearest(each, known)))[:HINTS]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"like={wanted}: no network has that in its name{hint}")


def _nearest(wanted: str, known: Sequence[str]) -> list[str]:
    return get_close_matches(wanted, known, n=HINTS)


def _list(names: Sequence[str]) -> None:
    deadline = time.monotonic() + SECONDS
    networks = [catalogue.find(name) for name in names]
    rows = [_row(network, time.monotonic() < deadline) for network in networks]
    answer(table(HEAD, rows, sys.stdout, wraps=HEAD[-1], right="parameters"))
    if left := sum(not row[1] for row in rows):
        say(f"the parameters of {left:,} are not counted, because that would take long; give more of the name")


def _row(network: Network, may_count: bool) -> list[str]:
    is_known = network.parameters is not None or may_count
    parameters = f"{catalogue.count(network) / 1e6:,.2f} M" if is_known else ""
    size = "" if network.image_size is None else str(network.image_size)
    return [network.name, parameters, size, network.licence]
