"""Export as a tracked step: a trained model as one file for other programs, checked against the model itself."""

import numpy as np

from pipeline.params import ExportParams
from pipeline.progress import conclude
from pipeline.tracking import exported, runs, store, trained
from pipeline.tracking.exported import FORMATS, TOLERANCE
from pipeline.tracking.run import Run
from pipeline.tracking.runs import Result
from pipeline.training.events import Failure

CHECKED_IMAGES = 64


def run(params: ExportParams, parent: Run | None = None) -> Result:
    """Exports the training that `params` name. Raises Failure where the file gives other probabilities than the model.

    They are compared on images of the validation split; of the test split where there is none.
    """
    # Where both compute alike, a difference is the file's.
    training = trained.find(params.model_copy(update={"device": "cpu"}))
    classifier, splits = training.classifier, training.splits
    split, name_of_split = (splits.test, "test") if splits.valid is None else (splits.valid, "validation")
    images = split.take(np.linspace(0, len(split) - 1, min(CHECKED_IMAGES, len(split))).astype(np.int64))
    name = f"{training.params.dataset} {training.params.model} export"
    with runs.start("export", name, parent) as run, store.scratch() as folder:
        run.params({**params.model_dump(), "run_id": training.run_id})
        run.tags({"dataset": training.params.dataset, "model": training.params.model, "train.run_id": training.run_id})
        run.dataset(splits.name, splits.digest, params.data_dir or training.params.data_dir, name_of_split)
        file = folder / f"model{FORMATS[params.format].suffix}"
        version = exported.write(
            classifier, params.format, file, {"run_id": training.run_id, "checkpoint": params.checkpoint}
        )
        difference = exported.difference(classifier, params.format, file, images)
        numbers = {"export/largest_difference": difference, "export/bytes": float(file.stat().st_size)}
        run.metrics(numbers)
        run.tags({"export.version": version})
        size = classifier.description.image_size
        result = (
            f"{file.name}, {version}, {file.stat().st_size / 1e6:.1f} MB: images (N, 3, {size}, {size}) uint8 to "
            f"probabilities of {len(classifier.classes)} classes; on {len(images)} {name_of_split} images "
            f"they are within {difference:.1e} of the model's"
        )
        if not difference <= TOLERANCE:  # nor where it is NaN
            raise Failure(f"{result}, more than {TOLERANCE:g}: the file is not kept")
        run.file(file, file.name)
        run.describe(name, f"**Export** of `{training.run_id}`, {params.checkpoint} epoch — {result}")
    conclude(f"export: {result} (run {run.id})")
    return Result(run.id, f"Export: {result}", numbers)
