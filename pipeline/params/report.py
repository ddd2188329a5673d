"""What the page takes that tells a whole experiment."""

from pydantic import Field

from pipeline.params.declared import Params


class ReportParams(Params):
    """One page, in one file, of what a finished experiment has left, or a step of one but doctor and export."""

    run_id: str = Field(
        "latest",
        pattern=r"^(latest|[0-9a-f]{32})$",
        description="the run to tell of; latest is the newest FINISHED experiment",
    )
    watts: float = Field(
        0, ge=0, le=1e6, description="power the machine is taken to draw (W), for the energy; 0: not said"
    )
