"""The trained model as MLflow serves it: uint8 images in, class names and probabilities out.

MLflow's server reads a body of any size before this code sees it, answers CSV and Parquet with a traceback, and JSON
nested a thousand deep with 500. A proxy before it bounds the body, and lets only POST of application/json through.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.tracking.classifier import Classifier

MAX_IMAGES = 1024  # per request to a server, which others wait for


class ServedClassifier(PythonModel):
    """A pyfunc model made from this code and one safetensors file; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Builds the network from the weights file among the model's artifacts."""
        self._classifier = Classifier.load(Path(context.artifacts["weights"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image: `class`, and `p/<name>` for every class. `model_input` is (N, 3, H, W) uint8.

        In a server, raises MlflowException, which it answers with 400, for more than MAX_IMAGES and for none brighter
        than 1.
        """
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
            _check_request(model_input)
        return self._classifier.table(model_input)


def _check_request(images: np.ndarray) -> None:
    if len(images) > MAX_IMAGES:
        raise MlflowException.invalid_parameter_value(f"{len(images)} images: send at most {MAX_IMAGES} at a time")
    if images.max() <= 1:
        # The server has cut fractions to whole numbers, and a prediction for what is left would look like any other.
        raise MlflowException.invalid_parameter_value(
            "no pixel is brighter than 1: send whole numbers from 0 to 255, no fractions"
        )


mlflow.models.set_model(ServedClassifier())
