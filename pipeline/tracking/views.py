"""Sets up how MLflow's UI shows an experiment: its kind, its description, and views of its runs that links open.

A view is a tag with filter, columns and charts as JSON; the UI itself writes such a tag when a user shares a view.
Without a view, each chart shows one metric, and the charts are in alphabetical order.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Experiment

KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
LAYOUT = "workflowType=machine_learning"  # without it, the UI uses the layout its user chose last, by default GenAI
VIEW = "mlflow.sharedViewState."
RESULTS, CURVES = "results", "curves"

# One line, because the UI hides all others.
DESCRIPTION = "Image classifiers: [results]({results}), best first; [curves]({curves}) of all trainings"


def missing_tags(experiment: Experiment) -> dict[str, str]:
    """The tags that the experiment lacks. A kind and a description that somebody has set are kept."""
    tags = experiment.tags
    links = {name: link(experiment.experiment_id, name) for name in (RESULTS, CURVES)}
    once = {KIND: TRAINING, "mlflow.note.content": DESCRIPTION.format(**links)}
    ours = {tag(RESULTS): _results(), tag(CURVES): _curves()}
    return {
        **{name: value for name, value in once.items() if not tags.get(name)},
        **{name: value for name, value in ours.items() if tags.get(name) != value},
    }


def tag(name: str) -> str:
    """The name of the experiment's tag that holds a view."""
    return f"{VIEW}{name}"


def link(experiment_id: str, name: str) -> str:
    """The link that opens a view in the UI."""
    mode = "TABLE" if name == RESULTS else "CHART"
    return f"#/experiments/{experiment_id}/runs?{LAYOUT}&viewStateShareKey={name}&compareRunsMode={mode}"


def run_link(experiment_id: str, run_id: str) -> str:
    """The link that opens a run in the UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{LAYOUT}"


def of_study(run_id: str, params: Sequence[str], objective: str) -> str:
    """The view of a study's trials: their parameters against the objective, and their curves."""
    section = "Trials"
    parallel = {
        "type": "PARALLEL",
        "selectedParams": list(params),
        "selectedMetrics": [objective],
        "showAllRuns": False,
    }
    charts = [
        _chart(section, f"{', '.join(params)} and {objective}", parallel),
        _lines(section, "accuracy", ["valid/accuracy"]),
        _lines(section, "loss", ["train/loss", "valid/loss"]),
    ]
    condition = f"tags.mlflow.parentRunId = '{run_id}' and tags.step = 'trial'"
    columns = [f"metrics.`{objective}`", *(f"params.`{name}`" for name in params)]
    return _view(condition, f"metrics.`{objective}`", columns, charts)


def _results() -> str:
    columns = [
        "metrics.`test/accuracy`",
        "metrics.`test/accuracy_low`",
        "metrics.`test/accuracy_high`",
        "metrics.`explain/faithfulness`",
        "tags.`dataset`",
        "tags.`model`",
    ]
    condition = "metrics.`test/accuracy` >= 0 and tags.`mlflow.parentRunId` IS NULL"
    return _view(condition, "metrics.`test/accuracy`", columns, [])


def _curves() -> str:
    section = "Training"
    charts = [
        _lines(section, "loss", ["train/loss", "valid/loss"]),
        _lines(section, "accuracy", ["train/accuracy", "valid/accuracy"]),
        _lines(section, "lr", ["lr"]),
        _lines(section, "images_per_second", ["images_per_second"]),
    ]
    columns = ["metrics.`valid/accuracy`", "metrics.`valid/loss`", "tags.`dataset`", "tags.`model`", "params.`max_lr`"]
    return _view("tags.step = 'train'", "metrics.`valid/accuracy`", columns, charts)


def _view(condition: str, order: str, columns: Sequence[str], charts: Sequence[Mapping[str, Any]]) -> str:
    sections = {chart["metricSectionId"]: None for chart in charts}
    state: dict[str, Any] = {
        "searchFilter": condition,
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": list(columns),
    }
    if charts:
        state |= {
            "compareRunCharts": list(charts),
            "compareRunSections": [
                {"uuid": name, "name": name, "display": True, "isReordered": True} for name in sections
            ],
            "isAccordionReordered": True,  # keeps our charts above those that the UI adds
        }
    return json.dumps(state)


def _lines(section: str, title: str, metrics: Sequence[str]) -> dict[str, Any]:
    return _chart(
        section,
        title,
        {
            "type": "LINE",
            "metricKey": metrics[0],
            "selectedMetricKeys": list(metrics),
            "xAxisKey": "step",
            "yAxisKey": "metric",
            "scaleType": "linear",
            "xAxisScaleType": "linear",
            "range": {},
            "yAxisExpressions": [],
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        },
    )


def _chart(section: str, title: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uuid": f"{section} {title}",
        "metricSectionId": section,
        "displayName": title,
        "runsCountToCompare": 50,
        "deleted": False,
        "isGenerated": False,
        **content,
    }
