"""Weights: where they come from, in which order that is looked for, and how a model gets them, strictly."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from embedcore.errors import EmbedcoreError, HubUnreachable, UsageError, WeightsDamaged, WeightsUnavailable
from embedcore.files import sha256_of
from embedcore.zoo import registry, wheels
from embedcore.zoo.folder import SUFFIXES, check_entry, find_in_folder, read_manifest
from embedcore.zoo.hub import Hub
from embedcore.zoo.remote import RemoteFile, cache_folder, check_cached, find_cached, remote_file
from embedcore.zoo.state_files import check_safetensors, differences, is_memory, listing, mismatch, read_state

# What timm's own conversion of a checkpoint raises where the file is another model's.
_UNFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class Located:
    """Where a model's weights are to be had: a file here, a file to download, or a seed. Not loaded yet; picklable."""

    model: str
    source: str
    path: Path | None = None
    remote: RemoteFile | None = None
    seed: int = 0


@dataclass(frozen=True)
class Weights:
    """Weights as they were loaded.

    source is "hub", "folder", "wheel:NAME" or "random"; id is "sha256:" with the first 16 hex digits of the file's
    SHA-256, or "seed:N"; path is the file, None for random weights.
    """

    source: str
    id: str
    path: Path | None = None


def check_policy(policy: str) -> Path | None:
    """The folder that a weights option names, None for "auto" and "random"; raises UsageError for anything else."""
    if policy in ("auto", "random"):
        return None
    folder = Path(policy).expanduser()
    if not folder.is_dir():
        raise UsageError(f"weights {policy!r}: not 'auto' or 'random', and no such folder")
    return folder


def locate_weights(model: str, policy: str = "auto", *, seed: int = 0, hub: Hub | None = None) -> Located:
    """Find a model's weights without loading or downloading them: cheap enough to ask for a whole roster.

    policy "random" stands for seeded random weights. Else the order is: the folder where policy names one, installed
    weight wheels, the hub's cache, the hub. A folder holds ``<tag>`` or ``<architecture>`` with a suffix of SUFFIXES;
    the tag goes first. Raises WeightsUnavailable, saying what was looked for; HubUnreachable where a later try may find
    them; WeightsDamaged where the folder has something else than a file in its place; UsageError for a bad policy or an
    unknown model.
    """
    folder = check_policy(policy)
    registry.pretrained_cfg(model)  # an unknown model is the user's mistake, not a lack of weights
    if policy == "random":
        return Located(model, "random", seed=seed)
    missed: list[str] = []
    if folder is not None:
        path = find_in_folder(model, folder)
        if path is not None:
            return Located(model, "folder", path)
        missed.append(f"not in {folder} (as {model} or {registry.split_tag(model)[0]} with {', '.join(SUFFIXES)})")
    wheel = wheels.find_wheel(model)
    if wheel is not None:
        return Located(model, wheel[0].source, wheel[1])
    missed.append("in no installed weight wheel" + wheel_hint(model))
    remote = remote_file(model)
    if remote is None:
        raise WeightsUnavailable(f"{model}: no weights: {'; '.join(missed)}; timm has no address for them")
    path = find_cached(model)
    if path is not None:
        return Located(model, "hub", path)
    reason = (hub or Hub()).why_unreachable(remote)
    if reason is None:
        return Located(model, "hub", remote=remote)
    missed.append(f"not in the cache {cache_folder(remote)}")
    raise HubUnreachable(f"{model}: no weights: {'; '.join(missed)}; not downloaded: {reason}")


def wheel_hint(model: str) -> str:
    """What to install for a model that some weight wheel has, as the end of a sentence."""
    names = [wheel.distribution for wheel in wheels.WHEELS if wheel.model == model]
    return f" (pip install {names[0]})" if names else ""


def fetch_weights(located: Located, *, hub: Hub | None = None) -> Weights:
    """Download if need be, and identify the content.

    Raises WeightsGated, WeightsUnavailable or HubUnreachable, and WeightsDamaged for a file that cannot be read or, in
    a folder with a manifest, is not what that says.
    """
    if located.source == "random":
        return Weights("random", f"seed:{located.seed}")
    path = located.path
    if path is None:
        if located.remote is None:
            raise WeightsUnavailable(f"{located.model}: no weights were located")
        path = (hub or Hub()).download(located.model, located.remote)
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise WeightsDamaged(f"{located.model}: {path} cannot be read: {error.strerror or error}") from error
    if located.source == "folder":
        entry = read_manifest(path.parent).get(path.name)
        if entry is not None:
            check_entry(path, entry, sha256)
    check_cached(path, sha256)
    return Weights(located.source, f"sha256:{sha256[:16]}", path)


def build_model(model: str, weights: Weights) -> nn.Module:
    """Build timm's model with these weights, on the CPU, in eval mode, without gradients.

    Random weights are the same in every process for the same seed and leave torch's own generator as it was. Raises
    WeightsDamaged where a file does not fit the model or is no whole file of plain tensors.
    """
    if weights.path is None:
        module = _build_random(model, int(weights.id.removeprefix("seed:")))
    elif weights.source.startswith("wheel:") and (wheel := wheels.find_wheel(model)) is not None:
        module = _build_random(model, 0)
        _load_strictly(model, module, wheel_state(wheel[0], weights.path, module), weights.path)
    else:
        module = _build_from_file(model, weights.path)
    return module.eval().requires_grad_(False)


def _build_random(model: str, seed: int, **kwargs: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(model, **kwargs)


def _create(model: str, **kwargs: Any) -> nn.Module:
    own = wheels.own_entry(model)
    if own is not None:  # timm does not know this tag: build its architecture without a classifier
        model, kwargs = own.architecture, {"num_classes": 0, **kwargs}
    module: nn.Module = timm.create_model(model, **kwargs)
    return module


def wheel_state(wheel: wheels.WeightWheel, path: Path, module: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors of a wheel's file by the keys of timm's model, which is built where it is not given."""
    module = _build_random(wheel.model, 0) if module is None else module
    target = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    try:
        return wheel.convert(read_state(path), target)
    except WeightsDamaged:
        raise
    except (EmbedcoreError, *_UNFIT) as error:
        raise WeightsDamaged(f"{wheel.model}: {path} is not the file that is known of this wheel: {error}") from error


def _load_strictly(model: str, module: nn.Module, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    try:
        module.load_state_dict(state, strict=True)
    except _UNFIT as error:
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, state, module)}") from error
    return module


def _build_from_file(model: str, path: Path) -> nn.Module:
    """Hand a file to timm's own conversion; a pickle as tensors read here, since timm of old would run its code."""
    if wheels.own_entry(model) is not None:  # timm has no such weights, hence no conversion
        return _load_strictly(model, _build_random(model, 0), read_state(path), path)
    overlay: dict[str, Any] = {"custom_load": False, "source": None}
    if path.suffix == ".safetensors":
        check_safetensors(path)
        overlay["file"] = str(path)
    else:
        overlay["state_dict"] = read_state(path)
    try:
        with _missing_keys() as missing:
            module = _create(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except _UNFIT as error:
        if is_memory(error):
            raise
        module = _build_random(model, 0)  # a model that cannot even be built is no fault of the file
        raise WeightsDamaged(f"{model}: {path} {_unfit(error, read_state(path), module)}") from error
    if missing:
        raise WeightsDamaged(f"{model}: {path} does not fit: {listing(missing, 'missing keys')}")
    cfg = getattr(module, "pretrained_cfg", None)
    if isinstance(cfg, dict):
        cfg.pop("state_dict", None)  # a second copy of all weights
    return module


def _unfit(error: Exception, state: Mapping[str, Tensor], module: nn.Module) -> str:
    """What to say of a file that does not fit: torch's report in short, else how its keys differ from the model's."""
    return (
        mismatch(str(error))
        or differences(state, module.state_dict())
        or f"cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )


@contextlib.contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """The keys that timm's loader went without, where it loads leniently of its own accord, which it only logs."""
    missing: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        found = re.match(r"Missing keys \((.*)\) discovered", record.getMessage())
        if found:
            missing.extend(found.group(1).split(", "))
        return record.levelno >= level

    logger = logging.getLogger("timm.models._builder")
    level, own_level = logger.getEffectiveLevel(), logger.level
    logger.addFilter(note)
    logger.setLevel(min(level, logging.INFO))
    try:
        yield missing
    finally:
        logger.setLevel(own_level)
        logger.removeFilter(note)
