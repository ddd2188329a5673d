"""The trained model as MLflow serves it: uint8 images or the bytes of photos in, class names and probabilities out.

MLflow's server reads a request of any size before this code sees it, answers Parquet with a traceback, and answers
deeply nested JSON with 500. Put a proxy before it that limits the size and passes only POST of application/json.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.data import bounds, decoder
from pipeline.model_files.classifier import Classifier
from pipeline.text import visible

# Limits for one request to a server, so that other requests need not wait too long.
MAX_IMAGES = 1024
MAX_PIXELS = 4 * bounds.MAX_PIXELS  # sum over all photos, by their headers
COLUMN = "image"
QUOTED_CHARACTERS = 200  # most characters of a request that an answer quotes
# Parameters of a request, with their defaults. A job over many photos would end at the first one that cannot be read.
PARAMS: dict[str, Any] = {"allow_unreadable": False, "precision": "fp32"}
PRECISIONS = ("fp32", "bf16")


class ServedClassifier(PythonModel):
    """A pyfunc model made from this code and one safetensors file; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Builds the network from the weights file among the model's artifacts."""
        self._classifier = Classifier.load(Path(context.artifacts["weights"]))
        # Decoding a photo takes up to 2 GB, and a server handles several requests at a time. So a single thread decodes
        # all photos one by one, in the order in which they arrive; no request waits until another is complete.
        self._decoding = ThreadPoolExecutor(max_workers=1)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image: `class`, `unsure`, `unlike`, and `p/<name>` for every class; see `Classifier.table`.

        `model_input` is images (N, 3, H, W) of whole numbers from 0 to 255, or a table with one column, `image`, of
        image files of any size, as bytes or base64 text. `params` may have the keys of PARAMS. With `allow_unreadable`,
        the row of an image that cannot be read has an empty class, probabilities of 0, no set, and both marks.

        Raises MlflowException for anything else, which a server answers with 400. In a server it also raises for more
        than MAX_IMAGES images, or more than MAX_PIXELS in photos.
        """
        asked = {**PARAMS, **(params or {})}
        unreadable: list[int] | None = [] if asked["allow_unreadable"] else None
        try:
            if asked["precision"] not in PRECISIONS:
                raise ValueError(f"precision is {' or '.join(PRECISIONS)}, not {visible(str(asked['precision']))}")
            table = self._classifier.table(self._images(model_input, unreadable), asked["precision"])
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        if unreadable:
            _clear(table, unreadable)
        return table

    def _images(self, sent: Any, unreadable: list[int] | None) -> np.ndarray:
        if not isinstance(sent, np.ndarray | pd.DataFrame):
            raise ValueError(
                f"send images (N, 3, H, W) as numbers, or a table with one column, {COLUMN}, of base64 text"
            )
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get() and sent.ndim and len(sent) > MAX_IMAGES:
            raise ValueError(f"{len(sent)} images: send at most {MAX_IMAGES} at a time")
        size = self._classifier.description.image_size
        return _pixels(sent, size) if isinstance(sent, np.ndarray) else self._decoded(sent, size, unreadable)

    def _decoded(self, table: pd.DataFrame, size: int, unreadable: list[int] | None) -> np.ndarray:
        if list(table.columns) != [COLUMN] or table.empty:
            found = visible(", ".join(map(str, table.columns)))[:QUOTED_CHARACTERS]
            raise ValueError(f"send a table with one column, {COLUMN}, and at least one row; found columns [{found}]")
        images = np.zeros((len(table), 3, size, size), dtype=np.uint8)
        for place, file in _files(table, unreadable):
            with _named(place, len(table), unreadable):
                images[place] = self._decoding.submit(self._classifier.read, file).result()
        return images


def _files(table: pd.DataFrame, unreadable: list[int] | None) -> list[tuple[int, BytesIO]]:
    """(place, encoded photo) for a request. Raises ValueError if their headers announce too many pixels."""
    files, num_pixels = [], 0
    for place, sent in enumerate(table[COLUMN]):
        with _named(place, len(table), unreadable):
            file = BytesIO(_content(sent))
            width, height = decoder.size(file)
            num_pixels += width * height
            file.seek(0)
            files.append((place, file))
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get() and num_pixels > MAX_PIXELS:
            found = f"the first {place + 1} of {len(table)} images hold more than {MAX_PIXELS:,} pixels"
            raise ValueError(f"{found}: send fewer or smaller ones at a time")
    return files


@contextmanager
def _named(place: int, number: int, unreadable: list[int] | None) -> Iterator[None]:
    """Inside this context, an error with an image names its place in the request.

    If there is a list `unreadable`, the place is added to it instead, and the context ends.
    """
    try:
        yield
    except ValueError as error:
        if unreadable is None:
            raise ValueError(f"{COLUMN} {place + 1} of {number}: {error}") from None
        unreadable.append(place)


def _clear(table: pd.DataFrame, places: list[int]) -> None:
    """Makes the rows of images that cannot be read say nothing of the black images in their place."""
    table.loc[places, [name for name in table.columns if name.startswith("p/")]] = 0.0
    # Every cell gets a value: JSON has no NaN, and Spark would turn a missing class into the text None.
    table.loc[places, "class"] = ""
    table.loc[places, [name for name in ("unsure", "unlike") if name in table.columns]] = True
    if "set" in table.columns:
        table["set"] = [[] if place in places else names for place, names in enumerate(table["set"])]


def _content(sent: Any) -> bytes:
    if isinstance(sent, bytes):
        return sent
    if not isinstance(sent, str):
        raise ValueError(f"send base64 text, not {type(sent).__name__}")
    try:
        return base64.b64decode("".join(sent.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"not base64 ({error})") from None


def _pixels(sent: np.ndarray, size: int) -> np.ndarray:
    if sent.shape != (len(sent) if sent.ndim else 0, 3, size, size) or not len(sent):
        raise ValueError(f"send images of shape (N, 3, {size}, {size}), not {sent.shape}")
    if sent.dtype == np.uint8:
        return sent
    if sent.dtype.kind not in "iuf":
        raise ValueError(f"pixels must be whole numbers from 0 to 255, not {sent.dtype}")
    wrong = ~((sent >= 0) & (sent <= 255) & (sent == np.floor(sent)))
    if wrong.any():
        raise ValueError(f"pixels must be whole numbers from 0 to 255, not {sent[wrong][0]}")
    if sent.dtype.kind == "f" and sent.max() <= 1:
        # Such an image may be nearly black, or may be scaled to [0, 1]. A wrong guess would go unnoticed.
        raise ValueError("no pixel is brighter than 1.0: send whole numbers from 0 to 255, not fractions")
    return sent.astype(np.uint8)


mlflow.models.set_model(ServedClassifier())
