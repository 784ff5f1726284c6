"""Find a model's file in a folder of weight files."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from embedcore.errors import WeightsDamaged
from embedcore.zoo import registry

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
"""Suffixes of weight files, in upper or lower case; of a model's files the earliest one is taken."""
_SPELLINGS = [spelling for suffix in SUFFIXES for spelling in (suffix, suffix.upper())]


def find_in_folder(model: str, folder: Path) -> Path | None:
    """Return a model's file in a folder of weights, the tag's before the architecture's; None if there is none.

    Raises WeightsDamaged if a folder, a pipe or a broken link has its name.
    """
    for name, suffix in itertools.product((model, registry.split_tag(model)[0]), _SPELLINGS):
        path = folder / f"{name}{suffix}"
        if path.is_file():  # also a link to one; opening a FIFO would block forever
            return path
        if os.path.lexists(path):
            other = "a pipe or a device" if path.exists() else "a link that leads nowhere"
            raise WeightsDamaged(f"{path} is {'a folder' if path.is_dir() else other}, not a file of weights")
    return None


def names_in_folder(folder: Path) -> set[str]:
    """Return the names of a folder's weight files without suffix: tags, architectures and others."""
    names = ((path.name, suffix_of(path.name)) for path in folder.iterdir())
    return {name.removesuffix(suffix) for name, suffix in names if suffix}


def suffix_of(name: str) -> str:
    """Return the one of SUFFIXES with which a file's name ends, in lower or upper case; "" if there is none."""
    return next((suffix for suffix in _SPELLINGS if name.endswith(suffix)), "")
