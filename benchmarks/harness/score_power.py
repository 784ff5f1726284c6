"""Measure what `compare` finds in scores: the fewest lost queries of one model among many, and false alarms.

    python benchmarks/harness/score_power.py

One model of 10, 100 or 619 loses queries of 582 (97 classes of 6): each in another class, or five in each class. In the
other models nothing changed, or 6 or 20 queries did, as many lost as won on average; the one that falls has the same
noise. Prints the fewest lost queries that are found in 95 % of the draws, and the share of comparisons without a fall
that fail. Takes five minutes on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from embedcore.compare.limits import DEFAULT, TESTED, parse_limits
from embedcore.compare.statistics import SIGNIFICANT, Flips, false_discovery, sign_flips

CLASSES, SIZE = 97, 6
QUERIES = CLASSES * SIZE
MODELS = (10, 100, 619)
CHANGED = (0, 6, 20)
"""Queries that change by chance in each model."""
POWER = 0.95

LIMITS = parse_limits(DEFAULT)
POOL = 3000
"""Models with chance changes only, from which each draw takes its own."""


class Model:
    """One model's tests of the scores in `TESTED`, and their falls."""

    def __init__(self, lost: NDArray[np.intp], won: NDArray[np.intp], hits: NDArray[np.int64]) -> None:
        steps = {name: np.zeros(QUERIES, dtype=np.int64) for name in TESTED}
        for queries, sign in ((lost, -1), (won, 1)):
            steps["acc"][queries] = sign
            steps["acc5"][queries] = sign
            steps["hit5"][queries] = sign * (hits[queries] == 1)
        self.flips = [sign_flips(step.reshape(CLASSES, SIZE).sum(axis=1)) for step in steps.values()]
        self.falls = [-steps["acc"].sum() / QUERIES, -steps["acc5"].sum() / 5 / QUERIES, -steps["hit5"].sum() / QUERIES]


def model(rng: np.random.Generator, changed: int, lost: int, in_a_class: int) -> Model:
    """Draw a model that loses `lost` queries, `in_a_class` in each class, beside about `changed` chance changes."""
    chosen = np.concatenate([rng.permutation(SIZE)[:in_a_class] + SIZE * c for c in rng.permutation(CLASSES)])[:lost]
    rest = np.setdiff1d(np.arange(QUERIES), chosen)
    by_chance = rng.choice(rest, min(rng.poisson(changed), len(rest)), replace=False)
    down = rng.random(len(by_chance)) < 0.5
    return Model(np.concatenate([chosen, by_chance[down]]), by_chance[~down], rng.integers(1, 6, QUERIES))


def fails(models: list[Model]) -> NDArray[np.bool_]:
    """Return whether each model is a regression, [m]."""
    flips: list[Flips] = [test for each in models for test in each.flips]
    p = false_discovery([test.p for test in flips], [test.least for test in flips]).reshape(-1, len(TESTED))
    limits = np.array([LIMITS.get(name, np.inf) for name in TESTED])
    worse: NDArray[np.bool_] = ((p <= SIGNIFICANT) & (np.array([each.falls for each in models]) > limits)).any(axis=1)
    return worse


def fewest_found(
    rng: np.random.Generator, pool: list[Model], models: int, changed: int, in_a_class: int, draws: int
) -> int:
    """Return the fewest lost queries that are found in `POWER` of the draws."""
    lost = 0
    while True:
        lost += in_a_class
        found = 0
        for _ in range(draws):
            others = [pool[place] for place in rng.integers(len(pool), size=models - 1)]
            found += bool(fails([model(rng, changed, lost, in_a_class), *others])[0])
        if found >= POWER * draws:
            return lost


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parsed = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        "| models | changed by chance in each | fewest lost, one a class | fewest lost, five a class | false alarms |"
    )
    print("|---|---|---|---|---|")
    for changed in CHANGED:
        pool = [model(rng, changed, 0, 1) for _ in range(POOL if changed else 1)]
        for models in MODELS:
            cells = [fewest_found(rng, pool, models, changed, each, parsed.draws) for each in (1, 5)]
            alarms = sum(
                fails([pool[place] for place in rng.integers(len(pool), size=models)]).any()
                for _ in range(5 * parsed.draws)
            )
            falls = [f"{lost} ({100 * lost / QUERIES:.1f} pt)" for lost in cells]
            print(f"| {models} | {changed} | {' | '.join(falls)} | {alarms} of {5 * parsed.draws} |", flush=True)


if __name__ == "__main__":
    main()
