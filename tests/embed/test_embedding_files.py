"""Saved embeddings are read back exactly, and what does not match is refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from embedcore import UsageError, load_embeddings, save_embeddings
from embedcore.embed.embedding_files import SavedEmbeddings

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
NAMES = ("cat/0.png", "\udcff.png", "ünï\n")
SETTINGS = {"point": "avg", "size": [224, 224], "crop": 0.875, "more": {"a": None}}
SUFFIXES = ("npy", "safetensors")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"photos.{request.param}"


@given(
    arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.dtype(">f4")]), array_shapes(min_dims=2, max_dims=2)
    ),
    st.sampled_from(SUFFIXES),
    st.dictionaries(st.text(), VALUES, max_size=3),
    st.text(),
)
def test_everything_is_read_back(rows, suffix, settings, model):
    with tempfile.TemporaryDirectory() as folder:
        names = [f"image {number}" for number in range(len(rows))]
        path = save_embeddings(Path(folder) / f"x.{suffix}", rows, names, model=model, settings=settings)
        found = load_embeddings(path)
    assert found.embeddings.dtype == rows.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.embeddings, rows)
    assert (found.names, found.model, found.settings) == (tuple(names), model, settings)


def test_names_model_and_settings(path):
    save_embeddings(path, ROWS, NAMES, model="resnet18.a1_in1k", settings=SETTINGS)
    found = load_embeddings(str(path))
    assert (found.names, found.model, found.settings) == (NAMES, "resnet18.a1_in1k", SETTINGS)
    assert repr(found) == "SavedEmbeddings: 3 rows of width 2, of resnet18.a1_in1k"


def test_an_array_of_numpy_with_json_beside_it(tmp_path):
    path = save_embeddings(tmp_path / "photos.npy", torch.tensor(ROWS).T.bfloat16(), model="x")
    np.testing.assert_array_equal(np.load(path), ROWS.T)
    facts = json.loads((tmp_path / "photos.npy.json").read_text())
    assert (facts["model"], facts["names"], facts["shape"]) == ("x", [], [2, 3])


@pytest.mark.parametrize(
    ("rows", "names", "settings", "message"),
    [
        (ROWS, ["a"], {}, "3 rows of embeddings, 1 name: give one for each row"),
        (ROWS[0], [], {}, r"embeddings are float32 of shape 2: float16, float32 or float64 \[n, dim\] is needed"),
        (ROWS.astype(int), [], {}, "embeddings are int64 of shape 3×2"),
        (ROWS, [], {"size": (224, 224)}, "settings must be JSON values .*: tuples, or keys that are not text"),
        (ROWS, [], {"path": Path()}, "settings must be JSON values .*PosixPath is not JSON serializable"),
        (ROWS, [], {"x": float("nan")}, "settings must be JSON values"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(path, rows, names, settings, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        save_embeddings(path, rows, names, settings=settings)
    assert not list(path.parent.iterdir())


def test_another_kind_of_file_is_refused(tmp_path):
    for act in (lambda path: save_embeddings(path, ROWS), load_embeddings):
        with pytest.raises(UsageError, match=r"x\.pt: embeddings are saved as \.npy or \.safetensors$"):
            act(tmp_path / "x.pt")


def test_a_missing_folder_and_a_missing_file(path):
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        save_embeddings(path.parent / "none" / path.name, ROWS)
    with pytest.raises(UsageError, match=f"{path.name} cannot be read: No such file"):
        load_embeddings(path)


def test_damaged_and_foreign_files(path):
    save_embeddings(path, ROWS, NAMES)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UsageError, match="the embeddings do not match their names, model and settings"):
        load_embeddings(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not a"):
        load_embeddings(path)


def test_embeddings_without_their_facts(tmp_path):
    path = save_embeddings(tmp_path / "x.npy", ROWS, NAMES)
    np.save(path, ROWS[:2])
    with pytest.raises(UsageError, match="the embeddings do not match"):
        load_embeddings(path)
    (tmp_path / "x.npy.json").write_text("{}")
    with pytest.raises(UsageError, match="its facts are not those of save_embeddings"):
        load_embeddings(path)
    (tmp_path / "x.npy.json").unlink()
    with pytest.raises(UsageError, match=r"x\.npy\.json cannot be read: No such file"):
        load_embeddings(path)
    from safetensors.numpy import save_file

    save_file({"weight": ROWS}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=r"x\.safetensors was not written by save_embeddings"):
        load_embeddings(tmp_path / "x.safetensors")


def test_defaults():
    assert SavedEmbeddings(ROWS).settings == {}
