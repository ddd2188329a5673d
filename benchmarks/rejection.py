"""Whether a threshold keeps its promise: the error of sure answers on new images, by the number of validation images.

python -m benchmarks.rejection

Each simulated network has perfectly calibrated probabilities and an accuracy of some 93 %. Validation images choose the
threshold for an error of at most 2 %, and 20,000 new images show what it holds.
"""

import numpy as np

from pipeline.results.rejection import Outcomes

NUM_VALID = (50, 100, 200, 500, 2000)
NETWORKS, NEW_IMAGES, MOST_ERROR = 1000, 20_000, 0.02


def main() -> None:
    """Prints a line for each number of validation images."""
    for num_valid in NUM_VALID:
        draw = np.random.default_rng(0)
        errors, shares = [], []
        for _ in range(NETWORKS):
            threshold = _outcomes(draw, num_valid).threshold(MOST_ERROR)
            new = _outcomes(draw, NEW_IMAGES)
            sure = new.confidence >= threshold
            shares.append(sure.mean())
            if sure.any():
                errors.append((~new.correct[sure]).mean())
        doubled = np.mean(np.array(errors) > 2 * MOST_ERROR)
        found = f"mean error {np.mean(errors):.2%}, above {2 * MOST_ERROR:.0%} in {doubled:.1%}"
        print(f"{num_valid:,} validation images: sure of {np.mean(shares):.1%}, {found} of {len(errors):,} networks")


def _outcomes(draw: np.random.Generator, number: int) -> Outcomes:
    confidence = 0.5 + 0.5 * draw.beta(4, 0.6, number)
    return Outcomes(confidence, draw.random(number) < confidence)


if __name__ == "__main__":
    main()
