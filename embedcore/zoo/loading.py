"""Build a model with its weights: timm's own files strictly, a user's as they are or fitted to the architecture."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from embedcore.errors import EmbedcoreError, WeightsDamaged
from embedcore.zoo import registry, wheels
from embedcore.zoo.fitting import UNFIT, Fitted, create, fit_backbone, load_into_timm, without_prefix
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.shapes import Resampled, refusal, resampled, wrong_shapes
from embedcore.zoo.state_files import differences, is_memory, misfit, mismatch, read_state
from embedcore.zoo.weights import Weights, is_timms


def build_model(model: str, weights: Weights) -> nn.Module:
    """Return the module of `load_model`."""
    return load_model(model, weights)[0]


def load_model(model: str | OwnModel, weights: Weights) -> tuple[nn.Module, Weights]:
    """Build timm's model with these weights, on the CPU, in eval mode, without gradients.

    Also returns the weights as they were loaded, with the last three fields set for a user's own file. Random weights
    depend on the seed alone and leave torch's own generator as it was. Raises WeightsDamaged if a file does not fit the
    model, holds no usable weights or is not a complete file of plain tensors.
    """
    own_model = None if isinstance(model, str) else model
    name = model if isinstance(model, str) else model.arch or ""
    if weights.path is None:
        module = _build_random(name, int(weights.id.removeprefix("seed:")))
    elif own_model is None and (weights.source.startswith("wheel:") or wheels.added_model(name)):
        module = _build_strictly(name, weights.path, in_order=weights.source != "folder")  # timm cannot convert these
    elif is_timms(weights):
        module = _build_timms(name, weights.path)
    else:
        module, weights = _build_users(name, weights.path, weights, own_model)
    return module.eval().requires_grad_(False), weights


def _build_random(model: str, seed: int) -> nn.Module:
    wheel = wheels.added_model(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # timm does not know a wheel's own tag: build its architecture without a classifier
        module: nn.Module = timm.create_model(wheel.architecture, num_classes=0) if wheel else timm.create_model(model)
    return module


def _build_strictly(model: str, path: Path, *, in_order: bool) -> nn.Module:
    """Load the file of a wheel, whose tensors are in timm's order, or one with timm's keys."""
    module, (state, _) = _build_random(model, 0), read_state(path)
    try:
        if in_order:
            target = {key: tuple(value.shape) for key, value in module.state_dict().items()}
            state = wheels.in_order_to_timm(state, target)
        module.load_state_dict(state, strict=True)
    except EmbedcoreError as error:
        raise WeightsDamaged(f"{model}: {path} is not the known file of this package: {error}") from error
    except UNFIT as error:
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, state, module)}") from error
    return module


def _build_timms(model: str, path: Path) -> nn.Module:
    """Load timm's own file of a tag by timm's conversion."""
    module, fault, cause = _converted(model, read_state(path)[0], {})
    if fault:
        raise WeightsDamaged(f"{model}: {path} {fault}") from cause
    return module


def _build_users(model: str, path: Path, weights: Weights, own_model: OwnModel | None) -> tuple[nn.Module, Weights]:
    """Load a user's own file as it is, by timm's conversion or by `fit_backbone`; resample only if its entry allows."""
    name = own_model.name if own_model else model
    wheel = wheels.added_model(model)
    architecture = wheel.architecture if wheel else model
    overlay = own_model.overlay if own_model else {}
    try:
        state, part = _state_of(path, own_model)
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{name}: {error}") from error
    try:
        fitted = _fitted(architecture, state, overlay)
        found = resampled(fitted.state, fitted.module)
        if found and not (own_model and own_model.resample):
            raise WeightsDamaged(_refusal(architecture, overlay, found))
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{name}: {path} {error}") from error
    changes = "; ".join(map(str, found))
    return fitted.module, replace(weights, classifier=fitted.classifier, part=part, resampled=changes)


def _converted(
    architecture: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any]
) -> tuple[nn.Module, str, Exception | None]:
    """Build a model by timm's conversion; return it, and why the tensors do not fit ("" if they do), with the cause."""
    try:
        module, log = load_into_timm(architecture, state, overlay)
        return module, misfit({"missing keys": log.missing}), None
    except UNFIT as error:
        if is_memory(error):
            raise
        module = create(architecture, overlay)  # raises if the model itself cannot be built
        return module, _unfit(error, state, module), error


def _fitted(architecture: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any]) -> Fitted:
    module, fault, cause = _converted(architecture, state, overlay)
    if not fault:
        return Fitted(module, "", state)
    fitted = fit_backbone(architecture, state, overlay)
    if fitted is None:
        bare = create(architecture, overlay, num_classes=0)
        wrong = wrong_shapes(without_prefix(state, bare.state_dict())[0], bare)
        raise WeightsDamaged(_refusal(architecture, overlay, wrong, resizable=False) if wrong else fault) from cause
    return fitted


def _refusal(architecture: str, overlay: Mapping[str, Any], found: list[Resampled], *, resizable: bool = True) -> str:
    size = overlay.get("input_size") or registry.pretrained_cfg(architecture).get("input_size", (3, 0, 0))
    side = size[1] if size[1] == size[2] else None
    return refusal(found, side, functools.partial(_shapes_at, architecture, overlay), resizable=resizable)


def _shapes_at(architecture: str, overlay: Mapping[str, Any], side: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors at another input size; empty if it cannot be built."""
    try:
        with torch.random.fork_rng(devices=[]):
            other = create(architecture, {**overlay, "input_size": (3, side, side)})
    except UNFIT as error:
        if is_memory(error):
            raise
        return {}
    return {name: tuple(value.shape) for name, value in other.state_dict().items()}


def _state_of(path: Path, own_model: OwnModel | None) -> tuple[Mapping[str, Tensor], str]:
    if own_model is None:
        return read_state(path)
    if own_model.trust:
        own_model.make_importable()
    remedy = "set trust = true in its entry if you trust its source"
    return read_state(path, trust=own_model.trust, remedy=remedy, key=own_model.checkpoint_key)


def _unfit(error: Exception, state: Mapping[str, Tensor], module: nn.Module) -> str:
    """Return why a file does not fit: a summary of torch's report, else how its keys differ from the model's."""
    return (
        mismatch(str(error))
        or differences(state, module.state_dict())
        or f"cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )
