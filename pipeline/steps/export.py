"""Exports a trained model as one file for other programs and checks it against the model, as a tracked step."""

from pipeline.data.splits import evenly_spaced
from pipeline.history import trained_model
from pipeline.model_files import export
from pipeline.model_files.export import FORMATS, TOLERANCE
from pipeline.params import ExportParams
from pipeline.steps.step import Result, about
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.training.events import Failure

CHECKED_IMAGES = 64


def run(params: ExportParams, parent: Run | None = None) -> Result:
    """Exports the training that `params` name. Raises Failure if the probabilities of file and model differ.

    Compares them on images of the validation split or, without one, of the test split.
    """
    # On the CPU both compute alike, so that any difference comes from the file.
    trained = trained_model.find(params.model_copy(update={"device": "cpu"}))
    classifier, splits = trained.classifier, trained.splits
    split, name_of_split = (splits.test, "test") if splits.valid is None else (splits.valid, "validation")
    images = split.take(evenly_spaced(len(split), CHECKED_IMAGES))
    with about(trained, "export", "export", params, name_of_split, parent) as step, store.scratch() as folder:
        run = step.run
        file = folder / f"model{FORMATS[params.format].suffix}"
        origin = {"run_id": trained.run_id, "checkpoint": params.checkpoint}
        version = export.write(classifier, params.format, file, origin)
        difference = export.difference(classifier, params.format, file, images)
        numbers = {"export/largest_difference": difference, "export/bytes": float(file.stat().st_size)}
        run.metrics(numbers)
        run.tags({"export.version": version})
        size = classifier.description.image_size
        result = (
            f"{file.name}, {version}, {file.stat().st_size / 1e6:.1f} MB: images (N, 3, {size}, {size}) uint8 to "
            f"probabilities of {len(classifier.classes)} classes; on {len(images)} {name_of_split} images "
            f"they are within {difference:.1e} of the model's"
        )
        if not difference <= TOLERANCE:  # also true for NaN
            raise Failure(f"{result}, more than {TOLERANCE:g}: the file is not kept")
        run.file(file, file.name)
        concluded = step.conclude(result, numbers, of=f" of `{trained.run_id}`, {params.checkpoint} epoch")
        step.say_where(f"{file.name} is")
        return concluded
