"""The trained model as MLflow serves it: uint8 images in, class names and probabilities out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.tracking.classifier import Classifier


class ServedClassifier(PythonModel):
    """A pyfunc model made from this code and one safetensors file; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Builds the network from the weights file among the model's artifacts."""
        self._classifier = Classifier.load(Path(context.artifacts["weights"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image: `class`, and `p/<name>` for every class. `model_input` is (N, 3, H, W) uint8."""
        return self._classifier.table(model_input)


mlflow.models.set_model(ServedClassifier())
