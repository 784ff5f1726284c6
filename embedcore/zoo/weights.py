"""Weights: where they come from, in which order that is looked for, and how a model gets them, strictly."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from timm.models import clean_state_dict
from torch import Tensor, nn

from embedcore.errors import EmbedcoreError, UsageError, WeightsUnavailable
from embedcore.zoo import registry, wheels
from embedcore.zoo.hub import Hub, RemoteFile, cache_folder, find_cached, remote_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


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
    the tag goes first. Raises WeightsUnavailable, saying what was looked for, and UsageError for a bad policy or an
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
        missed.append("timm has no address for them")
    else:
        path = find_cached(model)
        if path is not None:
            return Located(model, "hub", path)
        missed.append(f"not in the cache {cache_folder(remote)}")
        reason = (hub or Hub()).why_unreachable(remote)
        if reason is None:
            return Located(model, "hub", remote=remote)
        missed.append(f"not downloaded: {reason}")
    raise WeightsUnavailable(f"{model}: no weights: {'; '.join(missed)}")


def wheel_hint(model: str) -> str:
    """What to install for a model that some weight wheel has, as the end of a sentence."""
    names = [wheel.distribution for wheel in wheels.WHEELS if wheel.model == model]
    return f" (pip install {names[0]})" if names else ""


def find_in_folder(model: str, folder: Path) -> Path | None:
    """A model's file in a folder of weights, the tag's before the architecture's."""
    for name in dict.fromkeys((model, registry.split_tag(model)[0])):
        for suffix in SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


def fetch_weights(located: Located, *, hub: Hub | None = None) -> Weights:
    """Download if need be, and identify the content. Raises WeightsGated or WeightsUnavailable."""
    if located.source == "random":
        return Weights("random", f"seed:{located.seed}")
    path = located.path
    if path is None:
        if located.remote is None:
            raise WeightsUnavailable(f"{located.model}: no weights were located")
        path = (hub or Hub()).download(located.model, located.remote)
    return Weights(located.source, content_id(path), path)


def content_id(path: Path) -> str:
    """ "sha256:" and the first 16 hex digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def build_model(model: str, weights: Weights) -> nn.Module:
    """Build timm's model with these weights, on the CPU, in eval mode, without gradients.

    Random weights are the same in every process for the same seed and leave torch's own generator as it was. Raises
    EmbedcoreError where a file does not fit the model and WeightsUnavailable where it is no file of plain tensors.
    """
    if weights.path is None:
        module = _build_random(model, int(weights.id.removeprefix("seed:")))
    else:
        wheel = wheels.find_wheel(model) if weights.source.startswith("wheel:") else None
        if wheel is not None:
            module = _build_from_wheel(model, wheel[0], weights.path)
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
        return _module(timm.create_model(own.architecture, num_classes=0, **kwargs))
    return _module(timm.create_model(model, **kwargs))


def _module(model: Any) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


def _build_from_wheel(model: str, wheel: wheels.WeightWheel, path: Path) -> nn.Module:
    module = _build_random(model, 0)
    target = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    state = wheel.convert(read_state(path), target)
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise EmbedcoreError(f"{model}: {path} {mismatch(str(error))}") from error
    return module


def _build_from_file(model: str, path: Path) -> nn.Module:
    """Hand a file to timm's own conversion; a pickle as tensors read here, since timm of old would run its code."""
    overlay: dict[str, Any] = {"custom_load": False, "source": None}
    if path.suffix == ".safetensors":
        _check_safetensors(path)
        overlay["file"] = str(path)
    else:
        overlay["state_dict"] = read_state(path)
    try:
        with _missing_keys() as missing:
            module = _create(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        raise EmbedcoreError(f"{model}: {path} {mismatch(str(error))}") from error
    if missing:
        raise EmbedcoreError(f"{model}: {path} does not fit: {_listing(missing, 'missing keys', 3)}")
    cfg = getattr(module, "pretrained_cfg", None)
    if isinstance(cfg, dict):
        cfg.pop("state_dict", None)  # a second copy of all weights
    return module


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


def _check_safetensors(path: Path) -> None:
    try:
        with safetensors.safe_open(str(path), framework="pt"):
            pass
    except safetensors.SafetensorError as error:
        raise WeightsUnavailable(f"{path} is no safetensors file ({error}); fetch it again") from error


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a weight file by name; of a training checkpoint its EMA or model weights, as timm takes them.

    Never runs code from the file: safetensors, or ``torch.load(weights_only=True)``. Raises WeightsUnavailable where
    that fails.
    """
    if path.suffix == ".safetensors":
        _check_safetensors(path)
        return dict(safetensors.torch.load_file(str(path)))
    # timm's own training checkpoints carry their arguments: a Namespace of plain values, harmless to rebuild.
    allow = getattr(torch.serialization, "safe_globals", None)
    try:
        with allow([argparse.Namespace]) if allow else contextlib.nullcontext():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        advice = "save its state dict as .safetensors"
        raise WeightsUnavailable(f"{path} is no file of plain tensors ({first}); {advice}") from error
    if isinstance(content, dict):
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict):
        raise WeightsUnavailable(f"{path} holds a {type(content).__name__}, not a state dict")
    return dict(clean_state_dict(content))


def mismatch(message: str, shown: int = 3) -> str:
    r"""One line from torch's report of a state dict that does not fit: counts and the first few keys of each kind.

    >>> mismatch('Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: "a", "b". ', shown=1)
    'does not fit: 2 missing keys (a, …)'
    """
    parts = []
    for kind, title in (("Missing", "missing"), ("Unexpected", "unexpected")):
        found = re.search(rf'{kind} key\(s\) in state_dict: ("[^\n]*")\.', message)
        if found:
            parts.append(_listing(re.findall(r'"([^"]+)"', found.group(1)), f"{title} keys", shown))
    sizes = re.findall(r"size mismatch for ([^:\s]+):", message)
    if sizes:
        parts.append(_listing(sizes, "wrong shapes", shown))
    return f"does not fit: {'; '.join(parts)}" if parts else f"cannot be loaded: {' '.join(message.split())[:200]}"


def _listing(names: list[str], title: str, shown: int) -> str:
    more = ", …" if len(names) > shown else ""
    return f"{len(names)} {title} ({', '.join(names[:shown])}{more})"
