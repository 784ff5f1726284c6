"""Measure the coverage of intervals: of ranks on simulated leaderboards, and of scores on subsets of real images.

    python benchmarks/harness/rank_coverage.py ranks --boards 1000
    python benchmarks/harness/rank_coverage.py scores --cache folder --subsets 500
    python benchmarks/harness/rank_coverage.py probes --cache folder --subsets 500 --dataset csv:vendors.csv

`ranks`: leaderboards with known true ranks, with ties, near ties and spread models, over classes that are easy or hard
for all of them. It prints the share of leaderboards on which all intervals contain all true ranks.

`scores`: an image set with queries and references, embedded by a real model, and subsets of its classes as a run draws
them. For several kinds of intervals it prints how often the interval of a subset contains the mean over all subsets of
that size, and that of an infinite population of such classes. `probes`: the same for the intervals of probes. All
commands are reproducible by seed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import special, stats
from tabulate import tabulate

from embedcore.retrieval.order import order
from embedcore.retrieval.resampling import class_counts, class_means, intervals

# Distance of a model from the next better one, on the scale of `quality` below.
KINDS: Mapping[str, Callable[[int], np.ndarray]] = {
    "ties": lambda models: np.zeros(models),
    "near ties": lambda models: 0.02 * np.arange(models),
    "spread": lambda models: 0.25 * np.arange(models),
    "tied groups": lambda models: 0.5 * (np.arange(models) // 3),
}
MODELS, CLASSES = (4, 12, 40), (16, 64, 256)
METRICS = ("acc", "acc5", "map_at_r")


def board(rng: np.random.Generator, quality: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return right answers [m, C] and number of queries [C] of each class.

    A query's probability is the normal distribution function of the sum of the model's quality, the ease of the class,
    and a further ease of the class for this model. So the true scores have the order and the ties of the qualities.
    """
    sizes = rng.integers(1, 9, classes)
    ease = rng.normal(0, 1, classes) + rng.normal(0, 0.5, (len(quality), classes))
    return rng.binomial(sizes, special.ndtr(quality[:, None] - 1 + ease)), sizes


def ranks(boards: int) -> None:
    settings = list(itertools.product(KINDS, MODELS, CLASSES))
    outcomes = []
    for seed in range(boards):
        kind, models, classes = settings[seed % len(settings)]
        quality = -KINDS[kind](models)
        sums, sizes = board(np.random.default_rng([1, seed]), quality, classes)
        found = order(sums, sizes, seed=seed).ranks()
        best, worst = stats.rankdata(-quality, method="min"), stats.rankdata(-quality, method="max")
        width = float((found[:, 2] - found[:, 1] + 1).mean() / models)
        held = bool((found[:, 1] <= best).all() and (found[:, 2] >= worst).all())
        outcomes.append((kind, f"{models} models", f"{classes} classes", held, width))
    rows = []
    for name in ("all", *KINDS, *(f"{n} models" for n in MODELS), *(f"{n} classes" for n in CLASSES)):
        of_name = [(held, width) for *names, held, width in outcomes if name in ("all", *names)]
        count = sum(held for held, _ in of_name)
        low, high = stats.binomtest(count, len(of_name)).proportion_ci(method="exact")
        mean = np.mean([width for _, width in of_name])
        rows.append([name, len(of_name), f"{count / len(of_name):.3f}", f"{low:.3f}–{high:.3f}", f"{mean:.2f}"])
    print(tabulate(rows, ["boards", "number", "all ranks covered", "95 %", "mean width / models"]))


Sides = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Embeddings and labels of the queries, and of the references."""


def embedded(cache: Path, model: str, spec: str) -> Sides:
    """Return the sides of a whole image set; embedded once."""
    from embedcore import embed_dataset, load_backbone, load_dataset

    images = load_dataset(spec, max_classes=0, cache_dir=cache)
    path = cache / f"{images.fingerprint[:16]}-{model}.npy"
    if not path.is_file():
        np.save(path, embed_dataset(load_backbone(model), images))
    rows = np.load(path)
    return rows[images.is_query], images.query_labels, rows[images.is_reference], images.reference_labels


def subsets_of(sides: Sides, classes: int, subsets: int) -> Iterator[Sides]:
    """Yield the sides of random subsets of the classes."""
    queries, query_labels, references, reference_labels = sides
    for seed in range(subsets):
        chosen = np.random.default_rng([2, classes, seed]).choice(np.unique(query_labels), classes, replace=False)
        asked, known = np.isin(query_labels, chosen), np.isin(reference_labels, chosen)
        yield queries[asked], query_labels[asked], references[known], reference_labels[known]


def covered(points: np.ndarray, low: np.ndarray, high: np.ndarray, share: float) -> list[str]:
    """Return for each score the coverage of the mean of all points, and of that of an infinite population.

    ``points``, ``low``, ``high``: [subsets, scores]. ``share``: of the classes that are in a subset.
    """
    target = points.mean(axis=0)
    # Finite population correction: a sample of n from N without replacement scatters less than one from an infinite
    # population, by the root of 1 - n / N. Dividing by that root gives the distance there.
    farther = points + (target - points) / np.sqrt(1 - share)
    shares = [((low <= wanted) & (wanted <= high)).mean(axis=0) for wanted in (target, farther)]
    return [f"{a:.3f} · {b:.3f}" for a, b in zip(*shares, strict=True)]


IntervalMethods = Mapping[str, tuple[np.ndarray, np.ndarray]]  # low and high [metrics]


def interval_methods(values: np.ndarray, labels: np.ndarray, seed: int) -> IntervalMethods:
    """Return intervals of the means of values [n, metrics] by several methods; all resample or leave out classes."""
    means, sizes = class_means(values, labels)
    sums, classes, queries = means * sizes[:, None], len(sizes), sizes.sum()
    point = values.mean(axis=0)
    counts = np.concatenate(list(class_counts(classes, 1000, seed)))
    drawn = (counts @ sums) / (counts @ sizes)[:, None]
    without = (sums.sum(axis=0) - sums) / (queries - sizes)[:, None]
    change = point - without
    error = np.sqrt((classes - 1) / classes * (change**2).sum(axis=0))
    t = stats.t.isf(0.025, classes - 1)

    def percentile(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the quantiles of each metric's resamples at its own shares."""
        ends = [
            np.quantile(column, shares) for column, shares in zip(drawn.T, zip(low, high, strict=True), strict=True)
        ]
        return np.array(ends)[:, 0], np.array(ends)[:, 1]

    # Bias-corrected and accelerated: Efron and Tibshirani, chapter 14.3.
    below = (drawn < point).mean(axis=0) + (drawn == point).mean(axis=0) / 2
    bias = special.ndtri(np.clip(below, 0.001, 0.999))
    skew = (change**3).sum(axis=0) / (6 * np.maximum((change**2).sum(axis=0), 1e-300) ** 1.5)

    def bca(z: float) -> np.ndarray:
        return special.ndtr(bias + (bias + z) / (1 - skew * (bias + z)))

    # Widened by the ratio of t to z: Hesterberg, The American Statistician 69 (2015).
    wider = special.ndtr(-np.sqrt(classes / (classes - 1)) * t)
    logit, slope = special.logit(np.clip(point, 1e-9, 1 - 1e-9)), 1 / np.maximum(point * (1 - point), 1e-9)
    return {
        "percentile, widened": percentile(0 * point + wider, 0 * point + 1 - wider),
        "BCa": percentile(bca(-special.ndtri(0.975)), bca(special.ndtri(0.975))),
        "jackknife t": (point - t * error, point + t * error),
        "jackknife t, logit": (special.expit(logit - t * error * slope), special.expit(logit + t * error * slope)),
    }


def scores(sides: Sides, subsets: int) -> None:
    from embedcore import score

    population, rows = len(np.unique(sides[1])), []
    for classes in (64, 256):
        points, found = [], []
        for seed, chosen in enumerate(subsets_of(sides, classes, subsets)):
            scored = score(*chosen, resamples=1)
            values = np.stack([scored.per_query[name] for name in METRICS], axis=1)
            ours = intervals({name: scored.per_query[name] for name in METRICS}, scored.classes, seed=seed)
            low, high = (np.array([ours[name][end] for name in METRICS]) for end in (0, 1))
            points.append(values.mean(axis=0))
            found.append({"embedcore": (low, high), **interval_methods(values, scored.classes, seed)})
        for way in found[0]:
            low, high = (np.array([each[way][end] for each in found]) for end in (0, 1))
            cells = covered(np.array(points), low, high, classes / population)
            rows.append([classes, way, *cells, *(f"{width:.3f}" for width in (high - low).mean(axis=0))])
        means, widths = (np.mean(points, axis=0), 2 * 1.96 * np.std(points, axis=0))
        rows.append([classes, "(mean · 3.92 sd)", *(f"{each:.3f}" for each in (*means, *widths))])
    print(tabulate(rows, ["classes", "interval", *METRICS, *(f"width {m}" for m in METRICS)], disable_numparse=True))


def probes(sides: Sides, subsets: int) -> None:
    from embedcore.retrieval.probes import probe

    population = len(np.unique(sides[1]))
    for classes in (64, 256):
        found = [probe(*chosen, seed=seed) for seed, chosen in enumerate(subsets_of(sides, classes, subsets))]
        names = [name for name in found[0].values if not name.endswith("_macro")]
        points, low, high = (
            np.array([[pick(each, name) for name in names] for each in found])
            for pick in (lambda p, n: p.values[n], lambda p, n: p.ci95[n][0], lambda p, n: p.ci95[n][1])
        )
        cells = covered(points, low, high, classes / population)
        rows = zip(names, (f"{mean:.3f}" for mean in points.mean(axis=0)), cells, strict=True)
        print(tabulate(rows, [f"{classes} classes", "mean", "covered"], disable_numparse=True), flush=True)


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    of_ranks = commands.add_parser("ranks")
    of_ranks.add_argument("--boards", type=int, default=1000)
    for name in ("scores", "probes"):
        of_name = commands.add_parser(name)
        of_name.add_argument("--cache", type=Path, required=True, help="folder in which the embeddings are kept")
        of_name.add_argument("--model", default="tf_efficientnet_lite0.in1k")
        of_name.add_argument("--dataset", default="emoji", help="as for --embed-dataset")
        of_name.add_argument("--subsets", type=int, default=500)
    parsed = parser.parse_args()
    if parsed.what == "ranks":
        ranks(parsed.boards)
        return
    sides = embedded(parsed.cache, parsed.model, parsed.dataset)
    classes, counts = len(np.unique(sides[1])), (len(sides[0]), len(sides[2]))
    print(f"{parsed.model}: {classes} classes, {counts[0]} queries, {counts[1]} references")
    {"scores": scores, "probes": probes}[parsed.what](sides, parsed.subsets)


if __name__ == "__main__":
    main()
