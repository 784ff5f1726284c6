"""Time the probes of a model against the search of the same embeddings, leave-one-out.

    OMP_NUM_THREADS=1 python benchmarks/harness/probe_cost.py
    OMP_NUM_THREADS=1 python benchmarks/harness/probe_cost.py --images 5000 --dim 256 --classes 10 100

Embeddings are drawn around class centres in a narrow cone, with a decaying spectrum, as models give them. Prints CPU
seconds, which other work on the machine hardly changes, of the search for the 20 nearest, of each probe, and of all
with their intervals; and the ratio of these to the search. The aim is at most 1 with 50,000 images and 1,000 classes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from embedcore.retrieval.few_shot import few_shot
from embedcore.retrieval.logistic import logistic_right, why_not
from embedcore.retrieval.metrics import VOTERS
from embedcore.retrieval.probes import probe
from embedcore.retrieval.ridge import ridge_right
from embedcore.retrieval.search import nearest


def make_rows(images: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings, float32 [n, d], and labels [n] of classes of equal size."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(images) % classes)
    spectrum = (1 + np.arange(dim, dtype=np.float32)) ** np.float32(-0.5)
    rows = rng.standard_normal((images, dim), dtype=np.float32)
    rows += rng.standard_normal((classes, dim), dtype=np.float32)[labels] * np.float32(0.25)
    rows = (rows * spectrum) @ np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    rows += np.float32(2 / np.sqrt(dim)) * np.float32(np.linalg.norm(spectrum))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median CPU seconds of a call."""
    durations = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        durations.append(time.process_time() - begin)
    return statistics.median(durations)


def row_of(images: int, dim: int, classes: int, rounds: int) -> list[str]:
    """Return a row of the table."""
    rows, labels = make_rows(images, dim, classes)
    search = seconds(lambda: nearest(rows, None, VOTERS), rounds)
    parts = [seconds(lambda: ridge_right(rows, labels), rounds), seconds(lambda: few_shot(rows, labels), rounds)]
    if not why_not(labels, None):
        parts.append(seconds(lambda: logistic_right(rows, labels), rounds))
    begin = time.process_time()
    found = probe(rows, labels)
    whole = time.process_time() - begin
    cells = [f"{value:.2f}" for value in (search, *parts)] + ["left out"] * (3 - len(parts))
    scores = " ".join(f"{found.values[name]:.3f}" for name in found.outcomes)
    return [str(classes), *cells, f"{whole:.2f}", f"{whole / search:.2f}", scores]


def main() -> None:
    """Print a row for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--rounds", type=int, default=1)
    parsed = parser.parse_args()
    table = [row_of(parsed.images, parsed.dim, classes, parsed.rounds) for classes in parsed.classes]
    print(f"{parsed.images:,} images, {parsed.dim} dimensions, {torch.get_num_threads()} threads; CPU seconds")
    heads = ["classes", "search", "ridge", "few-shot", "logistic", "all", "all / search", "scores"]
    print(tabulate(table, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
