"""Top-1 accuracies that timm publishes for its models on ImageNet and its variants, from a table in this package.

``published.csv`` begins with lines of ``#`` that name its source, version and licence; `scripts/make_published.py`
makes it from the csv files of timm's folder ``results``.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from embedcore.errors import UsageError
from embedcore.plain import one_line

SETS: Mapping[str, str] = MappingProxyType(
    {
        "ImageNet": "results-imagenet.csv",
        "ReaL": "results-imagenet-real.csv",
        "ImageNet-V2": "results-imagenetv2-matched-frequency.csv",
        "ImageNet-A": "results-imagenet-a.csv",
        "ImageNet-R": "results-imagenet-r.csv",
        "ImageNet-Sketch": "results-sketch.csv",
    }
)
"""Each test set, and timm's file of its results."""


@functools.cache
def _text() -> str:
    return resources.files("embedcore.zoo").joinpath("published.csv").read_text(encoding="utf-8")


@functools.cache
def published() -> Mapping[str, Mapping[str, float]]:
    """Return, for each test set of the table, model → top-1 accuracy in percent."""
    rows = [*csv.DictReader(line for line in _text().splitlines() if not line.startswith("#"))]
    return {name: {row["model"]: float(row[name]) for row in rows if row[name]} for name in SETS if name in rows[0]}


def read_top1(path: Path) -> dict[str, float]:
    """Return model → ``top1`` of a csv file that has these columns, such as each file of timm's folder ``results``.

    If a model has rows for several ``img_size``, the smallest counts: timm lists its training size, at which embedcore
    measures, and a larger one. Raises UsageError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [*csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {one_line(str(why))[:100]}") from error
    found: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows, start=2):
        if not {"model", "top1"} <= row.keys():
            raise UsageError(f"{path}: the columns model and top1 are needed; it has {', '.join(map(str, row))[:100]}")
        model = (row["model"] or "").strip()
        try:
            size, top1 = float(row.get("img_size") or 0), float(row["top1"] or "")
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {one_line(str(error))[:100]}") from error
        if not model or not math.isfinite(top1):
            raise UsageError(f"{path}, line {number}: a model and its top1 are needed")
        if model not in found or size < found[model][0]:
            found[model] = size, top1
    if not found:
        raise UsageError(f"{path} has no row with a model and its top1")
    return {model: top1 for model, (_, top1) in found.items()}


def versions() -> Mapping[str, str]:
    """Return test set → version of timm in which its results were published."""
    lines = (line for line in _text().splitlines() if line.startswith("# "))
    found = {line[2:].partition(":")[0]: line.rpartition(", timm ")[2].rpartition(", ")[0] for line in lines}
    return {name: found[name] for name in SETS if name in found}
