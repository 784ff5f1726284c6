"""Arrays in files of users."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from embedcore.embed.embedding_blocks import read_blocks
from embedcore.embed.embedding_files import load_embeddings
from embedcore.embed.npy import read_npy
from embedcore.errors import UsageError


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, one=np.ones(2), two=np.ones(2))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an array of numbers"),
        (b"nonsense", "is not an array of numbers"),
        (npz()[:-20], "is not an array of numbers"),
        (npz(), "contains several arrays"),
    ],
    ids=["empty", "text", "damaged zip", "several"],
)
def test_anything_but_an_array_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.npy"
    path.write_bytes(content)
    (tmp_path / "rows.json").write_text("{}")
    for read in (read_npy, load_embeddings, lambda path: list(read_blocks(path, 2))):
        with pytest.raises(UsageError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_the_array_is_as_it_was_saved(tmp_path: Path, mmap_mode: None) -> None:
    rows = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.save(tmp_path / "rows.npy", rows)
    found = read_npy(tmp_path / "rows.npy", mmap_mode)
    assert found.dtype == rows.dtype and np.array_equal(found, rows)
