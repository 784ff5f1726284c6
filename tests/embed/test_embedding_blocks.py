"""Embeddings in blocks: the rows of every kind of source, in order, and one line for what cannot be read."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.embed.embedding_blocks import embedding_files, read_blocks
from embedcore.errors import UsageError

ROWS = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float32)


def lists(rows, kind="fixed"):
    flat = pyarrow.array(rows.reshape(-1))
    if kind == "fixed":
        return pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    offsets = np.arange(len(rows) + 1) * rows.shape[1]
    if kind == "large":
        return pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets, pyarrow.int64()), flat)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), flat)


def write_table(path, columns):
    table = pyarrow.table(columns)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=9)
    else:
        pyarrow.feather.write_feather(table, path, compression="uncompressed")


def joined(source, rows):
    blocks = list(read_blocks(source, rows))
    assert all(0 < len(block) <= rows for block in blocks)
    return np.concatenate(blocks)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 12))
def test_arrays_of_any_length_are_cut_into_blocks(lengths, rows):
    parts = np.split(ROWS[: min(sum(lengths), len(ROWS))], np.cumsum(lengths)[:-1].clip(max=len(ROWS)))
    whole = np.concatenate(parts)
    if len(whole):
        assert np.array_equal(joined(iter(parts), rows), whole)
        assert np.array_equal(joined(whole, rows), whole)


@pytest.mark.parametrize("rows", [1, 4, 23, 100])
def test_a_numpy_file_is_read_in_blocks_and_copied(tmp_path, rows):
    np.save(tmp_path / "rows.npy", ROWS)
    assert np.array_equal(joined(tmp_path / "rows.npy", rows), ROWS)
    assert np.array_equal(joined(np.load(tmp_path / "rows.npy", mmap_mode="r"), rows), ROWS)
    assert not any(isinstance(block, np.memmap) for block in read_blocks(str(tmp_path / "rows.npy"), rows))
    np.save(tmp_path / "columns.npy", np.asfortranarray(ROWS))
    assert np.array_equal(joined(tmp_path / "columns.npy", rows), ROWS)


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_a_column_of_lists_is_read(tmp_path, suffix, kind):
    path = tmp_path / f"rows{suffix}"
    write_table(path, {"id": list(range(23)), "anything": lists(ROWS, kind), "words": [["a"]] * 23})
    assert np.array_equal(joined(path, 7), ROWS)


def test_half_precision_and_the_named_of_several_columns(tmp_path):
    path = tmp_path / "rows.parquet"
    half = ROWS.astype(np.float16)
    write_table(path, {"other": lists(ROWS[:, :2]), "embedding": lists(half)})
    found = joined(path, 10)
    assert found.dtype == np.float16 and np.array_equal(found, half)


def test_the_shards_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    np.save(tmp_path / "a.npy", ROWS[:5])
    write_table(tmp_path / "b.parquet", {"v": lists(ROWS[5:9])})
    np.save(tmp_path / "c.npy", ROWS[9:])
    np.save(tmp_path / ".hidden.npy", ROWS)
    (tmp_path / "a.npy.json").write_text("{}")
    (tmp_path / "deeper").mkdir()
    np.save(tmp_path / "deeper" / "a.npy", ROWS)
    assert [file.name for file in embedding_files(tmp_path)] == ["a.npy", "b.parquet", "c.npy"]
    assert np.array_equal(joined(tmp_path, 6), ROWS)


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("none.parquet", {"id": [1, 2]}, "no column has lists of floats"),
        ("two.parquet", {"a": lists(ROWS), "b": lists(ROWS)}, "columns a, b have lists of floats: .*'embedding'"),
        ("unequal.arrow", {"a": pyarrow.array([[1.0, 2.0], [3.0]])}, "differ in length, or some are missing"),
        ("missing.arrow", {"a": pyarrow.array([[1.0, 2.0], None])}, "differ in length, or some are missing"),
        ("gap.parquet", {"a": pyarrow.array([[1.0, 2.0], [None, 2.0]])}, "differ in length, or some are missing"),
    ],
)
def test_a_table_without_embeddings_is_one_line(tmp_path, name, columns, message):
    write_table(tmp_path / name, columns)
    with pytest.raises(UsageError, match=f"{name}.*{message}"):
        list(read_blocks(tmp_path / name, 8))


@pytest.mark.parametrize("name", ["rows.npy", "rows.parquet", "rows.arrow"])
def test_a_damaged_file_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"not what it seems")
    with pytest.raises(UsageError, match=name) as raised:
        list(read_blocks(tmp_path / name, 8))
    assert "\n" not in str(raised.value)


def test_a_number_and_a_folder_without_files_are_refused(tmp_path):
    np.save(tmp_path / "number.npy", np.float32(3))
    assert [block.ndim for block in read_blocks(tmp_path / "number.npy", 8)] == [1]
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "empty", tmp_path / "nowhere.npy"):
        with pytest.raises(UsageError, match=f"{missing}: no file of embeddings"):
            list(read_blocks(missing, 8))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write_table(tmp_path / "rows.parquet", {"v": lists(ROWS)})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"rows.parquet needs pyarrow.*pip install 'embedcore\[arrow\]'"):
        list(read_blocks(tmp_path / "rows.parquet", 8))


def test_reading_ends_with_its_consumer(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    blocks = read_blocks(tmp_path / "rows.npy", 2)
    next(blocks)
    blocks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedcore-blocks")]
