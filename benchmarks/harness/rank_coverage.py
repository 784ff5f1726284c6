"""Measure the coverage of intervals: of ranks on simulated leaderboards, and of scores on subsets of real images.

    python benchmarks/harness/rank_coverage.py ranks --boards 1000
    python benchmarks/harness/rank_coverage.py scores --cache folder --subsets 500

`ranks`: leaderboards with known true ranks, with ties, near ties and spread models, over classes that are easy or hard
for all of them. It prints the share of leaderboards on which all intervals contain all true ranks.

`scores`: the emoji set embedded by a real model, and subsets of its classes as a run draws them. For several kinds of
intervals it prints how often the interval of a subset contains the mean over all subsets of that size, and that of an
infinite population of such classes. Both commands are reproducible by seed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping
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


def emoji(cache: Path, model: str) -> tuple[np.ndarray, ...]:
    """Return queries and references of the whole emoji set, and their labels; embedded once."""
    path = cache / f"{model}.npz"
    if not path.is_file():
        from embedcore import embed_dataset, load_backbone, load_dataset

        images = load_dataset("emoji", max_classes=0)
        rows = embed_dataset(load_backbone(model), images)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            queries=rows[images.is_query],
            references=rows[images.is_reference],
            query_labels=images.query_labels,
            reference_labels=images.reference_labels,
        )
    with np.load(path) as saved:
        return tuple(saved[key] for key in ("queries", "query_labels", "references", "reference_labels"))


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


def scores(cache: Path, model: str, subsets: int) -> None:
    from embedcore import score

    queries, query_labels, references, reference_labels = emoji(cache, model)
    population = np.unique(query_labels)
    print(f"{model}: {len(population)} classes, {len(queries)} queries, {len(references)} references")
    rows = []
    for classes in (64, 256):
        points, found = [], []
        for seed in range(subsets):
            chosen = np.random.default_rng([2, classes, seed]).choice(population, classes, replace=False)
            of_queries, of_references = np.isin(query_labels, chosen), np.isin(reference_labels, chosen)
            scored = score(
                queries[of_queries],
                query_labels[of_queries],
                references[of_references],
                reference_labels[of_references],
                resamples=1,
            )
            values = np.stack([scored.per_query[name] for name in METRICS], axis=1)
            ours = intervals({name: scored.per_query[name] for name in METRICS}, scored.classes, seed=seed)
            low, high = (np.array([ours[name][end] for name in METRICS]) for end in (0, 1))
            points.append(values.mean(axis=0))
            found.append({"embedcore": (low, high), **interval_methods(values, scored.classes, seed)})
        target = np.mean(points, axis=0)
        # Finite population correction: a sample of n from N without replacement scatters less than one from an infinite
        # population, by the root of 1 - n / N. Dividing by that root gives the distance there.
        farther = np.array(points) + (target - points) / np.sqrt(1 - classes / len(population))
        for way in found[0]:
            low, high = (np.array([each[way][end] for each in found]) for end in (0, 1))
            shares = [((low <= wanted) & (wanted <= high)).mean(axis=0) for wanted in (target, farther)]
            cells = [f"{a:.3f} · {b:.3f}" for a, b in zip(*shares, strict=True)]
            rows.append([classes, way, *cells, *(f"{width:.3f}" for width in (high - low).mean(axis=0))])
        means, widths = (map("{:.3f}".format, row) for row in (target, 2 * 1.96 * np.std(points, axis=0)))
        rows.append([classes, "(mean · 3.92 sd)", *means, *widths])
    print(tabulate(rows, ["classes", "interval", *METRICS, *(f"width {m}" for m in METRICS)], disable_numparse=True))


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    of_ranks = commands.add_parser("ranks")
    of_ranks.add_argument("--boards", type=int, default=1000)
    of_scores = commands.add_parser("scores")
    of_scores.add_argument("--cache", type=Path, required=True, help="folder in which the embeddings are kept")
    of_scores.add_argument("--model", default="tf_efficientnet_lite0.in1k")
    of_scores.add_argument("--subsets", type=int, default=500)
    parsed = parser.parse_args()
    if parsed.what == "ranks":
        ranks(parsed.boards)
    else:
        scores(parsed.cache, parsed.model, parsed.subsets)


if __name__ == "__main__":
    main()
