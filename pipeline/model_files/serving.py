"""The trained model as MLflow serves it: uint8 images or the bytes of photos in, class names and probabilities out.

MLflow's server reads a body of any size before this code sees it, answers Parquet with a traceback, and JSON nested a
thousand deep with 500. A proxy before it bounds the body, and lets only POST of application/json through.
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

# Per request to a server, which others wait for.
MAX_IMAGES = 1024
MAX_PIXELS = 4 * bounds.MAX_PIXELS  # of photos, by their headers
COLUMN = "image"
QUOTED_CHARACTERS = 200  # of what somebody sent, in the answer


class ServedClassifier(PythonModel):
    """A pyfunc model made from this code and one safetensors file; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Builds the network from the weights file among the model's artifacts."""
        self._classifier = Classifier.load(Path(context.artifacts["weights"]))
        # A photo takes up to 2 GB while it is decoded, and a server works on several requests at a time: one thread
        # decodes for all of them, photo by photo in the order they come, so that no request waits for all of another.
        self._decoding = ThreadPoolExecutor(max_workers=1)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image: `class`, and `p/<name>` for every class.

        `model_input` is images (N, 3, H, W) of whole numbers from 0 to 255, or a table with one column, `image`, of
        image files of any size: their bytes, or these as base64 text. Raises MlflowException, which a server answers
        with 400, for anything else, and in a server for more than MAX_IMAGES or, in photos, MAX_PIXELS.
        """
        try:
            return self._classifier.table(self._images(model_input))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _images(self, sent: Any) -> np.ndarray:
        if not isinstance(sent, np.ndarray | pd.DataFrame):
            raise ValueError(
                f"send images (N, 3, H, W) as numbers, or a table with one column, {COLUMN}, of base64 text"
            )
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get() and sent.ndim and len(sent) > MAX_IMAGES:
            raise ValueError(f"{len(sent)} images: send at most {MAX_IMAGES} at a time")
        size = self._classifier.description.image_size
        return _pixels(sent, size) if isinstance(sent, np.ndarray) else self._decoded(sent, size)

    def _decoded(self, table: pd.DataFrame, size: int) -> np.ndarray:
        if list(table.columns) != [COLUMN] or table.empty:
            found = visible(", ".join(map(str, table.columns)))[:QUOTED_CHARACTERS]
            raise ValueError(f"a table of images has one column, {COLUMN}, and a row or more, not columns [{found}]")
        images = np.empty((len(table), 3, size, size), dtype=np.uint8)
        for place, file in enumerate(_files(table)):
            with _named(place, len(table)):
                images[place] = self._decoding.submit(self._classifier.read, file).result()
        return images


def _files(table: pd.DataFrame) -> list[BytesIO]:
    """The photos of a request, still encoded. Raises ValueError where their headers announce too many pixels."""
    files, num_pixels = [], 0
    for place, sent in enumerate(table[COLUMN]):
        with _named(place, len(table)):
            file = BytesIO(_content(sent))
        width, height = decoder.size(file)
        num_pixels += width * height
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get() and num_pixels > MAX_PIXELS:
            found = f"the first {place + 1} of {len(table)} images hold more than {MAX_PIXELS:,} pixels"
            raise ValueError(f"{found}: send fewer or smaller ones at a time")
        file.seek(0)
        files.append(file)
    return files


@contextmanager
def _named(place: int, number: int) -> Iterator[None]:
    """Within, what is wrong with an image names its place in the request."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{COLUMN} {place + 1} of {number}: {error}") from None


def _content(sent: Any) -> bytes:
    if isinstance(sent, bytes):
        return sent
    if not isinstance(sent, str):
        raise ValueError(f"base64 text is wanted, not {type(sent).__name__}")
    try:
        return base64.b64decode("".join(sent.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"not base64 ({error})") from None


def _pixels(sent: np.ndarray, size: int) -> np.ndarray:
    if sent.shape != (len(sent) if sent.ndim else 0, 3, size, size) or not len(sent):
        raise ValueError(f"images of shape (N, 3, {size}, {size}) are wanted, not {sent.shape}")
    if sent.dtype == np.uint8:
        return sent
    if sent.dtype.kind not in "iuf":
        raise ValueError(f"pixels are whole numbers from 0 to 255, not {sent.dtype}")
    wrong = ~((sent >= 0) & (sent <= 255) & (sent == np.floor(sent)))
    if wrong.any():
        raise ValueError(f"pixels are whole numbers from 0 to 255, not {sent[wrong][0]}")
    if sent.dtype.kind == "f" and sent.max() <= 1:
        # Black and white, or an image in fractions that happens to be: a guess would look like any other prediction.
        raise ValueError("no pixel is brighter than 1.0: send whole numbers from 0 to 255, no fractions")
    return sent.astype(np.uint8)


mlflow.models.set_model(ServedClassifier())
