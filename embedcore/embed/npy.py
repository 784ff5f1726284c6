"""Arrays in files of users, as ``numpy.save`` writes them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedcore.errors import UsageError
from embedcore.plain import one_line


def read_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """Return the array in a file, in memory or with ``mmap_mode`` mapped; no code in it is run.

    Raises UsageError for any other content, OSError if the file cannot be read.
    """
    try:
        found = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        why = one_line(str(error))[:100]
        raise UsageError(f"{path} is not an array of numbers written by numpy.save ({why})") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise UsageError(f"{path} contains several arrays: save one, with numpy.save")
    return found
