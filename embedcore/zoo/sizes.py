"""Parameters and multiply-accumulates of an architecture without building it, from a table that the package carries."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib import resources


def known_params_m(model: str) -> float | None:
    """Millions of parameters of the architecture with the classifier of its default tag; None where it is not known."""
    return _row(model)[0]


def known_gmacs(model: str) -> float | None:
    """Billions of multiply-accumulates of one image at the default tag's input size; None where it is not known.

    >>> known_gmacs("resnet50.a1_in1k")
    4.0892
    """
    return _row(model)[1]


def _row(model: str) -> tuple[float | None, float | None]:
    return _table().get(model.partition(".")[0], (None, None))


@functools.cache
def _table() -> Mapping[str, tuple[float | None, float | None]]:
    with resources.files("embedcore.zoo").joinpath("sizes.csv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        return {row["architecture"]: (_number(row["params_m"]), _number(row["gmacs"])) for row in rows}


def _number(text: str) -> float | None:
    return float(text) if text else None
