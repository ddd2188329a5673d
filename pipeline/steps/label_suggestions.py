"""The doctor's suggestions as labels to edit: a table for people, and tasks for the labelling tool Label Studio."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.data import label_studio
from pipeline.progress import conclude
from pipeline.steps.patient import Finding, Patient
from pipeline.tracking.run import Run


def write(run: Run, patient: Patient, findings: Sequence[Finding]) -> None:
    """Logs labels.csv, label_studio.json and label_studio.xml. Each has all images, the doubtful ones first.

    The labels are the given ones, and nothing is excluded: only people decide. The splits are written too, so that
    edited labels are trained and tested on the same images.
    """
    table = _table(patient, findings)
    run.table("labels.csv", table)
    folder = Path(patient.params.data_dir).expanduser().resolve().name
    run.json("label_studio.json", [label_studio.task(folder, row) for row in table.to_dict("records")])
    run.text("label_studio.xml", label_studio.configuration([*patient.splits.classes]))
    num_doubtful = int((table["reason"] != "").sum())
    conclude(
        f"doctor: labels.csv has all labels, the {num_doubtful:,} doubtful ones first: edit it, and train with "
        "labels=labels.csv"
    )


def _table(patient: Patient, findings: Sequence[Finding]) -> pd.DataFrame:
    reasons: dict[int, list[str]] = {}
    suggested: dict[int, str] = {}
    for finding in sorted(findings, key=lambda finding: not finding.suggested):
        suggested |= finding.suggested
        for position, reason in finding.reasons.items():
            reasons.setdefault(position, []).append(reason)
    positions = [*reasons, *(position for position in range(len(patient.images)) if position not in reasons)]
    names = [patient.images.names[position] for position in positions]
    groups = [patient.splits.groups.get(name, "") for name in names]
    return pd.DataFrame(
        {
            "file": names,
            "label": patient.classes[positions],
            "suggested_label": [suggested.get(position, "") for position in positions],
            "exclude": "",
            "reason": ["; ".join(reasons.get(position, ())) for position in positions],
            "split": [patient.names[part] for part in patient.parts[positions]],
            **({"group": groups} if any(groups) else {}),
        }
    )
