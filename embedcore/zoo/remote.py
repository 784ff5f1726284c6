"""What timm would fetch for a model, and whether a cache of this machine has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants

from embedcore.errors import WeightsDamaged
from embedcore.zoo import registry


@dataclass(frozen=True)
class RemoteFile:
    """One weight file as timm would fetch it: names, best first, in a repository of the hub, or a plain URL."""

    repo: str = ""
    revision: str | None = None
    names: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return f"{self.repo} ({' or '.join(self.names)})" if self.repo else self.url


def remote_file(model: str) -> RemoteFile | None:
    """Where timm would fetch a model's weights from; None where it has no address for them.

    The hub goes before a URL, safetensors before a pickle, as timm's own loader chooses.
    """
    cfg = registry.pretrained_cfg(model)
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


def find_cached(model: str) -> Path | None:
    """The weight file of a model in the hub's cache, or in torch's for plain URLs; looks at the disk only."""
    remote = remote_file(model)
    if remote is None:
        return None
    if remote.url:
        path = url_file(remote.url)
        return path if path.is_file() else None
    look = partial(huggingface_hub.try_to_load_from_cache, remote.repo, revision=remote.revision)
    return next((Path(path) for path in map(look, remote.names) if isinstance(path, str)), None)


def url_file(url: str, folder: Path | None = None) -> Path:
    """Where torch keeps the file of a plain URL, or its place in another folder."""
    return (folder or Path(torch.hub.get_dir()) / "checkpoints") / Path(urlsplit(url).path).name


def cache_folder(remote: RemoteFile) -> Path:
    """The folder that find_cached looks into."""
    return url_file(remote.url).parent if remote.url else Path(constants.HF_HUB_CACHE)


def check_cached(path: Path, sha256: str) -> None:
    """Raise WeightsDamaged where a file of the hub's cache, whose content is named by its SHA-256, has another one."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name) and name != sha256:
        said = f"its sha256 is {sha256}, not {name}; delete {path.resolve()}"
        raise WeightsDamaged(f"the cached {path} is damaged: {said}")
