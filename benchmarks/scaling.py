"""Calculates where the bottleneck is, for 1 to 64 GPUs and 1 to 1,000 workers: python -m benchmarks.scaling

Prints the tables of docs/scaling.md and writes build/scaling.png. `benchmarks.scaling_parts` measures the parts.
The results are calculated: nobody has measured these sizes here.
"""

from dataclasses import dataclass

from benchmarks.contest import PROJECT
from pipeline.results.plots.style import BLUE, GREEN, ORANGE, PURPLE, dress, sheet

OUT = PROJECT / "build"
GPUS = (1, 2, 4, 8, 16, 32, 64)
WORKERS = (1, 4, 16, 64, 250, 1000)
GIGA, MEGA = 1e9, 1e6
BATCH = 4096  # images of all GPUs together


@dataclass(frozen=True)
class Measured:
    """Measured by benchmarks.scaling_parts on 2 cores of an Intel Xeon (2.8 GHz); disk and memory: docs/speed.md."""

    gradient_mb: float = 94.1  # ResNet-50 for 10 classes, fp32
    decoded: float = 198  # photos of 640 x 480 px per second of a core
    image_bytes: float = 3 * 224 * 224  # of a decoded image
    from_disk: float = 951 * 2**20 / GIGA  # GB/s, shuffled batches of a set larger than the memory
    database_seconds: float = 0.055  # of a core of PostgreSQL, for studies and runs, per trial of one epoch
    connections: float = 79 / 16  # per worker, to both databases
    calls: float = 18.9  # of the tracking server, per trial beside its epochs
    calls_per_epoch: float = 0.9
    call_seconds: float = 0.019  # of a core of the server, per call
    state_mb: float = 2 * 94.1  # of weights and momentum
    state_every: float = 30  # seconds between two states, at least; see docs/resume.md


@dataclass(frozen=True)
class Assumed:
    """About hardware that nobody here has. Sources are in docs/scaling.md."""

    gpu: float = 2470  # images/s of ResNet-50 at 224 px, one A100, mixed precision
    gpus_per_machine: int = 8
    cores_per_machine: int = 128
    nvlink: float = 300 * GIGA  # bytes/s out of a GPU, within a machine
    links: tuple[tuple[str, float], ...] = (  # bytes/s out of a machine
        ("25 Gbit/s", 25 / 8 * GIGA),
        ("100 Gbit/s", 100 / 8 * GIGA),
        ("8 x 200 Gbit/s", 1600 / 8 * GIGA),
    )
    images: float = 1.28e6  # of the set
    epochs: int = 18


MEASURED, ASSUMED = Measured(), Assumed()


def all_reduce(gpus: int, link: float) -> float:
    """Seconds to average the gradients of one step over `gpus`, by a ring; `link`: bytes/s out of a machine.

    Each GPU sends 2 (N - 1) / N times the gradients. The slowest stretch of the ring decides.
    """
    slowest = ASSUMED.nvlink if gpus <= ASSUMED.gpus_per_machine else min(link, ASSUMED.nvlink)
    return 2 * (gpus - 1) / gpus * MEASURED.gradient_mb * MEGA / slowest


def efficiency(gpus: int, link: float, batch: int) -> tuple[float, float]:
    """The share of its time that a GPU computes: (without, with all communication behind the computation).

    batch: images of all GPUs together.
    """
    compute, wait = batch / gpus / ASSUMED.gpu, all_reduce(gpus, link)
    return compute / (compute + wait), compute / max(compute, wait)


def decoding_seconds() -> float:
    """Seconds until a machine has decoded the set. Each machine does so once, with all its cores."""
    return ASSUMED.images / (MEASURED.decoded * ASSUMED.cores_per_machine)


def training_seconds(gpus: int) -> float:
    """Seconds of all epochs, if nothing but computing takes time."""
    return ASSUMED.images * ASSUMED.epochs / (gpus * ASSUMED.gpu)


def cores(workers: int, seconds: float, epochs: int) -> tuple[float, float]:
    """The cores that the studies' database and the tracking server need, for trials of `seconds` and `epochs`."""
    per_second = workers / seconds
    calls = MEASURED.calls + epochs * MEASURED.calls_per_epoch
    return per_second * MEASURED.database_seconds, per_second * calls * MEASURED.call_seconds


def print_gpus() -> None:
    print(f"read from a disk: {MEASURED.from_disk * GIGA / MEASURED.image_bytes:,.0f} images/s")
    print(f"| GPUs | training, s | decoding, s | {' | '.join(name for name, _ in ASSUMED.links)} |")
    print("|---" * (3 + len(ASSUMED.links)) + "|")
    for gpus in GPUS:
        shares = (efficiency(gpus, link, BATCH) for _, link in ASSUMED.links)
        texts = " | ".join(f"{low:.0%} to {high:.0%}" for low, high in shares)
        print(f"| {gpus} | {training_seconds(gpus):,.0f} | {decoding_seconds():,.0f} | {texts} |")


def state_rate(workers: int, seconds: float) -> float:
    """MB/s of states that the workers send to the artifact store: after the first and the last epoch, and between."""
    states = 2 + max(0.0, seconds / MEASURED.state_every - 1)
    return workers * states * MEASURED.state_mb / seconds


def print_workers() -> None:
    print("\n| workers | connections | trials | database, cores | tracking server, cores | states, MB/s |")
    print("|---|---|---|---|---|---|")
    for workers in WORKERS:
        for seconds in (60, 600):
            database, server = cores(workers, seconds, epochs=10)
            load = f"{database:.2f} | {server:.2f} | {state_rate(workers, seconds):,.0f}"
            print(f"| {workers:,} | {workers * MEASURED.connections:,.0f} | of {seconds} s | {load} |")


def draw() -> None:
    figure = sheet(11, 4, "Calculated, not measured: where the bottleneck moves")
    left, right = figure.subplots(1, 2)
    for (name, link), colour in zip(ASSUMED.links, (ORANGE, GREEN, BLUE), strict=True):
        shares = [efficiency(gpus, link, BATCH) for gpus in GPUS]
        left.fill_between(GPUS, *zip(*shares, strict=True), color=colour, alpha=0.35, label=name)
    totals = [training_seconds(gpus) / (training_seconds(gpus) + decoding_seconds()) for gpus in GPUS]
    left.plot(GPUS, totals, color=PURPLE, marker="o", label="training beside decoding once")
    left.set_xscale("log", base=2)
    left.set_xticks(GPUS, [str(each) for each in GPUS])
    left.set_ylim(0, 1.02)
    left.legend(fontsize=8)
    dress(left, "GPUs", "share of the time that GPUs compute")
    many = (1, 3, 10, 30, 100, 300, 1000)
    for seconds, style in ((60, "-"), (600, "--")):
        found = [cores(workers, seconds, epochs=10) for workers in many]
        for place, (name, colour) in enumerate((("database", BLUE), ("tracking server", ORANGE))):
            label = f"{name}, trials of {seconds} s"
            right.loglog(many, [each[place] for each in found], style, color=colour, label=label)
    right.axhline(1, color="black", linewidth=0.8)
    right.legend(fontsize=8)
    dress(right, "workers", "cores that are busy")
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / "scaling.png", dpi=120)


if __name__ == "__main__":
    print_gpus()
    print_workers()
    draw()
