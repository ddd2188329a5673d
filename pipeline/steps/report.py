"""Makes the report, as a tracked step: one page, stored in the run that it describes."""

from pipeline.history import lookup, run_record
from pipeline.params import ReportParams
from pipeline.report import page
from pipeline.settings import command
from pipeline.steps.step import Result, tracked
from pipeline.tracking import journal, lifecycle
from pipeline.tracking.run import Run

FILE = "report.html"
PATIENCE_SECONDS = 30  # to wait for the store, before an experiment ends without its page


def run(params: ReportParams, parent: Run | None = None) -> Result:
    """Makes the report of the run that `params` name, and stores it in that run."""
    run_id = lookup.finished_run(params.run_id, "main", only=False)
    record = run_record.read(run_id)
    title = f"{record.run.name} report"
    with tracked(
        "report", title, {**params.model_dump(), "run_id": run_id}, {"reported.run_id": run_id}, parent
    ) as step:
        content = page.build(record)
        with lifecycle.attached(run_id) as reported:
            reported.bytes(FILE, content.encode())
        return step.conclude(f"{FILE} of run {run_id}, {len(content.encode()) / 1e6:.1f} MB")


def add(run: Run) -> str:
    """Adds the report to the run of an experiment that is about to end. Returns a line about success or failure."""
    later = f"make it with: {command('report', run_id=run.id)}"
    if journal.left_behind or not run.flush(PATIENCE_SECONDS):
        return f"No report, as the tracking store has not taken all; later, {later}"
    try:
        run.bytes(FILE, page.build(run_record.read(run.id)).encode())
    except ValueError as error:
        return f"No report ({error}); {later}"
    return f"Report: {FILE} among the artifacts of run {run.id}"
