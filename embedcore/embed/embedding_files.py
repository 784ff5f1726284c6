"""Embeddings in a file of their own, with names, model and settings: ``.npy`` with a ``.json``, or ``.safetensors``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from embedcore.embed.npy import read_npy
from embedcore.errors import UsageError
from embedcore.files import user_path, writing
from embedcore.plain import counted, one_line

_FORMAT = 1
_KEY = "embedcore"
"""Key of the facts in the metadata of a safetensors file."""
_TENSOR = "embeddings"


@dataclass(frozen=True, eq=False)
class SavedEmbeddings:
    """Embeddings as `save_embeddings` wrote them."""

    embeddings: NDArray[Any]
    """[n, dim], float16, float32 or float64."""
    names: tuple[str, ...] = ()
    """[n], or empty."""
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows, width = self.embeddings.shape
        return f"SavedEmbeddings: {counted(rows, 'row')} of width {width}{f', of {self.model}' * bool(self.model)}"


def save_embeddings(
    path: str | Path,
    embeddings: Any,
    names: Sequence[str] = (),
    *,
    model: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write embeddings and facts about them; return the path.

    ``PATH.npy`` is an array as numpy writes it, and ``PATH.npy.json`` beside it has the facts; ``PATH.safetensors`` has
    the tensor ``embeddings`` and the facts as metadata. `load_embeddings` returns exactly what was written.

    Args:
        path: ends with .npy or .safetensors; its folder must exist.
        embeddings: float16, float32 or float64 [n, dim]: an array or a tensor.
        names: one for each row, such as ``Dataset.names``; or none.
        model: name of the model.
        settings: JSON values: text, numbers, lists, and dicts with text as keys.

    Raises:
        UsageError: for anything else, and for a file that cannot be written.
    """
    path = user_path(path)
    _check_suffix(path)
    rows = _rows(embeddings)
    listed = [str(name) for name in names]
    if listed and len(listed) != len(rows):
        found = f"{counted(len(rows), 'row')} of embeddings, {counted(len(listed), 'name')}"
        raise UsageError(f"{found}: give one for each row")
    facts = {"format": _FORMAT, **_shape_of(rows), "model": str(model), "settings": dict(settings or {})}
    facts["names"] = listed
    text = _json(facts)
    if path.suffix == ".npy":
        with writing(path) as file:
            np.save(file, rows, allow_pickle=False)
        with writing(_sidecar(path)) as file:
            file.write(text.encode())
    else:
        with writing(path) as file:
            file.write(save({_TENSOR: rows}, {_KEY: text}))
    return path


def load_embeddings(path: str | Path) -> SavedEmbeddings:
    """Read what `save_embeddings` wrote.

    Raises UsageError for a file that is missing, damaged or of another program, and for embeddings that do not match
    the facts beside them.
    """
    path = user_path(path)
    _check_suffix(path)
    try:
        rows, text = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    try:
        facts = json.loads(text)
        names, model, settings = facts["names"], facts["model"], facts["settings"]
        fits = facts["format"] == _FORMAT and isinstance(names, list) and isinstance(settings, dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise UsageError(f"{path}: its facts are not those of save_embeddings: save the embeddings again")
    if any(facts.get(key) != value for key, value in _shape_of(rows).items()) or len(names) not in (0, len(rows)):
        raise UsageError(f"{path}: the embeddings do not match their names, model and settings: save them again")
    return SavedEmbeddings(rows, tuple(map(str, names)), str(model), settings)


def _read_npy(path: Path) -> tuple[NDArray[Any], str]:
    return read_npy(path), _sidecar(path).read_text("utf-8", "replace")


def _read_safetensors(path: Path) -> tuple[NDArray[Any], str]:
    path.open("rb").close()  # the reader's own error for a missing file has no path
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None or list(file.keys()) != [_TENSOR]:
                raise UsageError(f"{path} was not written by save_embeddings")
            return file.get_tensor(_TENSOR), text
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file: {one_line(str(error))[:150]}") from error


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".npy", ".safetensors"):
        raise UsageError(f"{path}: embeddings are saved as .npy or .safetensors")


def _rows(embeddings: Any) -> NDArray[Any]:
    """Return a C-contiguous array [n, dim] in native byte order. Raises UsageError."""
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().cpu()
        embeddings = (embeddings.float() if "bfloat16" in str(embeddings.dtype) else embeddings).numpy()
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
        shape = "×".join(map(str, rows.shape))
        raise UsageError(
            f"embeddings are {rows.dtype} of shape {shape}: float16, float32 or float64 [n, dim] is needed"
        )
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("="))


def _shape_of(rows: NDArray[Any]) -> dict[str, Any]:
    """Return the facts that must match the array."""
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    return {"shape": list(rows.shape), "dtype": str(rows.dtype), "sha256": digest}


def _json(facts: Mapping[str, Any]) -> str:
    """Return facts as strict JSON. Raises UsageError for settings that would not be read back as they are."""
    try:
        text = json.dumps(facts, ensure_ascii=True, allow_nan=False, indent=1)
        if json.loads(text) != facts:
            raise ValueError("tuples, or keys that are not text")
    except (TypeError, ValueError) as error:
        why = one_line(str(error))[:150]
        raise UsageError(f"settings must be JSON values (text, numbers, lists, dicts): {why}") from error
    return text
