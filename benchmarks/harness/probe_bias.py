"""Compare leave-one-out scores of ridge regression with its scores on new queries, on simulated classes.

    python benchmarks/harness/probe_bias.py

Classes are normal distributions around random centres, with equally many images. Prints, for several numbers of images,
the mean over the draws of `probe_ridge` in leave-one-out, on new queries of the same fit, and their difference.
"""

from __future__ import annotations

import argparse

import numpy as np
from tabulate import tabulate

from embedcore.retrieval.ridge import ridge_right

SETTINGS = ((3, 20, 100, 0.6), (10, 10, 30, 0.5), (50, 10, 30, 0.5))
"""Images of each class, classes, dimensions, and the spread of the centres."""
QUERIES = 1500


def draw(seed: int, each: int, classes: int, dim: int, spread: float) -> tuple[float, float]:
    """Return the share of right predictions in leave-one-out, and on new queries."""
    rng = np.random.default_rng(seed)
    centres = spread * rng.standard_normal((classes, dim))

    def rows(labels: np.ndarray) -> np.ndarray:
        drawn = centres[labels] + rng.standard_normal((len(labels), dim))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    labels, wanted = np.arange(each * classes) % classes, np.arange(QUERIES) % classes
    references = rows(labels)
    return ridge_right(references, labels).mean(), ridge_right(rows(wanted), wanted, references, labels).mean()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=150)
    parsed = parser.parse_args()
    table = []
    for setting in SETTINGS:
        found = np.array([draw(seed, *setting) for seed in range(parsed.draws)])
        difference = found[:, 0] - found[:, 1]
        error = difference.std() / np.sqrt(len(difference))
        shown = [f"{found[:, 0].mean():.3f}", f"{found[:, 1].mean():.3f}", f"{difference.mean():.3f} ± {error:.3f}"]
        table.append([*setting[:2], *shown])
    heads = ["images of each class", "classes", "leave-one-out", "new queries", "difference ± standard error"]
    print(tabulate(table, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
