from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedcore.cli import main
from embedcore.commands.cache import Entry, choose_to_remove, entries_of
from embedcore.embed.kept import KeptEmbeddings
from embedcore.files import sealed
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.results.journal import FORMAT

SMALL, LARGE = Geometry(16, 16, "bicubic", 0.9, "center"), Geometry(40, 40, "bicubic", 1.0, "squash", square=224)
DAY = 86_400


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((20, 20), 40 + number).save(path)
    return load_dataset(str(tmp_path / "photos"), cache_dir=tmp_path / "cache")


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Path:
    """Two pixel stores, embeddings of two models, a finished and an unfinished journal, and the ledger."""
    folder = tmp_path / "cache"
    for geometry in (SMALL, LARGE):
        open_pixel_store(dataset, geometry, folder)
    for model in ("vit.x", "resnet.y"):
        KeptEmbeddings(folder / "embeddings").save({"model": model, "precision": "fp32"}, np.ones((6, 8), np.float32))
    (folder / "runs").mkdir()
    write_journal(folder / "runs" / "20260101T000000123456-77.jsonl", "a", "b")
    write_journal(folder / "runs" / "20260102T000000123456-78.jsonl", "a", "b", status="crashed", end=b'{"mod')
    return folder


def write_journal(
    path: Path, *models: str, dataset: str = "photos", status: str = "unsupported", end: bytes = b""
) -> None:
    lines = [{"journal": FORMAT, "datasets": [{"name": dataset}], "tests": {model: model for model in models}}]
    lines += [
        {"model": model, "family": "vit", "status": status, "reason": "broken", "test": model} for model in models
    ]
    path.write_bytes(b"".join(map(sealed, lines)) + end)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["cache", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def tree(folder: Path) -> set[str]:
    """Names of all files except empty lock files."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if path.suffix != ".lock"}


def age(folder: Path, days: float, pattern: str = "*") -> None:
    for path in folder.rglob(pattern):
        if path.is_file():
            os.utime(path, (time.time() - days * DAY,) * 2)


def test_the_list(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    age(cache / "pixels", 3)
    code, text, error = run(capsys, "list", "--cache", cache)
    assert code == 0 and error == ""
    lines = text.splitlines()
    assert lines[0] == str(cache)
    assert lines[1].split() == ["kind", "name", "size", "last", "used"]
    assert any(
        line.split()[:3] == ["pixels", "photos", "16x16-center0.9-bicubic"] and "3 days ago" in line for line in lines
    )
    assert any("40x40-squash1.0-bicubic-square224" in line for line in lines)
    assert any(line.split()[:3] == ["embeddings", "vit.x", "fp32"] for line in lines)
    assert any("20260101T000000123456-77 finished: 2 results of photos" in line for line in lines)
    assert any("20260102T000000123456-78 unfinished: 2 results of photos" in line for line in lines)
    assert "audit       embedcore-audit.sqlite" in text
    assert [line.split()[0] for line in lines[2:]] == [
        *("pixels", "pixels", "embeddings", "embeddings", "journal", "journal", "audit", "total")
    ]
    assert all(len(line) <= 100 for line in lines[1:])


def test_the_journals_of_a_run_are_one_entry(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for worker in ("gw0", "gw1"):
        write_journal(cache / "runs" / f"20260102T000000123456-78.{worker}.jsonl", f"only {worker}")
    write_journal(cache / "runs" / "20260101T000000123456-77.gw3.jsonl", "c")
    assert states(capsys, cache) == ["unfinished: 4 results of photos", "finished: 3 results of photos"]
    (cache / "runs" / "20260102T000000123456-78.gw1.jsonl").write_bytes(b"torn")
    assert states(capsys, cache) == ["unfinished: 3 results of photos", "finished: 3 results of photos"]
    (cache / "runs" / "20260102T000000123456-78.gw1.jsonl").write_bytes(b"not a journal\n")
    assert states(capsys, cache) == ["unreadable", "finished: 3 results of photos"]
    with filelock.FileLock(cache / "runs" / "20260102T000000123456-78.gw0.jsonl.lock"):
        _, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert "kept: journal 20260102T000000123456-78" in text
    assert tree(cache) == {f"runs/20260102T000000123456-78{worker}.jsonl" for worker in ("", ".gw0", ".gw1")}


def test_neighbours_are_removed_with_their_run_but_not_during_it(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache / "neighbours").mkdir()
    for name in ("a" * 32, "b" * 32):
        (cache / "neighbours" / f"20260102T000000123456-78.{name}.npz").write_bytes(b"x" * 100)
    _, text, _ = run(capsys, "list", "--cache", cache)
    assert re.search(r"^neighbours +20260102T000000123456-78: 2 models +200 B", text, re.MULTILINE)
    with filelock.FileLock(cache / "runs" / "20260102T000000123456-78.jsonl.lock"):
        _, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert "kept: neighbours 20260102T000000123456-78" in text
    run(capsys, "prune", "--max-size", "0", "--cache", cache)
    assert not [name for name in tree(cache) if name.startswith("neighbours/")]


def states(capsys: pytest.CaptureFixture[str], cache: Path) -> list[str]:
    """State, number of results and dataset of each listed run, newest first."""
    _, text, _ = run(capsys, "list", "--cache", cache)
    found = re.findall(r"^journal +(2026\w+-\d+) (.*?)  ", text, re.MULTILINE)
    return [state for _, state in sorted(found, reverse=True)]


def test_a_damaged_line_is_no_result(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = cache.glob("runs/*-77.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"model": "b"', b'"model": "x"'))
    assert states(capsys, cache)[1] == "unfinished: 1 result of photos"


def test_sizes_are_those_of_the_files(cache: Path) -> None:
    entries = entries_of(cache)
    assert sum(entry.bytes for entry in entries) == sum(
        path.stat().st_size for path in cache.rglob("*") if path.is_file()
    )
    assert {entry.kind: 0 for entry in entries}.keys() == {"pixels", "embeddings", "journal", "audit"}


def test_an_empty_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "--cache", tmp_path) == (0, f"{tmp_path}\nthe cache is empty\n", "")
    assert run(capsys, "prune", "--all", "--cache", tmp_path) == (0, "0 removed, 0 B\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--cache", "/nowhere/at/all"], "no such cache folder: /nowhere/at/all"),
        (["prune"], "choose what to remove: --older-than DAYS, --max-size GB or --all"),
        (["prune", "--older-than", "-1"], "is not a number of at least 0"),
        (["prune", "--max-size", "nan"], "is not a number of at least 0"),
        (["prune", "--max-size", "much"], "is not a number of at least 0"),
        ([], "ACTION"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 4 and message in error


def test_the_users_own_cache_is_the_default(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: cache)
    assert run(capsys, "list")[1].startswith(f"{cache}\n")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: cache / "not yet made")
    assert run(capsys, "list")[:2] == (0, f"{cache / 'not yet made'}\nthe cache is empty\n")


def test_prune_all(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(cache)
    code, text, _ = run(capsys, "prune", "--all", "--dry-run", "--cache", cache)
    assert code == 0 and tree(cache) == before
    assert text.count("would remove: ") == 7 and "7 would be removed" in text
    code, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert code == 0 and tree(cache) == set()
    assert text.count("removed: ") == 7 and text.splitlines()[-1].startswith("7 removed, ")


def test_prune_by_age(cache: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    age(cache, 10)
    open_pixel_store(dataset, SMALL, cache)  # used again
    (cache / "runs" / "20260102T000000123456-78.jsonl").touch()
    code, text, _ = run(capsys, "prune", "--older-than", "9.5", "--cache", cache)
    assert code == 0 and "10 days ago" in text
    kept = tree(cache)
    assert {name.split("/")[0] for name in kept} == {"pixels", "runs"} and len(kept) == 3
    assert sum("16x16" in name for name in kept) == 2


def test_prune_by_size_takes_the_least_recently_used_and_no_journal(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    age(cache, 1)
    age(cache, 9, "*40x40*")
    age(cache, 99, "*.jsonl")
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    code, text, _ = run(capsys, "prune", "--max-size", (size - 1) / 1e9, "--cache", cache)
    assert code == 0 and "1 removed" in text and "40x40" in text
    run(capsys, "prune", "--max-size", "0", "--cache", cache)
    assert {name.split("/")[0] for name in tree(cache)} == {"runs", "embedcore-audit.sqlite"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["pixels", "embeddings", "journal", "audit"]), st.integers(0, 50), st.integers(0, 9))
    ),
    st.none() | st.integers(0, 10),
    st.none() | st.integers(0, 200),
)
def test_prune_chooses_the_least_recently_used(
    things: list[tuple[str, int, int]], older: int | None, most: int | None
) -> None:
    entries = [Entry(kind, "", (), size, used) for kind, size, used in things]
    chosen = choose_to_remove(entries, 10, older_than_s=older, max_bytes=most)
    ids = {id(entry) for entry in chosen}
    kept = [entry for entry in entries if id(entry) not in ids]
    if older is not None:
        assert all(10 - entry.used <= older for entry in kept)
    if most is not None:
        assert sum(entry.bytes for entry in kept) <= most or not any(entry.can_be_recreated for entry in kept)
    for entry in chosen:
        old = older is not None and 10 - entry.used > older
        assert old or (most is not None and entry.can_be_recreated)
    # No entry was removed for its size before a less recently used one of the same kind.
    for entry in chosen:
        if entry.can_be_recreated:
            assert all(other.used >= entry.used for other in kept if other.can_be_recreated)


# Files in use.


def test_a_store_in_use_is_kept(cache: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_pixel_store(dataset, SMALL, cache)
    code, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert code == 0 and "6 removed" in text
    assert "kept: pixels photos 16x16-center0.9-bicubic" in text and "in use by a running process" in text
    assert len(tree(cache)) == 2 and store.read(0, 6).shape == (6, 16, 16, 3)
    del store
    run(capsys, "prune", "--all", "--cache", cache)
    assert tree(cache) == set()


@pytest.mark.parametrize("pattern", ["pixels/*16x16*.npy", "runs/*-78.jsonl", "embedcore-audit.sqlite"])
def test_files_being_written_are_kept(cache: Path, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = cache.glob(pattern)
    with filelock.FileLock(f"{file}.lock"):
        _, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert file.exists() and "6 removed" in text and text.count("in use by a running process") == 1
    _, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert not file.exists() and "1 removed" in text


def test_a_failed_removal_is_reported(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    code, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert code == 0 and text.count("Permission denied") == 7 and "0 removed, 0 B" in text


def test_a_pruned_store_is_made_again(cache: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = open_pixel_store(dataset, SMALL, cache).read(0, 6).copy()
    run(capsys, "prune", "--all", "--cache", cache)
    np.testing.assert_array_equal(open_pixel_store(dataset, SMALL, cache).read(0, 6), pixels)


def test_leftovers_of_a_killed_build_are_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store,) = cache.glob("pixels/*16x16*.npy")
    store.rename(f"{store}.123-abcdef01.partial")
    store.with_suffix(".json").unlink()
    (cache / "embeddings" / f"{'0' * 32}.npy.k3j_x1.partial").write_bytes(b"half")
    _, text, _ = run(capsys, "list", "--cache", cache)
    assert text.count("(unfinished)") == 2 and "16x16-center0.9-bicubic" in text
    run(capsys, "prune", "--all", "--cache", cache)
    assert tree(cache) == set()


# Files that are not embedcore's.


def test_nothing_else_is_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [
        *(
            "photo.png",
            "pixels/notes.txt",
            "pixels/holiday.npy",
            "pixels/x.partial",
            "runs/mine.jsonl",
            "runs/a/b.jsonl",
        ),
        *("embeddings/mine.npy", f"embeddings/{'0' * 31}.npy", f"embeddings/{'0' * 32}.txt", "models/vit.safetensors"),
        *("embedcore-audit.sqlite.bak", "20260101T000000123456-77.jsonl", "pixels/.hidden"),
    ]
    ours = tree(cache)
    for name in others:
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_bytes(b"precious")
    (cache / "pixels" / f"{'0' * 16}-folder-{'0' * 8}.npy").mkdir()
    run(capsys, "prune", "--all", "--cache", cache)
    assert tree(cache) == set(others) and len(ours) > 8
    assert (cache / "pixels" / f"{'0' * 16}-folder-{'0' * 8}.npy").is_dir()


def test_links_are_not_followed(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(cache / "pixels", outside / "pixels")
    before = tree(outside)
    (inside,) = cache.glob("pixels/*16x16*.npy")
    (target,) = outside.glob("pixels/*16x16*.npy")
    inside.unlink()
    inside.symlink_to(target)  # a file
    shutil.rmtree(cache / "embeddings")
    shutil.copytree(cache / "runs", outside / "runs")
    shutil.rmtree(cache / "runs")
    (cache / "runs").symlink_to(outside / "runs")  # a folder
    before = tree(outside)
    _, text, _ = run(capsys, "prune", "--all", "--cache", cache)
    assert tree(outside) == before and inside.is_symlink() and "journal" not in text


def test_the_cache_folder_itself_may_be_a_link(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(cache)
    assert "7 removed" in run(capsys, "prune", "--all", "--cache", tmp_path / "link")[1]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"\xff", b"[" * 10**5, sealed({"shape": "x", "facts": [], "dataset": 7, "geometry": [1]})],
)
def test_damaged_files_are_listed_and_removed(cache: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern in ("pixels/*.json", "embeddings/*.json", "runs/*.jsonl", "*.sqlite"):
        for file in cache.glob(pattern):
            file.write_bytes(content)
    code, text, _ = run(capsys, "list", "--cache", cache)
    assert code == 0 and text.count("\npixels ") == text.count("\njournal ") == 2
    assert text.count("unreadable") == 2
    assert "7 removed" in run(capsys, "prune", "--all", "--cache", cache)[1]


def test_names_cannot_control_the_terminal(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\u202eevil\n" + "long " * 40
    for file in cache.glob("pixels/*.json"):
        file.write_bytes(sealed({"dataset": hostile, "geometry": hostile, "shape": [6]}))
    for file in cache.glob("embeddings/*.json"):
        file.write_bytes(sealed({"facts": {"model": hostile}, "shape": ["\x1b[2J"]}))
    for file in cache.glob("runs/*.jsonl"):
        write_journal(file, "a", dataset=hostile)
    for arguments in (["list"], ["prune", "--all"]):
        _, text, _ = run(capsys, *arguments, "--cache", cache)
        assert "evil" in text and all(line.isprintable() for line in text.splitlines())


def test_models_of_engines_are_listed_and_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0123456789abcdef" * 2, "inductor", "fedcba9876543210" * 2 + ".x1.partial", "mine"):
        (cache / "engines" / name).mkdir(parents=True)
        (cache / "engines" / name / "model.bin").write_bytes(bytes(1000))
    facts = '{"model": "vit.x", "engine": "openvino", "precision": "int8"}'
    (cache / "engines" / ("0123456789abcdef" * 2) / "facts.json").write_text(facts)
    lines = [line for line in run(capsys, "list", "--cache", cache)[1].splitlines() if line.startswith("engine")]
    assert [" ".join(line.split()[1:-4]) for line in lines] == ["vit.x openvino int8 01234567", "fedcba98", "inductor"]
    assert run(capsys, "prune", "--cache", cache, "--all")[0] == 0
    assert [path.name for path in (cache / "engines").iterdir()] == ["mine"]
