"""What timm would fetch for a model, and whether a cache of this machine has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from embedcore.zoo import hub_cache, registry


@dataclass(frozen=True)
class RemoteFile:
    """One weight file as timm would fetch it: names, best first, in a repository of the hub, or a plain URL."""

    repo: str = ""
    revision: str | None = None
    names: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return f"{self.repo} ({' or '.join(self.names)})" if self.repo else self.url


@dataclass(frozen=True)
class RemoteContent:
    """What a server says of a weight file: under which of its names it is there, its length in bytes and its hash.

    etag is the SHA-256 of the content, or git's hash for a small file; it and commit are "" for a plain URL, where
    size is None too.
    """

    name: str
    url: str
    size: int | None = None
    etag: str = ""
    commit: str = ""


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
    if name in known:
        return known[name], name
    return (f"{name.removesuffix('.bin')}.safetensors", name) if name.endswith(".bin") else (name,)


def find_cached(model: str) -> Path | None:
    """The weight file of a model in the hub's cache, or in torch's for plain URLs; looks at the disk only."""
    remote = remote_file(model)
    if remote is None:
        return None
    if remote.url:
        path = hub_cache.url_file(remote.url)
        return path if path.is_file() else None
    found = (hub_cache.hub_file(remote.repo, name, remote.revision) for name in remote.names)
    return next((path for path in found if path is not None), None)


def cache_folder(remote: RemoteFile) -> Path:
    """The folder that find_cached looks into."""
    return hub_cache.url_file(remote.url).parent if remote.url else Path(constants.HF_HUB_CACHE)
