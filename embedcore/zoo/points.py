"""Embedding points: where in a timm model an embedding is taken."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from embedcore.errors import UnsupportedModel, UsageError
from embedcore.plain import one_line

POINTS = ("pre_logits", "avg", "cls", "head")
OUTPUT = "output"
"""The point of a module that is not timm's: what it gives; of a list or tuple of features the last."""
Forward = Callable[[Tensor], Tensor]
_OF_AN_EXPORT = re.compile(r"^Guard failed|^Expected input at \*args")


def point_forward(module: Any, point: str, model: str) -> Forward:
    """A function from pixels [b, 3, h, w] to what the module gives at a point, tokens or feature maps not yet pooled.

    - ``pre_logits``: what goes into the classifier, which is what ``num_classes=0`` gives
    - ``avg``: the mean of the patch tokens, or of the feature map's positions, of ``forward_features``
    - ``cls``: the class token of ``forward_features``
    - ``head``: the classifier's output; of a CLIP tower the projection into the joint space

    model is the name for messages. Raises UsageError for an unknown point and UnsupportedModel where the module has
    none; what only the output tells (a list of features, say) is raised at the first call. May drop the classifier.
    """
    check_point(point)
    if point == "pre_logits":
        forward = _pre_logits(module)
        return lambda x: _one_tensor(forward(x), model)
    if point == "avg":
        return lambda x: _patches(module, module.forward_features(x), model)
    if point == "cls":
        if not isinstance(getattr(module, "cls_token", None), Tensor):
            raise UnsupportedModel(f"{model}: has no class token, so no embedding point 'cls'")
        return lambda x: _class_token(module.forward_features(x), model)
    if not getattr(module, "num_classes", 0):
        raise UnsupportedModel(f"{model}: has no classifier or projection, so no embedding point 'head'")
    return lambda x: _one_tensor(module(x), model)


def output_forward(module: nn.Module, model: str) -> Forward:
    """The same for a module of anybody's, at the point OUTPUT.

    Raises UnsupportedModel, at a call, for an exported module that takes another number of images only.
    """

    def forward(x: Tensor) -> Tensor:
        try:
            output = module(x)
        except (AssertionError, RuntimeError) as error:
            if not _OF_AN_EXPORT.search(str(error)):
                raise
            said = f"exported for other inputs than {tuple(x.shape)} ({one_line(str(error))[:150]})"
            raise UnsupportedModel(f"{model}: {said}: export it with a dynamic batch dimension") from error
        return _one_tensor(output[-1] if isinstance(output, list | tuple) and output else output, model)

    return forward


def check_point(point: str) -> None:
    """Raise UsageError unless this is one of POINTS."""
    if point not in POINTS:
        raise UsageError(f"unknown embedding point {point!r} (points: {', '.join(POINTS)})")


def _pre_logits(module: Any) -> Callable[[Tensor], object]:
    forward: Callable[[Tensor], object] = module.forward
    if not getattr(module, "num_classes", 0):  # then forward is it already; encoders of language models have no other
        return forward
    head = getattr(module, "forward_head", None)
    if head is not None and "pre_logits" in inspect.signature(head).parameters:
        return lambda x: head(module.forward_features(x), pre_logits=True)
    module.reset_classifier(0)  # old timm has models without that switch: there the classifier itself is taken off
    return forward


def _one_tensor(output: object, model: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise UnsupportedModel(
            f"{model}: gives a {type(output).__name__} instead of one tensor at this embedding point"
        )
    return output


def prefix_tokens(module: nn.Module) -> int:
    """How many tokens (class, distillation, register) stand before the patches in a sequence."""
    known = getattr(module, "num_prefix_tokens", None)
    if isinstance(known, int):
        return known
    return sum(isinstance(getattr(module, name, None), Tensor) for name in ("cls_token", "dist_token"))


def _patches(module: nn.Module, features: object, model: str) -> Tensor:
    tokens = _one_tensor(features, model)
    if tokens.ndim != 3:
        return tokens  # a feature map, which `pool` averages over its positions
    patches = tokens[:, prefix_tokens(module) :]
    if patches.shape[1] == 0:
        raise UnsupportedModel(f"{model}: its features are class tokens only, so no embedding point 'avg'")
    return patches


def _class_token(features: object, model: str) -> Tensor:
    tokens = _one_tensor(features, model)
    if tokens.ndim != 3:
        raise UnsupportedModel(f"{model}: its features are no token sequence, so no embedding point 'cls'")
    return tokens[:, 0]


def channels_first(module: nn.Module, maps: Tensor) -> Tensor:
    """A feature map as [n, c, h, w]; timm's window transformers give [n, h, w, c]. Other ranks are left alone."""
    if maps.ndim != 4:
        return maps
    width = getattr(module, "num_features", None)
    last = maps.shape[3] == width and maps.shape[1] != width
    return maps.permute(0, 3, 1, 2) if last or getattr(module, "output_fmt", "NCHW") == "NHWC" else maps


def pool(output: Tensor, module: nn.Module) -> tuple[Tensor, bool]:
    """One vector an image [n, d], and whether positions had to be averaged: tokens [n, t, d] or a map [n, c, h, w]."""
    if output.ndim == 4:
        output = channels_first(module, output).flatten(2).transpose(1, 2)
    if output.ndim == 3:
        return output.mean(dim=1), output.shape[1] > 1
    return output, False
