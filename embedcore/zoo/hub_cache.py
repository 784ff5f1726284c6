"""The cache folders of the Hugging Face hub and of torch: where a file lies in them, and putting one there.

The hub's cache holds ``models--OWNER--NAME/blobs/ETAG``, the content; ``snapshots/COMMIT/FILE``, a link to it; and
``refs/REVISION``, the commit of a branch. timm and every other user of huggingface_hub find there what was put there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants

MAIN = "main"


def url_file(url: str) -> Path:
    """Where torch keeps the file of a plain URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def hub_file(repo: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository in the hub's cache, None where it is not there; looks at the disk only."""
    found = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def commit_of(path: Path) -> str:
    """The commit whose snapshot a cached file belongs to; "" for a file that lies elsewhere."""
    return path.parent.name if path.parent.parent.name == "snapshots" else ""


def repository_folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / "--".join(["models", *repo.split("/")])


def lock_file(repo: str, etag: str) -> Path:
    """The lock that huggingface_hub itself takes while it downloads this content."""
    return Path(constants.HF_HUB_CACHE) / ".locks" / repository_folder(repo).name / f"{etag}.lock"


def blob_file(repo: str, etag: str) -> Path:
    return repository_folder(repo) / "blobs" / etag


def enter(repo: str, name: str, *, etag: str, commit: str, revision: str | None) -> Path:
    """Make a snapshot's file of a blob that is whole, and note the branch's commit; gives the file's path."""
    folder = repository_folder(repo)
    blob = blob_file(repo, etag)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        temporary.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # a disk, or a user, that may not have links
        shutil.copyfile(blob, temporary)
    temporary.replace(path)
    if (revision or MAIN) != commit:
        reference = folder / "refs" / (revision or MAIN)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="ascii")
    return path
