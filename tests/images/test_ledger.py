"""The ledger keeps the results of an audit and trusts them only while the files are unchanged."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embedcore.files import sealed, sha256_of
from embedcore.images import audit as audit_module
from embedcore.images import ledger
from embedcore.images.ledger import FILE, Ledger
from embedcore.images.load_dataset import audit_dataset, load_dataset

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")


def test_an_unchanged_dataset_is_not_read_again(make_folder, tmp_path: Path, looked_at, settled: None) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert sorted(looked_at.read) == sorted(looked_at.decoded) == list(range(8))
    looked_at.read.clear()
    looked_at.decoded.clear()
    again = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert looked_at.read == looked_at.decoded == []


def test_only_a_changed_file_is_read_and_decoded(
    make_folder, make_image, tmp_path: Path, looked_at, settled: None
) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    looked_at.read.clear()
    looked_at.decoded.clear()
    make_image(root / "a" / "002.png", seed=99)
    again = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert looked_at.read == looked_at.decoded == [2]
    assert [one == other for one, other in zip(first.digests, again.digests, strict=True)].count(False) == 1
    assert again.fingerprint == load_dataset(str(root)).fingerprint != first.fingerprint


def test_content_changed_behind_an_old_time_is_noticed(make_folder, tmp_path: Path, settled: None) -> None:
    root = make_folder({"a": 2, "b": 2})
    file = root / "a" / "000.png"
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # in the checksum of the end mark, which no decoder reads
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_dataset(str(root), cache_dir=tmp_path / "cache").fingerprint != first.fingerprint


def test_stamps_of_recently_changed_files_are_not_trusted(make_folder, tmp_path: Path, looked_at) -> None:
    root = make_folder({"a": 2, "b": 2})
    for _ in range(2):
        looked_at.read.clear()
        load_dataset(str(root), cache_dir=tmp_path / "cache")
        assert len(looked_at.read) == 4  # within one tick of the clock a change would leave no trace
    assert len(looked_at.decoded) == 4  # but what a content decodes to does not change


def test_equal_content_is_decoded_once(make_folder, tmp_path: Path, looked_at) -> None:
    root = make_folder({"a": 2, "b": 2})
    for number in range(5):
        (root / "b" / f"copy {number}.png").write_bytes((root / "a" / "000.png").read_bytes())
        (root / "b" / f"empty {number}.png").touch()
    dataset = load_dataset(str(root), bad_images="skip")
    assert len(looked_at.decoded) == 5
    assert len(dataset) == 9 and len(dataset.skipped) == 5


def test_bad_images_are_decoded_again(make_folder, tmp_path: Path, looked_at, settled: None) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "bad.png").write_bytes(b"no image")
    for _ in range(2):
        looked_at.decoded.clear()
        assert len(load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache").skipped) == 1
    assert looked_at.decoded == [2]


def test_another_decoder_decodes_again(
    make_folder, tmp_path: Path, looked_at, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 2, "b": 2})
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    monkeypatch.setattr("embedcore.images.sources.pillow_decoder", lambda: "Pillow 99")
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert len(looked_at.decoded) == 8 and len(looked_at.read) == 4


def test_an_interrupted_audit_continues(
    make_folder, tmp_path: Path, looked_at, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "CHUNK", 4)
    root = make_folder({"a": 6, "b": 6})

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(str(root), cache_dir=tmp_path / "cache", progress=interrupt)
    looked_at.decoded.clear()
    seen: list[tuple[int, int]] = []
    load_dataset(str(root), cache_dir=tmp_path / "cache", progress=lambda *call: seen.append(call))
    assert sorted(looked_at.decoded) == list(range(4, 12))
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_several_audits_share_a_ledger(make_folder, tmp_path: Path, settled: None, looked_at) -> None:
    root = make_folder({"a": 6, "b": 6})
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_dataset(str(root), cache_dir=tmp_path / "cache"), range(8)))
    assert len({dataset.fingerprint for dataset in loaded}) == 1
    looked_at.read.clear()
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert looked_at.read == []


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2000:] = np.random.default_rng(0).bytes(len(content) - 2000)
    path.write_bytes(content)


def edit_rows(path: Path) -> None:
    """Digests of other content in a valid database."""
    with sqlite3.connect(path) as database:
        for key, row in database.execute("SELECT key, row FROM rows").fetchall():
            edited = re.sub(rb'"[0-9a-f]{64}"', b'"%s"' % (b"0" * 64), row)
            database.execute("UPDATE rows SET row = ? WHERE key = ?", (edited, key))
    database.close()


def odd_rows(path: Path) -> None:
    """Rows with a valid checksum and invalid content."""
    with sqlite3.connect(path) as database:
        for (key,) in database.execute("SELECT key FROM rows").fetchall():
            row = sealed({"key": os.fsdecode(key), "row": {"a": [1]}})
            database.execute("UPDATE rows SET row = ? WHERE key = ?", (row, key))
    database.close()


def other_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE rows")
    database.close()


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "not a database": lambda path: path.write_bytes(b"x" * 5000),
    "truncated": truncate,
    "scribbled over": scribble,
    "edited": edit_rows,
    "odd rows": odd_rows,
    "no table": other_tables,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_ledger_costs_time_only(make_folder, tmp_path: Path, looked_at, settled: None, kind: str) -> None:
    root = make_folder({"a": 6, "b": 6})
    cache = tmp_path / "cache"
    first = load_dataset(str(root), cache_dir=cache)
    DAMAGES[kind](cache / FILE)
    assert load_dataset(str(root), cache_dir=cache).fingerprint == first.fingerprint
    if kind != "a folder":
        looked_at.read.clear()
        looked_at.decoded.clear()
        assert load_dataset(str(root), cache_dir=cache).fingerprint == first.fingerprint
        assert looked_at.read == looked_at.decoded == []  # it was repaired


def test_a_cache_that_cannot_be_written_costs_time_only(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    (tmp_path / "file").touch()
    assert len(load_dataset(str(root), cache_dir=tmp_path / "file" / "cache")) == 4
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.joinpath(FILE + ".lock").mkdir()
    assert len(load_dataset(str(root), cache_dir=cache)) == 4


def test_a_trusted_source_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcore.images.emoji.render_svg", lambda *args: pytest.fail("drawn"))
    assert len(load_dataset("emoji", max_classes=4, cache_dir=tmp_path)) >= 8


def test_perceptual_hashes_are_computed_on_request(
    make_folder, tmp_path: Path, looked_at, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = make_folder({"a": 2, "b": 2}), tmp_path / "cache"
    hashed: list[int] = []
    make = audit_module.perceptual_hash
    monkeypatch.setattr(audit_module, "perceptual_hash", lambda image: (hashed.append(1), make(image))[1])
    load_dataset(str(root), cache_dir=cache)
    assert len(looked_at.decoded) == 4 and hashed == []
    for _ in range(2):  # images known without a hash are decoded again, once
        facts = [finding.facts for finding in audit_dataset(str(root), hashes=True, cache_dir=cache).findings]
        assert len({fact.perceptual_hash for fact in facts} - {None}) == 4
        assert len(hashed) == 4 and len(looked_at.decoded) == 8
    load_dataset(str(root), cache_dir=cache)
    assert len(hashed) == 4 and len(looked_at.decoded) == 8


def test_tables_of_an_older_version_are_ignored(make_folder, tmp_path: Path, looked_at, settled: None) -> None:
    root, cache = make_folder({"a": 2, "b": 2}), tmp_path / "cache"
    cache.mkdir()
    with sqlite3.connect(cache / FILE) as database:
        database.executescript("CREATE TABLE files (path BLOB, row BLOB, checksum INTEGER); PRAGMA user_version = 1")
    database.close()
    for _ in range(2):
        load_dataset(str(root), cache_dir=cache)
    assert len(looked_at.read) == len(looked_at.decoded) == 4


def test_the_digest_of_a_file_is_computed_once_for_each_content(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hashed = tmp_path / "weights.bin", []
    monkeypatch.setattr(ledger, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    for content in (b"one", b"another"):
        file.write_bytes(content)
        hashed.clear()
        for _ in range(3):
            assert Ledger(tmp_path / "cache").sha256(file) == hashlib.sha256(content).hexdigest()
        assert hashed == [file]
    assert Ledger(None).sha256(file) == hashlib.sha256(b"another").hexdigest()  # without a folder nothing is kept


def test_the_digest_of_a_recently_changed_file_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    Ledger(tmp_path / "cache").sha256(file)
    assert not Ledger(tmp_path / "cache").digests([os.fsencode(file)])
