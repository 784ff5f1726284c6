"""Check `embedcore pool` by leaving image sets out. Prints a Markdown table for the given runs, then one by simulation.

    python benchmarks/harness/pool_left_out.py RUN RUN RUN RUN …
    python benchmarks/harness/pool_left_out.py --simulate 2000

For each set that is left out, the others are pooled and predict the difference of every model to the reference there.
The measured difference has an error of its own, which the interval of the true difference does not contain: the table
also counts intervals that are widened by it. Choosing the model with the largest mean costs `regret` points of acc on
the set that was left out, against the best model there. At least four sets are needed.

`--simulate`: sets of 4 to 20, with little, equal and much variance between sets compared with the errors.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np
from scipy import special
from tabulate import tabulate

from embedcore.commands.datasets import datasets_of
from embedcore.compare.pool import pool, pooled

SETS, RATIOS = (4, 6, 10, 20), (0.0, 0.3, 1.0, 3.0)
ERROR = 0.02  # of a difference on a set, on average


def left_out(names: list[str]) -> None:
    datasets = [(block, results) for _, block, results in datasets_of(names)]
    if len(datasets) < 4:
        raise SystemExit(f"{len(datasets)} image sets: at least four are needed")
    rows, total = [], np.zeros(3)
    for number, (block, results) in enumerate(datasets):
        others = datasets[:number] + datasets[number + 1 :]
        predicted = pool(others)
        whole = pool([*others, datasets[number]], predicted.reference)
        measured = {model.model: model.differences for model in whole.models}
        counts = np.zeros(3)
        for model in predicted.models:
            here, found = measured.get(model.model, {}), model.pooled
            if found.new is None or len(others) not in here:
                continue
            difference, error = here[len(others)]
            low, high = found.new
            scale = special.stdtrit(len(model.differences) - 2, 0.975)
            half = scale * math.hypot((high - low) / 2 / scale, error)
            counts += (1, low <= difference <= high, abs(difference - found.mean) <= half)
        accs = {result.model: result.scores["acc"] for result in results}
        means = {predicted.reference: 0.0} | {model.model: model.pooled.mean for model in predicted.models}
        known = [model for model in means if model in accs]
        choice = max(known, key=means.__getitem__)
        regret = max(accs[model] for model in known) - accs[choice]
        total += counts
        rows.append([block.get("name"), int(counts[0]), int(counts[1]), int(counts[2]), choice, f"{100 * regret:.1f}"])
    rows.append(["all", *map(int, total), "", ""])
    headings = ["set left out", "models", "inside", "inside, widened", "choice", "regret"]
    print(tabulate(rows, headings, tablefmt="github"))


def simulate(repeats: int) -> None:
    rows = []
    for sets in SETS:
        cells = []
        for ratio in RATIOS:
            rng = np.random.default_rng([sets, int(10 * ratio)])
            held = np.zeros(2)
            for _ in range(repeats):
                errors = rng.uniform(0.5 * ERROR, 1.5 * ERROR, sets)
                truth = rng.normal(0, ratio * ERROR, sets + 1)
                found = pooled(truth[:-1] + rng.normal(0, errors), errors)
                assert found.new is not None
                held += (found.low <= 0 <= found.high, found.new[0] <= truth[-1] <= found.new[1])
            cells.append(" · ".join(f"{share:.3f}" for share in held / repeats))
        rows.append([sets, *cells])
    headings = ["sets", *(f"spread {ratio:g} × error" for ratio in RATIOS)]
    print(tabulate(rows, headings, tablefmt="github"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="*")
    parser.add_argument("--simulate", type=int, metavar="N", default=0)
    options = parser.parse_args()
    if options.runs:
        left_out(options.runs)
    if options.simulate:
        simulate(options.simulate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
