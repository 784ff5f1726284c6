"""Check the advice on stored embeddings with real weights and planted changes. Prints a Markdown table; times nothing.

    python benchmarks/harness/stored_embeddings.py --cache FOLDER [--classes N] [--models …] [--changes …]

Each model on this machine embeds emoji before and after each change. The accuracy of new queries in the old index is
checked against brute force; a planted rotation of the old embeddings must be repaired to within rounding, for which
half of the images must be more than the embedding's width: 800 classes for these models.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcore.compare.compatibility import Compatibility, compatibility
from embedcore.compare.labelled_embeddings import ImageLabels
from embedcore.embed.device import place
from embedcore.embed.embedder import ForwardSettings, embed_pixels
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.tags import local_tags

CPU = torch.device("cpu")
ROUNDING = 1e-5
"""Largest distance between an old embedding and the repaired one."""


class Model:
    """A backbone that embeds a dataset under changes."""

    def __init__(self, name: str, dataset: Dataset, cache: Path) -> None:
        self.backbone: Backbone = load_backbone(name)
        place(self.backbone.module, CPU)
        self._dataset, self._cache = dataset, cache

    def embeddings(self, precision: str = "fp32", **geometry: Any) -> np.ndarray:
        wanted = dataclasses.replace(geometry_of(self.backbone.data_config), **geometry)
        pixels = open_pixel_store(self._dataset, wanted, self._cache)
        settings = ForwardSettings(CPU, precision=precision)
        return embed_pixels(self.backbone, pixels, settings, batch_size=16).embeddings


def another_crop(model: Model) -> np.ndarray:
    return model.embeddings(crop_pct=1.0)


def bilinear(model: Model) -> np.ndarray:
    other = "bicubic" if model.backbone.data_config.interpolation == "bilinear" else "bilinear"
    return model.embeddings(interpolation=other)


def bf16(model: Model) -> np.ndarray:
    return model.embeddings(precision="bf16")


def epsilon(model: Model) -> np.ndarray:
    with epsilon_times(model.backbone, 10):
        return model.embeddings()


@contextlib.contextmanager
def epsilon_times(backbone: Backbone, factor: float) -> Iterator[None]:
    norms: list[Any] = [m for m in backbone.module.modules() if isinstance(getattr(m, "eps", None), float)]
    for norm in norms:
        norm.eps *= factor
    try:
        yield
    finally:
        for norm in norms:
            norm.eps /= factor


HEADINGS = (
    "| model | change | distance | old-old | new-new | new-old | 10 % | 50 % | 90 % | rotated | 95 % | p | answer |"
)

CHANGES: Mapping[str, Callable[[Model], np.ndarray]] = {
    "crop 1.0": another_crop,
    "bilinear ↔ bicubic": bilinear,
    "bf16": bf16,
    "epsilon of the norms × 10": epsilon,
}


ROTATION = "planted rotation"


def rotated(old: np.ndarray) -> np.ndarray:
    """Return embeddings turned by a seeded random rotation."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((old.shape[1],) * 2))[0]
    return (old @ turn).astype(np.float32)


def brute_force_acc(queries: np.ndarray, references: np.ndarray, dataset: Dataset) -> float:
    """Return the share of queries whose nearest reference is of their class, from all pairs in float64."""
    products = queries[dataset.is_query].astype(np.float64) @ references[dataset.is_reference].T.astype(np.float64)
    hits = dataset.labels[dataset.is_reference][products.argmax(axis=1)] == dataset.query_labels
    known = np.isin(dataset.query_labels, dataset.labels[dataset.is_reference])
    return float(hits[known].mean())


def row(name: str, change: str, found: Compatibility) -> str:
    acc = [f"{search.scores['acc']:.3f}" for search in found.searches.values()]
    _, low, high, p = found.searches["new_old"].changes["acc"]
    interval = f"[{100 * low:+.2f}, {100 * high:+.2f}]"
    answer = found.advice + ("" if found.certain else " (uncertain)")
    return f"| {name} | {change} | {found.distance:.1e} | {' | '.join(acc)} | {interval} | {p:.2g} | {answer} |"


def main() -> int:
    """Print a row for each model and change; the exit code is 1 if one differs from brute force."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=256)
    parser.add_argument("--models", nargs="+", default=local_tags())
    parser.add_argument("--changes", nargs="+", default=[*CHANGES, ROTATION], choices=[*CHANGES, ROTATION])
    parser.add_argument("--cache", type=Path, required=True, help="folder for pixels")
    options = parser.parse_args()
    dataset = load_dataset("emoji", max_classes=options.classes)
    images = ImageLabels(dataset.labels, dataset.is_query, dataset.is_reference)
    print(f"{len(dataset)} images in {len(dataset.classes)} classes, {int(dataset.is_query.sum())} queries\n")
    print(HEADINGS)
    print("|---" * (HEADINGS.count("|") - 1) + "|")
    failed = False
    for name in options.models:
        model = Model(name, dataset, options.cache)
        old = model.embeddings()
        for change in options.changes:
            new = rotated(old) if change == ROTATION else CHANGES[change](model)
            found = compatibility(old, new, images)
            print(row(name, change, found), flush=True)
            acc = found.searches["new_old"].scores["acc"]
            if abs(acc - brute_force_acc(new, old, dataset)) > 1e-12:
                print(f"{name}, {change}: brute force gives {brute_force_acc(new, old, dataset)}", file=sys.stderr)
                failed = True
            if change == ROTATION and found.matrix is not None:
                off = float(np.linalg.norm(new @ found.matrix - old, axis=1).max())
                print(f"{name}: repaired to within {off:.1e}", file=sys.stderr)
                failed |= off > ROUNDING
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
