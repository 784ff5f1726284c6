"""What identifies a file's content: its SHA-256, and the hashes that a hub announces."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from embedcore.errors import WeightsDamaged


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def matches(path: Path, etag: str, sha256: str) -> bool:
    """Whether a file with this SHA-256 is the one that the hub's etag names: a SHA-256, or git's hash of a blob."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return sha256 == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        digest.update(path.read_bytes())  # git's hash stands for small files only
        return digest.hexdigest() == etag
    return True


def content_id(sha256: str) -> str:
    """How a result names weights: "sha256:" and the first 16 hex digits."""
    return f"sha256:{sha256[:16]}"


def check_cached(path: Path, sha256: str) -> None:
    """Raise WeightsDamaged where a file of the hub's cache, whose content is named by its SHA-256, has another one."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name) and name != sha256:
        raise WeightsDamaged(
            f"the cached {path} is damaged: its sha256 is {sha256}, not {name}; delete {path.resolve()}"
        )
