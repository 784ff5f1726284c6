"""Embeddings that are kept on disk, so that another metric, or a run again, costs no forward pass of the whole set.

Each is a ``.npy`` file, float32 [n, dim], with a ``.json`` beside it that names what it is of and carries a checksum of
the whole file, and of itself. No byte of either can change unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.files import sealed, sha256_of, unsealed, written_whole

FOLDER = "embeddings"  # within the cache folder

# Raise it when the way from pixels to embeddings changes a number.
_FORMAT = 3
_log = logging.getLogger(__name__)


def key_of(facts: Mapping[str, Any]) -> str:
    """The name, 32 hex digits, of the embeddings that ``facts`` (as JSON has them, in any order) determine."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


class KeptEmbeddings:
    """A folder of embeddings, found by the facts that determine them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, facts: Mapping[str, Any], n: int) -> NDArray[np.float32] | None:
        """The embeddings of ``n`` images, float32 [n, dim]; None where there are none, or what is there is damaged."""
        path = self._path(facts)
        try:
            sidecar = unsealed(path.with_suffix(".json").read_bytes())
            content = np.fromfile(path, np.uint8)
            if (sidecar.get("format"), sidecar.get("facts")) != (_FORMAT, facts) or sidecar["shape"][0] != n:
                raise ValueError("not what the name says")
            # Before anything in the file is believed, its header included: what is used is what was compared.
            if hashlib.sha256(content.data).hexdigest() != sidecar["sha256"]:
                raise ValueError("the checksum differs")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("kept embeddings %s are damaged (%s): made anew", path, error)
            return None
        with contextlib.suppress(OSError):  # such as a folder that may be read only
            os.utime(path.with_suffix(".json"))
        rows = content[content.nbytes - 4 * math.prod(sidecar["shape"]) :]
        return rows.view(np.float32).reshape(sidecar["shape"])

    def save(self, facts: Mapping[str, Any], embeddings: NDArray[np.float32]) -> None:
        """Keep embeddings, float32 [n, dim]. A file has its name only when it is whole. Raises OSError."""
        path = self._path(facts)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = np.ascontiguousarray(embeddings, dtype=np.float32)
        # The sidecar last: without it, or with one that does not fit, the other file is not read.
        with written_whole(path) as file:
            np.save(file, rows, allow_pickle=False)
            file.flush()
            digest = sha256_of(Path(file.name))
        sidecar = {"format": _FORMAT, "facts": facts, "shape": list(rows.shape), "sha256": digest}
        with written_whole(path.with_suffix(".json")) as file:
            file.write(sealed(sidecar))

    def _path(self, facts: Mapping[str, Any]) -> Path:
        return self.folder / f"{key_of(facts)}.npy"
