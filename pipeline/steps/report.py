"""The report as a tracked step: one page, kept with the run that it tells of."""

from pipeline.params import ReportParams
from pipeline.progress import conclude
from pipeline.report import page
from pipeline.tracking import advice, journal, reading, runs, store
from pipeline.tracking.run import Run
from pipeline.tracking.runs import Result

FILE = "report.html"
PATIENCE_SECONDS = 30  # with the store, before an experiment ends without its page


def run(params: ReportParams, parent: Run | None = None) -> Result:
    """Makes the report of the run that `params` name, and leaves it with that run."""
    run_id = _run_id(params.run_id)
    told = reading.told(run_id)
    title = f"{told.of.name} report"
    with runs.start("report", title, parent) as run:
        run.params({**params.model_dump(), "run_id": run_id})
        run.tags({"reported.run_id": run_id})
        content = page.build(told, params.watts)
        with runs.attached(run_id) as its_run:
            its_run.text(FILE, content)
        summary = f"Report: {FILE} of run {run_id}, {len(content.encode()) / 1e6:.1f} MB"
        run.describe(title, summary)
    conclude(summary[0].lower() + summary[1:])
    return Result(run.id, summary, {})


def add(run: Run, watts: float) -> str:
    """Leaves the report of an experiment that is about to end with its run. Returns a line that says so, or why not."""
    later = f"make it with: {advice.command('report', run_id=run.id)}"
    if journal.left_behind or not run.flush(PATIENCE_SECONDS):
        return f"No report, as the tracking store has not taken all; later, {later}"
    try:
        run.text(FILE, page.build(reading.told(run.id), watts))
    except ValueError as error:
        return f"No report ({error}); {later}"
    return f"Report: {FILE} among the artifacts of run {run.id}"


def _run_id(asked: str) -> str:
    if asked == "latest":
        finished = store.finished_runs("main")
        if not finished:
            raise ValueError("run_id=latest: no FINISHED experiment here; give the id of a run")
        return str(finished[0].info.run_id)
    if (status := store.stored_run(asked).info.status) != "FINISHED":
        raise ValueError(f"run_id={asked} is not FINISHED but {status}")
    return asked
