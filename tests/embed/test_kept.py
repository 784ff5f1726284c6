from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from embedcore.embed.kept import KeptEmbeddings, key_of

FACTS = {"model": "test_vit.r160_in1k", "weights": "sha256:0123456789abcdef", "mean": [0.5, 0.25, 0.1]}


@pytest.fixture
def kept(tmp_path):
    return KeptEmbeddings(tmp_path / "embeddings")


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def test_what_was_kept_comes_back_bit_for_bit(kept, rows):
    kept.save(FACTS, rows)
    loaded = kept.load(FACTS, 7)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, rows)
    loaded[0] = 0  # a copy of its own
    assert np.array_equal(kept.load(FACTS, 7), rows)
    name = key_of(FACTS)
    assert sorted(path.name for path in kept.folder.iterdir()) == [f"{name}.json", f"{name}.npy"]
    assert json.loads((kept.folder / f"{name}.json").read_text())["facts"] == FACTS


def test_nothing_there(kept):
    assert kept.load(FACTS, 7) is None


@pytest.mark.parametrize("name", list(FACTS))
def test_any_other_fact_is_another_key(kept, rows, name):
    kept.save(FACTS, rows)
    assert kept.load(FACTS | {name: "another"}, 7) is None
    assert kept.load(FACTS, 8) is None


def damaged(file, how):
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(data[:-9])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "garbage":
        file.write_bytes(b"\x00\xff" * 100)
    elif how == "gone":
        file.unlink()


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "garbage", "gone"])
def test_damage_is_noticed_and_mended_by_keeping_again(kept, rows, suffix, how):
    kept.save(FACTS, rows)
    damaged(kept.folder / f"{key_of(FACTS)}{suffix}", how)
    assert kept.load(FACTS, 7) is None
    kept.save(FACTS, rows)
    assert np.array_equal(kept.load(FACTS, 7), rows)


@pytest.mark.parametrize("field", ["format", "facts", "shape", "sha256"])
def test_a_sidecar_that_says_otherwise_is_not_believed(kept, rows, field):
    kept.save(FACTS, rows)
    sidecar = kept.folder / f"{key_of(FACTS)}.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {field: [8, 5]}))
    assert kept.load(FACTS, 7) is None


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_no_pickle_is_executed(kept, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept.save(FACTS, rows)
    for path in kept.folder.iterdir():
        original = path.read_bytes()
        path.write_bytes(pickle.dumps(Malicious()))
        assert kept.load(FACTS, 7) is None
        path.write_bytes(original)
    np.save(kept.folder / f"{key_of(FACTS)}.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    assert kept.load(FACTS, 7) is None
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_nothing_half_done(kept, rows, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.save(FACTS, rows)
    assert list(kept.folder.iterdir()) == []
    assert kept.load(FACTS, 7) is None
