"""The backbone: one timm model with its weights, ready to turn pixels into raw embeddings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from embedcore.errors import UnsupportedModel, UsageError
from embedcore.zoo import points, registry
from embedcore.zoo.factory import make_module
from embedcore.zoo.graphs import constants
from embedcore.zoo.hub import Hub
from embedcore.zoo.loading import load_model
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.transforms import DataConfig, data_config, eval_transform
from embedcore.zoo.weights import Located, Weights, fetch_weights, locate_weights, own_weights


@dataclass
class Backbone:
    """A loaded model, in eval mode and without gradients."""

    name: str
    module: nn.Module
    data_config: DataConfig
    params_m: float
    """Millions of parameters, with the classifier."""
    weights: Weights
    point: str
    token_mean: bool = False
    """Whether the embedding is a mean over tokens or the positions of a feature map; known after the first `embed`."""
    _forward: points.Forward = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._forward = (
            points.output_forward(self.module, self.name)
            if self.point == points.OUTPUT
            else points.point_forward(self.module, self.point, self.name)
        )

    def __repr__(self) -> str:
        height, width = self.data_config.input_size[1:]
        weights = f"{self.weights.source} weights"
        return f"Backbone {self.name!r}: {self.params_m:.1f} M parameters, {height}×{width} pixels, {weights}"

    @property
    def device(self) -> torch.device:
        """The device of its parameters, buffers or constants; the CPU if it has none."""
        held = itertools.chain(self.module.parameters(), self.module.buffers(), constants(self.module))
        return next((tensor.device for tensor in held), torch.device("cpu"))

    @functools.cached_property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The model's own evaluation preprocessing, timm's: PIL image → normalised float32 [3, h, w]."""
        return eval_transform(self.data_config)

    @torch.no_grad()  # in inference mode, what a module caches at its first call could not be used outside of it
    def embed(self, x: Tensor | Image.Image) -> Tensor:
        """Return raw embeddings [b, dim], not L2-normalised, of normalised pixels [b, 3, h, w] on the module's device.

        A PIL image is preprocessed and yields [1, dim]. The dtype is the module's, or that of an autocast around the
        call. Raises UnsupportedModel if the output is not a vector, a row of tokens or a map for each image.
        """
        if isinstance(x, Image.Image):
            x = self.transform(x)[None].to(self.device)
        output, pooled = points.pool(self._forward(x), self.module)
        if output.ndim != 2 or output.shape[0] != x.shape[0]:
            where = f"for {x.shape[0]} images at the embedding point {self.point!r}"
            raise UnsupportedModel(f"{self.name}: returns {tuple(output.shape)} {where}")
        self.token_mean = pooled
        return output


def load_backbone(
    model: str | OwnModel,
    *,
    weights: str | Located = "auto",
    point: str = "pre_logits",
    seed: int = 0,
    hub: Hub | None = None,
) -> Backbone:
    """Find a model's weights, load them and build the backbone, on the CPU.

    model: a tag, an architecture (its default tag), or an own model, to which weights, seed and hub do not apply.
    weights: "auto", "random" (from seed), a folder of weight files, or what locate_weights has found.
    point: one of points.POINTS; the module of a factory has only its output.

    Raises UsageError, WeightsUnavailable, WeightsGated, WeightsDamaged, FactoryError or UnsupportedModel.
    """
    points.check_point(point)  # before the slow part
    if isinstance(model, str):
        name = model if "." in model else registry.default_tag(model) or model
        located = weights if isinstance(weights, Located) else locate_weights(name, weights, seed=seed, hub=hub)
        module, loaded = load_model(name, fetch_weights(located, hub=hub))
        config = data_config(name)
    elif model.embeddings:
        raise UsageError(f"{model.name}: has embeddings only, no model to load")
    elif not model.factory and not (model.arch and model.weights):
        raise UsageError(f"{model.name}: an own model has arch and weights, or factory, or embeddings")
    else:
        name, config = model.name, data_config(model)
        if model.factory:
            point = points.OUTPUT
            module, loaded = make_module(model)
        else:
            module, loaded = load_model(model, own_weights(model))
    params_m = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    return Backbone(name, module, config, params_m, loaded, point)
