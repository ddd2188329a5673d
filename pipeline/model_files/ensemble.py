"""Joins the classifiers of several trainings into an ensemble."""

from collections.abc import Mapping

from pipeline.model_files.classifier import Classifier, Description, Member
from pipeline.models.ensemble import Ensemble


def join(classifiers: Mapping[str, Classifier]) -> Classifier:
    """The ensemble of `classifiers`, by the id of their run, without a calibration.

    Raises ValueError if they do not have the same architecture, sizes, classes, scaling and starting weights.
    """
    (first_id, first), *others = classifiers.items()
    for run_id, other in others:
        if differing := _differing(first.description, other.description):
            raise ValueError(f"no ensemble of runs {first_id} and {run_id}: they differ in {', '.join(differing)}")
    members = tuple(Member(run_id=run_id, temperature=each.temperature) for run_id, each in classifiers.items())
    model = Ensemble(each.model for each in classifiers.values())
    return Classifier(model.eval(), first.description.model_copy(update={"members": members}))


def _differing(one: Description, other: Description) -> list[str]:
    a, b = one.model_dump(), other.model_dump()
    return [name for name in a if a[name] != b[name]]
