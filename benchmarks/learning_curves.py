"""Do the intervals of a learning curve hold the truth? Simulated trainings, whose power law is known.

python -m benchmarks.learning_curves [simulations]   prints a Markdown table; the default is 200

Five sizes, three trainings of each, 500 test images. Some images are hard for all trainings. The errors of
trainings deviate from the law by a twentieth. Every row has seed 0.
"""

import sys

import numpy as np
from scipy.stats import norm

from pipeline.results import learning_curve
from pipeline.results.learning_curve import Size

SIMULATIONS = 200
IMAGES = np.array([1000, 2000, 4000, 8000, 16000])
TRAININGS, TEST_IMAGES = 3, 500
ALIKE = 0.6  # share of the score's variance that all trainings have in common on an image
LAWS = ((0.0, 0.05, 0.5), (0.03, 0.05, 0.5), (0.05, 0.1, 0.3), (0.1, 0.02, 1.0), (0.1, 0.0, 0.5))


def error(law: tuple[float, float, float], images: float) -> float:
    """The error that a law (limit, scale, exponent) gives for `images`."""
    limit, scale, exponent = law
    return float(limit + scale * (images / IMAGES[-1]) ** -exponent)


def simulated(law: tuple[float, float, float], draw: np.random.Generator) -> list[Size]:
    """Trainings whose errors follow `law`, up to chance."""
    hardness = np.sqrt(ALIKE) * draw.normal(size=TEST_IMAGES)
    sizes = []
    for images in IMAGES:
        errors = error(law, images) * (1 + 0.05 * draw.normal(size=(TRAININGS, 1)))
        own = np.sqrt(1 - ALIKE) * draw.normal(size=(TRAININGS, TEST_IMAGES))
        sizes.append(Size(int(images), hardness + own < norm.ppf(np.clip(errors, 1e-4, 1)), TRAININGS))
    return sizes


def row(law: tuple[float, float, float], simulations: int) -> str:
    """A row of the table: how often the intervals hold the truth, and the mean width of the gain's interval."""
    draw, total = np.random.default_rng(0), IMAGES[-1]
    true = error(law, total) - error(law, 2 * total)
    held, checked, widths = [], [], []
    for number in range(simulations):
        curve = learning_curve.measure(simulated(law, draw), seed=number)
        found = curve.gain(total, 2 * total)
        held.append(found.low <= true <= found.high)
        checked.append(curve.check().holds)
        widths.append(found.high - found.low)
    limit, scale, exponent = law
    names = f"{limit:.0%} + {scale:.0%} × (n / {total:,})^-{exponent:g}"
    width = 100 * float(np.mean(widths))
    return f"| {names} | {100 * true:.2f} | {np.mean(held):.1%} | {width:.1f} | {np.mean(checked):.1%} |"


if __name__ == "__main__":
    print("| error of n images | gain of twice the images (points) | its interval holds | width | the check holds |")
    print("|---|---|---|---|---|")
    for each in LAWS:
        print(row(each, int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS), flush=True)
