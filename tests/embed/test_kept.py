from __future__ import annotations

import json
import os
import pickle
import time

import numpy as np
import pytest

from embedcore.embed.kept import KeptEmbeddings, key_of
from embedcore.files import sealed, unsealed

FACTS = {"model": "test_vit.r160_in1k", "weights": "sha256:0123456789abcdef", "mean": [0.5, 0.25, 0.1]}


@pytest.fixture
def kept(tmp_path):
    return KeptEmbeddings(tmp_path / "embeddings")


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def test_kept_embeddings_are_loaded_bit_for_bit(kept, rows):
    kept.save(FACTS, rows)
    loaded = kept.read(key_of(FACTS), 7)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, rows)
    loaded[0] = 0  # a copy of its own
    assert np.array_equal(kept.read(key_of(FACTS), 7), rows)
    name = key_of(FACTS)
    assert sorted(path.name for path in kept.folder.iterdir()) == [f"{name}.json", f"{name}.npy"]
    assert json.loads((kept.folder / f"{name}.json").read_text())["facts"] == FACTS


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_no_byte_can_change_unnoticed(kept, rows, suffix):
    kept.save(FACTS, rows)
    file = kept.folder / f"{key_of(FACTS)}{suffix}"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for flip in (0x01, 0x80):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            assert kept.read(key_of(FACTS), 7) is None, (place, flip)
    file.write_bytes(whole)
    assert np.array_equal(kept.read(key_of(FACTS), 7), rows)


def test_numpy_reads_the_file_too(kept, rows):
    kept.save(FACTS, rows)
    assert np.array_equal(np.load(kept.folder / f"{key_of(FACTS)}.npy"), rows)


def test_loading_notes_the_use(kept, rows):
    kept.save(FACTS, rows)
    files = list(kept.folder.iterdir())
    for file in files:
        os.utime(file, (1e9, 1e9))
    assert kept.read(key_of(FACTS), 8) is None
    assert max(file.stat().st_mtime for file in files) == 1e9
    before = time.time() - 5
    assert kept.read(key_of(FACTS), 7) is not None
    assert (
        max(file.stat().st_mtime for file in files) > before
    )  # the time that `embedcore cache prune --older-than` reads


def test_missing_embeddings_are_none(kept):
    assert kept.read(key_of(FACTS), 7) is None


@pytest.mark.parametrize("name", list(FACTS))
def test_any_other_fact_is_another_key(kept, rows, name):
    kept.save(FACTS, rows)
    assert kept.read(key_of(FACTS | {name: "another"}), 7) is None
    assert kept.read(key_of(FACTS), 8) is None


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
    elif how == "zip":
        file.unlink()
        with file.open("wb") as archive:
            np.savez(archive, np.zeros((7, 5), np.float32))
    elif how == "gone":
        file.unlink()


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "garbage", "zip", "gone"])
def test_damage_is_noticed_and_repaired_by_saving_again(kept, rows, suffix, how):
    kept.save(FACTS, rows)
    damaged(kept.folder / f"{key_of(FACTS)}{suffix}", how)
    assert kept.read(key_of(FACTS), 7) is None
    kept.save(FACTS, rows)
    assert np.array_equal(kept.read(key_of(FACTS), 7), rows)


@pytest.mark.parametrize("field", ["format", "facts", "shape", "sha256"])
def test_a_sidecar_that_does_not_fit_is_rejected(kept, rows, field):
    kept.save(FACTS, rows)
    sidecar = kept.folder / f"{key_of(FACTS)}.json"
    other = unsealed(sidecar.read_bytes()) | {field: [8, 5]}
    for written in (json.dumps(other).encode(), sealed(other)):
        sidecar.write_bytes(written)
        assert kept.read(key_of(FACTS), 7) is None


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_no_pickle_is_executed(kept, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept.save(FACTS, rows)
    for path in kept.folder.iterdir():
        original = path.read_bytes()
        path.write_bytes(pickle.dumps(Malicious()))
        assert kept.read(key_of(FACTS), 7) is None
        path.write_bytes(original)
    np.save(kept.folder / f"{key_of(FACTS)}.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    assert kept.read(key_of(FACTS), 7) is None
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_no_partial_file(kept, rows, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.save(FACTS, rows)
    assert list(kept.folder.iterdir()) == []
    assert kept.read(key_of(FACTS), 7) is None


def test_removed_embeddings_are_gone(kept, rows):
    kept.save(FACTS, rows)
    kept.remove(key_of(FACTS))
    kept.remove(key_of(FACTS))
    assert not list(kept.folder.iterdir()) and kept.read(key_of(FACTS), 7) is None
