"""Embeddings that are kept on disk, so that another metric, or a run again, costs no forward pass of the whole set.

Each is a ``.npy`` file, float32 [n, dim], with a ``.json`` beside it that names what it is of and carries a checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "embeddings"  # within the cache folder

# Raise it when the way from pixels to embeddings changes a number.
_FORMAT = 1
_log = logging.getLogger(__name__)


def key_of(facts: Mapping[str, Any]) -> str:
    """The name, 32 hex digits, of the embeddings that ``facts`` (plain JSON values) determine.

    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(_canonical(facts).encode()).hexdigest()[:32]


class KeptEmbeddings:
    """A folder of embeddings, found by the facts that determine them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, facts: Mapping[str, Any], n: int) -> NDArray[np.float32] | None:
        """The embeddings of ``n`` images, float32 [n, dim]; None where there are none, or what is there is damaged."""
        path = self._path(facts)
        try:
            sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, RecursionError) as error:
            _log.warning("kept embeddings %s are damaged (%s): made anew", path, error)
            return None
        expected = {"format": _FORMAT, "facts": json.loads(_canonical(facts)), "shape": list(mapped.shape)}
        checksum = sidecar.pop("sha256", None) if isinstance(sidecar, dict) else None
        if sidecar != expected or mapped.dtype != np.float32 or mapped.ndim != 2 or len(mapped) != n:
            _log.warning("kept embeddings %s are not what their name says: made anew", path)
            return None
        # Copied before they are compared: what is used is what was compared.
        embeddings = np.array(mapped, dtype=np.float32, order="C")
        if _checksum(embeddings) != checksum:
            _log.warning("kept embeddings %s are damaged (the checksum differs): made anew", path)
            return None
        return embeddings

    def save(self, facts: Mapping[str, Any], embeddings: NDArray[np.float32]) -> None:
        """Keep embeddings, float32 [n, dim]. A file has its name only when it is whole. Raises OSError."""
        path = self._path(facts)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = np.ascontiguousarray(embeddings, dtype=np.float32)
        sidecar = {
            "format": _FORMAT,
            "facts": json.loads(_canonical(facts)),
            "shape": list(rows.shape),
            "sha256": _checksum(rows),
        }
        # The sidecar last: without it, or with one that does not fit, the other file is not read.
        _write_whole(path, lambda file: np.save(file, rows, allow_pickle=False))
        _write_whole(path.with_suffix(".json"), lambda file: file.write(json.dumps(sidecar, indent=1).encode()))

    def _path(self, facts: Mapping[str, Any]) -> Path:
        return self.folder / f"{key_of(facts)}.npy"


def _canonical(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, allow_nan=False)


def _checksum(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(rows.data).hexdigest()


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with _temporary_beside(path) as (file, name):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        name.replace(path)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
