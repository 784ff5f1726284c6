"""Check that drift detects small changes of the code but not rounding. Prints a table; measures no time.

    python benchmarks/harness/drift.py [--gmacs 1.3] [--json FILE]

Models: the smallest architecture of every timm module, up to a number of GMACs, with seeded random weights; and the
real weights on this machine. Each embeds 8 emoji, as for a sketch, before and after the change.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from embedcore.compare.statistics import embedding_drift
from embedcore.embed.device import place
from embedcore.embed.embedder import ForwardSettings, embed_pixels
from embedcore.embed.sketch import SKETCH_IMAGES, sketch_of
from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.registry import module_of
from embedcore.zoo.tags import local_tags

LIMITS = (1e-3, 2e-5)
"""The gate's default limit, and the smallest drift that compare reports: five times the largest seen from rounding."""

CPU = torch.device("cpu")
IMAGENET, HALF = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Images in memory: uint8 [n, h, w, 3]."""

    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.images[start:stop]


class Model:
    """A backbone and its sketch of fixed images, computed with the current changes."""

    def __init__(self, backbone: Backbone, images: list[Any]) -> None:
        self.backbone, self._images = backbone, images
        place(backbone.module, CPU)
        self.before = self.sketch()

    def sketch(self, batch_size: int = SKETCH_IMAGES, **geometry: Any) -> np.ndarray:
        transform = dataclasses.replace(geometry_of(self.backbone.data_config), **geometry).transform()
        pixels = Pixels(np.stack([transform(image) for image in self._images]))
        return sketch_of(embed_pixels(self.backbone, pixels, ForwardSettings(CPU), batch_size=batch_size).embeddings)


def another_filter(model: Model) -> np.ndarray:
    other = "bicubic" if model.backbone.data_config.interpolation == "bilinear" else "bilinear"
    return model.sketch(interpolation=other)


def another_crop(model: Model) -> np.ndarray:
    model.before = model.sketch(crop_pct=0.9)
    return model.sketch(crop_pct=0.875)


def another_mean(model: Model) -> np.ndarray:
    config = model.backbone.data_config
    mean, std = HALF if config.mean == IMAGENET[0] else IMAGENET
    model.backbone.data_config = dataclasses.replace(config, mean=mean, std=std)
    try:
        return model.sketch()
    finally:
        model.backbone.data_config = config


def another_epsilon(model: Model, factor: float) -> np.ndarray | None:
    norms: list[Any] = [m for m in model.backbone.module.modules() if "Norm" in type(m).__name__ and hasattr(m, "eps")]
    before = [norm.eps for norm in norms]
    for norm, eps in zip(norms, before, strict=True):
        norm.eps = eps * factor
    try:
        return model.sketch() if norms else None
    finally:
        for norm, eps in zip(norms, before, strict=True):
            norm.eps = eps


def gelu_by_tanh(model: Model) -> np.ndarray | None:
    exact: list[Any] = [
        module
        for module in model.backbone.module.modules()
        if type(module).__name__ == "GELU" and getattr(module, "approximate", "none") == "none"
    ]
    for module in exact:
        module.forward = partial(F.gelu, approximate="tanh")
    try:
        return model.sketch() if exact else None
    finally:
        for module in exact:
            del module.forward


def two_threads(model: Model) -> np.ndarray:
    torch.set_num_threads(2)
    try:
        return model.sketch()
    finally:
        torch.set_num_threads(1)


def without_onednn(model: Model) -> np.ndarray:
    with torch.backends.mkldnn.flags(enabled=False):
        return model.sketch()


CHANGES: Mapping[str, Callable[[Model], np.ndarray | None]] = {
    "another filter (bilinear, bicubic)": another_filter,
    "crop .9 → .875": another_crop,
    "another mean and std (ImageNet's, .5)": another_mean,
    "epsilon of the norms × 10": partial(another_epsilon, factor=10),
    "epsilon of the norms × 100": partial(another_epsilon, factor=100),
    "gelu → gelu_tanh": gelu_by_tanh,
}
ROUNDINGS: Mapping[str, Callable[[Model], np.ndarray | None]] = {
    "1 thread → 2": two_threads,
    "batch of 8 → 1": partial(Model.sketch, batch_size=1),
    "batch of 8 → 3": partial(Model.sketch, batch_size=3),
    "without oneDNN": without_onednn,
}


def architectures(gmacs: float) -> list[str]:
    """Return the smallest architecture of each module, without the mini models of timm's tests."""
    smallest: dict[str, tuple[float, str]] = {}
    with files("embedcore.zoo").joinpath("sizes.csv").open() as table:
        for row in csv.DictReader(table):
            name, size = row["architecture"], float(row["gmacs"])
            if size <= gmacs and not name.startswith("test_") and (module := module_of(name)):
                smallest[module] = min(smallest.get(module, (size, name)), (size, name))
    return sorted(name for _, name in smallest.values())


def bring_to_scale(model: Model) -> None:
    """Scale random weights so that activations have the size of a trained model's.

    Outputs of every linear layer and convolution get standard deviation 1 on the images (LSUV, Mishkin and Matas 2015),
    batch norms the statistics of the images, layer scales 1. Otherwise activations are so small, or blocks so weak,
    that changes have no visible effect.
    """
    module, hooks = model.backbone.module, []

    def scale(layer: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        deviation = output.std().clamp_min(1e-6)
        layer.weight.div_(deviation)
        if layer.bias is not None:
            layer.bias.div_(deviation)
        return output / deviation

    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            hooks.append(layer.register_forward_hook(scale))
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
            layer.train()
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("gamma", "ls1", "ls2", "layer_scale", "gamma1", "gamma2", "gamma3"):
            nn.init.ones_(parameter)
    model.sketch()
    module.eval()
    for hook in hooks:
        hook.remove()
    model.before = model.sketch()


def drifts_of(model: Model) -> dict[str, float]:
    """Return change → drift, without changes that do not apply to the model."""
    found = {}
    for name, change in {**CHANGES, **ROUNDINGS}.items():
        before, after = model.before, change(model)
        if after is not None:
            found[name] = embedding_drift(model.before, after)
        model.before = before
    return found


def table(drifts: Mapping[str, Mapping[str, float]]) -> str:
    above = [f"> {limit:.0e}".replace("e-0", "e-") for limit in LIMITS]
    lines = [f"| change | models | {' | '.join(above)} | min | median | max |", "|---|---|---|---|---|---|---|"]
    for name in (*CHANGES, *ROUNDINGS):
        values = sorted(found[name] for found in drifts.values() if name in found)
        if values:
            seen = [str(sum(value > limit for value in values)) for limit in LIMITS]
            figures = [f"{figure:.1e}" for figure in (values[0], statistics.median(values), values[-1])]
            lines.append(f"| {' | '.join([name, str(len(values)), *seen, *figures])} |")
    return "\n".join(lines)


TITLES = {
    "scaled": "Seeded random weights, activations brought to the size of trained ones",
    "random": "Seeded random weights as timm makes them",
    "auto": "Real weights",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gmacs", type=float, default=1.3)
    parser.add_argument("--weights", choices=TITLES, nargs="*", default=list(TITLES))
    parser.add_argument("--only", nargs="*", metavar="ARCHITECTURE")
    parser.add_argument("--json", type=Path, help="write the drift of each model to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # two threads are very slow on a busy machine
    dataset = load_dataset("emoji", max_classes=SKETCH_IMAGES, max_per_class=1)
    # At 224 px a model with this input size and crop 1 would not scale the images, and its filter would not matter.
    images = [dataset.images.load(index).resize((320, 320)) for index in range(SKETCH_IMAGES)]
    found: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in arguments.weights}
    try:
        for kind, drifts in found.items():
            for name in local_tags() if kind == "auto" else arguments.only or architectures(arguments.gmacs):
                print(f"{kind}: {name}", file=sys.stderr)
                model = Model(load_backbone(name, weights="auto" if kind == "auto" else "random"), images)
                if kind == "scaled":
                    bring_to_scale(model)
                drifts[name] = drifts_of(model)
                if arguments.json:
                    arguments.json.write_text(json.dumps(found, indent=1))
    finally:
        for kind, drifts in found.items():
            print(f"\n{TITLES[kind]}, {len(drifts)} models:\n\n{table(drifts)}")


if __name__ == "__main__":
    main()
