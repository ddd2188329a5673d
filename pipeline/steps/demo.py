"""Serves a page on which a person drops a photo and sees what a trained model says of it, and where it looks."""

import base64
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.encoder import to_png
from pipeline.demo import server
from pipeline.explain.logits import NotFinite
from pipeline.history import trained_model
from pipeline.history.trained_model import TrainedModel
from pipeline.params import DemoParams, TrainedModelParams, TrainParams
from pipeline.progress import answer
from pipeline.results.plots.images import laid_over
from pipeline.steps import contact_sheet
from pipeline.text import visible

LIKELIEST = 5  # classes to show
WARNINGS = {
    "unsure": "Unsure: the probability is too low to rely on the class.",
    "unlike": "Unlike the training photos: the answer may mean nothing.",
}


def run(params: DemoParams) -> None:
    """Serves the page until the user presses Ctrl-C."""
    with server.listening(params.port) as socket, suppress(KeyboardInterrupt):
        network = trained_model.find_model(params.to(TrainedModelParams))
        host, port = socket.getsockname()
        answer(f"open http://{host}:{port}/ in a browser on this machine; Ctrl-C ends it")
        server.serve(socket, _title(network.params), partial(_answer, network))


def _title(params: TrainParams) -> str:
    return visible(f"{params.set_name}: {params.model}")


def _answer(network: TrainedModel, content: bytes) -> dict[str, Any]:
    """The content of `page.html` for the photo in `content`: texts, probabilities, and images as URLs."""
    image = network.classifier.read(BytesIO(content)).copy()  # writable, as torch wants it
    row = network.classifier.table(image[None]).iloc[0]
    classes = network.classifier.classes
    probabilities = np.array([row[f"p/{name}"] for name in classes])
    likeliest = np.argsort(-probabilities, kind="stable")[:LIKELIEST]
    shown = {"image": _url(image), "map": "", "method": ""}
    with suppress(ValueError, NotFinite):  # a network without a grid has no map
        shown["method"], maps = contact_sheet.maps(network, image[None], likeliest[:1])
        shown["map"] = _url(laid_over(image, maps[0]))
    return {
        "class": str(row["class"]),
        "probabilities": [[classes[place], float(probabilities[place])] for place in likeliest],
        "set": _set(network, row),
        "warnings": [words for column, words in WARNINGS.items() if row.get(column)],
        **shown,
    }


def _set(network: TrainedModel, row: pd.Series) -> str:
    """The set of classes of the answer in `row`, as a sentence; empty if the model has no sets."""
    calibration = network.classifier.calibration
    if calibration is None or (sets := calibration.known_sets) is None:
        return ""
    return f"For {100 * sets.coverage:g} % of photos or more, the class is one of: {', '.join(row['set'])}"


def _url(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(to_png(image)).decode("ascii")
