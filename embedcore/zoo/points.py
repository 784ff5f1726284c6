"""Embedding points: the places in a timm model where an embedding is taken."""

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
"""The point of a module that is not timm's: its output, or the last of a list or tuple of features."""
Forward = Callable[[Tensor], Tensor]
_OF_AN_EXPORT = re.compile(r"^Guard failed|^Expected input at \*args")


def point_forward(module: Any, point: str, model: str) -> Forward:
    """Return a function from pixels [b, 3, h, w] to the module's output at a point; tokens and maps are not yet pooled.

    - ``pre_logits``: the classifier's input, which is the output with ``num_classes=0``
    - ``avg``: the mean of the patch tokens, or of the feature map's positions, of ``forward_features``
    - ``cls``: the class token of ``forward_features``
    - ``head``: the classifier's output; of a CLIP tower the projection into the joint space

    model is the name in messages. Raises UsageError for an unknown point and UnsupportedModel if the module does not
    have it, which may show only at the first call (a list of features, say). May remove the classifier.
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
    """Return the function of `point_forward` for any module, at the point OUTPUT.

    A call raises UnsupportedModel for an exported module that takes only another number of images.
    """

    def forward(x: Tensor) -> Tensor:
        try:
            output = module(x)
        except (AssertionError, RuntimeError) as error:
            if not _OF_AN_EXPORT.search(str(error)):
                raise
            fault = f"exported for other inputs than {tuple(x.shape)} ({one_line(str(error))[:150]})"
            raise UnsupportedModel(f"{model}: {fault}: export it with a dynamic batch dimension") from error
        return _one_tensor(output[-1] if isinstance(output, list | tuple) and output else output, model)

    return forward


def check_point(point: str) -> None:
    """Raise UsageError unless this is one of POINTS."""
    if point not in POINTS:
        raise UsageError(f"unknown embedding point {point!r} (points: {', '.join(POINTS)})")


def _pre_logits(module: Any) -> Callable[[Tensor], object]:
    forward: Callable[[Tensor], object] = module.forward
    if not getattr(module, "num_classes", 0):  # without a classifier, its input is the output
        return forward
    head = getattr(module, "forward_head", None)
    if head is not None and "pre_logits" in inspect.signature(head).parameters:
        return lambda x: head(module.forward_features(x), pre_logits=True)
    module.reset_classifier(0)  # some models of old timm have no such argument: remove the classifier
    return forward


def _one_tensor(output: object, model: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise UnsupportedModel(
            f"{model}: returns a {type(output).__name__} instead of one tensor at this embedding point"
        )
    return output


def prefix_tokens(module: nn.Module) -> int:
    """Return the number of tokens (class, distillation, register) before the patches of a sequence."""
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
        raise UnsupportedModel(f"{model}: its features are not a token sequence, so no embedding point 'cls'")
    return tokens[:, 0]


def channels_first(module: nn.Module, maps: Tensor) -> Tensor:
    """Return a feature map as [n, c, h, w]; window transformers return [n, h, w, c]. Other ranks are unchanged."""
    if maps.ndim != 4:
        return maps
    width = getattr(module, "num_features", None)
    last = maps.shape[3] == width and maps.shape[1] != width
    return maps.permute(0, 3, 1, 2) if last or getattr(module, "output_fmt", "NCHW") == "NHWC" else maps


def pool(output: Tensor, module: nn.Module) -> tuple[Tensor, bool]:
    """Return one vector an image [n, d], and whether it is a mean over tokens [n, t, d] or over a map [n, c, h, w]."""
    if output.ndim == 4:
        output = channels_first(module, output).flatten(2).transpose(1, 2)
    if output.ndim == 3:
        return output.mean(dim=1), output.shape[1] > 1
    return output, False
