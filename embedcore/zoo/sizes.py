"""Parameters and multiply-accumulates of an architecture without building it, from a table that the package carries."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib import resources


def known_params_m(model: str) -> float | None:
    """Millions of parameters of the architecture with the classifier of its default tag; None where it is not known."""
    return _known(model, "params_m")


def known_gmacs(model: str) -> float | None:
    """Billions of multiply-accumulates of one image at the default tag's input size; None where it is not known."""
    return _known(model, "gmacs")


def _known(model: str, column: str) -> float | None:
    number = _table().get(model.partition(".")[0], {}).get(column)
    return float(number) if number else None


@functools.cache
def _table() -> Mapping[str, Mapping[str, str]]:
    with resources.files("embedcore.zoo").joinpath("sizes.csv").open(encoding="utf-8") as stream:
        return {row["architecture"]: row for row in csv.DictReader(stream)}
