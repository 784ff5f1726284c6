"""Embeddings kept on disk, so that another metric or run needs no forward pass over all images.

Each is a ``.npy`` file, float32 [n, dim], with a ``.json`` sidecar that describes it and has checksums of the file and
of itself. A change of any byte of either is noticed.
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

# Increase it when the computation of embeddings from pixels changes.
_FORMAT = 3
_log = logging.getLogger(__name__)


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name, 32 hex digits, of the embeddings determined by ``facts`` (JSON values, in any order)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


class KeptEmbeddings:
    """A folder of embeddings, found by the facts that determine them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str, n: int) -> NDArray[np.float32] | None:
        """Return the embeddings of ``n`` images, float32 [n, dim]; None if they are missing or damaged."""
        path = self.folder / f"{key}.npy"
        try:
            sidecar = unsealed(path.with_suffix(".json").read_bytes())
            content = np.fromfile(path, np.uint8)
            fits = sidecar.get("format") == _FORMAT and key_of(sidecar.get("facts", {})) == key
            if not fits or sidecar["shape"][0] != n:
                raise ValueError("its content does not match its name")
            # The checksum covers the bytes in memory, header included, which are then used.
            if hashlib.sha256(content.data).hexdigest() != sidecar["sha256"]:
                raise ValueError("the checksum differs")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("kept embeddings %s are damaged (%s) and computed again", path, error)
            return None
        with contextlib.suppress(OSError):  # such as a read-only folder
            os.utime(path.with_suffix(".json"))
        rows = content[content.nbytes - 4 * math.prod(sidecar["shape"]) :]
        return rows.view(np.float32).reshape(sidecar["shape"])

    def remove(self, key: str) -> None:
        """Remove embeddings, if they are there and the folder can be written."""
        for suffix in (".json", ".npy"):
            with contextlib.suppress(OSError):
                (self.folder / f"{key}{suffix}").unlink()

    def save(self, facts: Mapping[str, Any], embeddings: NDArray[np.float32]) -> None:
        """Keep embeddings, float32 [n, dim]. A file gets its name only when it is complete. Raises OSError."""
        path = self.folder / f"{key_of(facts)}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = np.ascontiguousarray(embeddings, dtype=np.float32)
        # The sidecar last: without a fitting one the embeddings are not read.
        with written_whole(path) as file:
            np.save(file, rows, allow_pickle=False)
            file.flush()
            digest = sha256_of(Path(file.name))
        sidecar = {"format": _FORMAT, "facts": facts, "shape": list(rows.shape), "sha256": digest}
        with written_whole(path.with_suffix(".json")) as file:
            file.write(sealed(sidecar))
