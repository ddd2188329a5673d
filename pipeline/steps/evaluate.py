"""Evaluation as a tracked step: the one place where the test split is read."""

import numpy as np
import pandas as pd

from pipeline.params import EvaluateParams
from pipeline.progress import say
from pipeline.results import metrics, plots
from pipeline.tracking import runs, trained
from pipeline.tracking.run import Run
from pipeline.tracking.runs import Result
from pipeline.tracking.trained import Training
from pipeline.training import loop
from pipeline.training.assemble import Normalised

BATCH_SIZE = 512
GALLERY_IMAGES = 36


def run(params: EvaluateParams, parent: Run | None = None) -> Result:
    """Evaluates the training that `params` name on its test split."""
    training = trained.find(params)
    name = f"{training.params.dataset} {training.params.model} evaluation"
    with runs.start("evaluate", name, parent) as run:
        run.params({**params.model_dump(), "run_id": training.run_id})
        run.tags(
            {
                "dataset": training.params.dataset,
                "model": training.params.model,
                "train.run_id": training.run_id,
            }
        )
        splits = training.splits
        run.dataset(splits.name, splits.digest, params.data_dir or training.params.data_dir, "test")
        probabilities = _probabilities(training)
        return _report(run, name, training, probabilities, params.top_k)


def _probabilities(training: Training) -> np.ndarray:
    classifier, splits = training.classifier, training.splits
    where = next(classifier.model.parameters()).device
    logits, _ = loop.predict(classifier.model, Normalised(splits, splits.test, BATCH_SIZE, where), training.precision)
    return logits.double().softmax(1).numpy()


def _report(run: Run, name: str, training: Training, probabilities: np.ndarray, top_k: int) -> Result:
    test, classes = training.splits.test, training.splits.classes
    labels, predicted = test.labels, probabilities.argmax(1)
    summary = metrics.summary(labels, probabilities, top_k)
    run.metrics(summary)
    matrix = metrics.confusion(labels, predicted, len(classes))
    run.figure("confusion_matrix.png", plots.confusion_matrix(matrix, classes, normalised=False))
    run.figure("confusion_matrix_normalised.png", plots.confusion_matrix(matrix, classes, normalised=True))
    # Side by side rather than assigned: a class may itself be named "true".
    counts = [pd.DataFrame(matrix, columns=classes), pd.DataFrame({"true": classes})]
    run.table("confusion_matrix.csv", pd.concat(counts, axis=1))
    run.table("most_confused.csv", metrics.most_confused(matrix, classes))
    run.table("per_class.csv", metrics.per_class(labels, predicted, classes))
    ece, bins = metrics.calibration(labels, probabilities)
    run.table("reliability.csv", bins)
    run.figure("reliability.png", plots.reliability(bins, ece, name))
    predictions = metrics.predictions(test.names, labels, probabilities, classes)
    run.table("predictions.csv", predictions)
    wrong = predictions[~predictions["correct"]].sort_values("confidence", ascending=False, kind="stable")
    shown = wrong.head(GALLERY_IMAGES)
    captions = [f"{row.true} → {row.predicted} {row.confidence:.2f}" for row in shown.itertuples()]
    images = test.take(shown.index.to_numpy())
    run.figure(
        "misclassified.png",
        plots.gallery(images, captions, f"{len(shown)} of {len(wrong)} misclassified images, most confident first"),
    )
    result = (
        f"test accuracy {summary['test/accuracy']:.2%} (95 % interval {summary['test/accuracy_low']:.2%} to "
        f"{summary['test/accuracy_high']:.2%}, n = {len(test)}), loss {summary['test/loss']:.4f}, "
        f"macro F1 {summary['test/macro_f1']:.4f}, ECE {summary['test/ece']:.4f}"
    )
    run.describe(f"{name} {summary['test/accuracy']:.2%}", f"**Evaluation** of `{training.run_id}` — {result}")
    say(f"evaluation: {result}")
    return Result(run.id, f"Evaluation: {result}", summary)
