"""Parquet, Arrow and tar files against the same images in a folder. docs/datasets.md has the forms and refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_images import Sample, members_of, samples_of, table_of, write_table, write_tar

from embedcore.commands.cache import entries_of
from embedcore.errors import UsageError
from embedcore.images import arrow_tables, tar_shards
from embedcore.images.arrow_tables import ArrowSource
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import as_dataset, count_images, load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.tar_shards import TarSource

GEOMETRY = Geometry(16, 20, "bicubic", 0.9, "center")
CLASSES = ["cat", "dog"]

FORMS: dict[str, Callable[[Path, list[Sample]], object]] = {
    "parquet": lambda path, samples: write_table(path / "x.parquet", table_of(samples, classes=CLASSES)),
    "binary in parquet": lambda path, samples: write_table(path / "x.parquet", table_of(samples, plain=True)),
    "arrow file": lambda path, samples: write_table(path / "x.arrow", table_of(samples)),
    "arrow stream": lambda path, samples: write_table(path / "x.stream", table_of(samples, classes=CLASSES)),
    "two files": lambda path, samples: [
        write_table(path / f"{place}.parquet", table_of(samples, classes=CLASSES)[part])
        for place, part in enumerate((slice(0, 2), slice(2, 2), slice(2, None)))
    ],
    **{
        f"tar with {label}": lambda path, samples, label=label: write_tar(path / "x.tar", members_of(samples, label))
        for label in ("cls", "json", "txt")
    },
}


@pytest.fixture
def samples(root: Path) -> list[Sample]:
    return samples_of(root)


@pytest.fixture(params=FORMS)
def packed(request: pytest.FixtureRequest, tmp_path: Path, samples: list[Sample]) -> Path:
    """The images of the folder in each form."""
    (tmp_path / "packed").mkdir()
    FORMS[request.param](tmp_path / "packed", samples)
    return tmp_path / "packed"


def pixels(dataset: Dataset, cache: Path, **options: object) -> np.ndarray:
    return open_pixel_store(dataset, GEOMETRY, cache, **options).read(0, len(dataset))


def test_they_are_the_images_of_the_folder(root: Path, packed: Path, tmp_path: Path) -> None:
    expected, found = load_dataset(root), load_dataset(packed)
    assert (found.fingerprint, found.classes, found.name) == (expected.fingerprint, expected.classes, "packed")
    assert count_images(str(packed)) == 5 and as_dataset(packed).fingerprint == expected.fingerprint
    np.testing.assert_array_equal(pixels(found, tmp_path / "a"), pixels(expected, tmp_path / "b"))
    assert all(packed.joinpath(name.partition("/")[0].partition("#")[0]).is_file() for name in found.names)
    part = found.select_classes([1])
    assert part.names == found.names[3:] and part.images.load(1).tobytes() == found.images.load(4).tobytes()


def test_a_single_table_is_a_dataset(root: Path, samples: list[Sample], tmp_path: Path) -> None:
    file = write_table(tmp_path / "shop.parquet", table_of(samples))
    for path in (file, str(file)):
        found = load_dataset(path, max_per_class=2)
        assert (found.name, len(found)) == ("shop", 4)
    assert load_dataset(file).fingerprint == load_dataset(root).fingerprint


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_workers_read_them(make_folder, tmp_path: Path, form: str) -> None:
    root = make_folder({"cat": 150, "dog": 150}, size=(9, 7))
    samples = samples_of(root)
    if form == "tar":
        write_tar(tmp_path / "packed" / "x.tar", members_of(samples))
    else:
        write_table(tmp_path / "packed" / "x.parquet", table_of(samples), rows=100)
    found = pixels(load_dataset(tmp_path / "packed"), tmp_path / "a", workers=2)
    np.testing.assert_array_equal(found, pixels(load_dataset(root), tmp_path / "b", workers=1))


def test_a_row_group_is_decoded_when_needed_and_few_are_kept(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_table(tmp_path / "x.parquet", table_of(samples * 4), rows=2)
    source = load_dataset(file).images
    read: list[int] = []
    cells = arrow_tables._File.cells

    def counting(file: object, number: int, column: str) -> object:
        read.append(number)
        return cells(file, number, column)

    monkeypatch.setattr(arrow_tables._File, "cells", counting)
    monkeypatch.setattr(arrow_tables, "_KEPT_BYTES", 0)
    arrow_tables._groups.clear()
    for row in (14, 15, 3, 14, 2, 19):
        assert source.content(row) == samples[row % 5].content
    assert read == [7, 1, 9] and len(arrow_tables._groups) == 2


def test_an_empty_row_group_is_skipped(samples: list[Sample], tmp_path: Path) -> None:
    table = table_of(samples)
    with pyarrow.parquet.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        for part in (table[:0], table[:2], table[2:2], table[2:], table[:0]):
            writer.write_table(part)
    found = load_dataset(tmp_path / "x.parquet")
    assert [found.images.content(row) for row in range(5)] == [sample.content for sample in samples]
    assert found.names == tuple(f"x.parquet#{row}" for row in range(5))


def test_a_table_that_is_written_again_is_read_again(samples: list[Sample], tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    first = load_dataset(write_table(file, table_of(samples), rows=2))
    assert load_dataset(write_table(file, table_of(samples[::-1]), rows=3)).fingerprint != first.fingerprint
    assert load_dataset(write_table(file, table_of(samples), rows=5)).fingerprint == first.fingerprint
    write_table(file, table_of(samples[::-1]))
    with pytest.raises(UsageError, match=r"'x.parquet#0': its content has changed since the dataset was loaded"):
        open_pixel_store(first, GEOMETRY, tmp_path / "cache")


@pytest.mark.parametrize("form", ["parquet", "tar with cls"])
def test_a_damaged_image_is_named(samples: list[Sample], tmp_path: Path, form: str) -> None:
    samples[3] = Sample(samples[3].name, b"no image", "dog")
    (tmp_path / "packed").mkdir()
    FORMS[form](tmp_path / "packed", samples)
    with pytest.raises(UsageError, match=r"1 of 5 images .*\n  'x.(parquet#3|tar/dog-000.png)': not an image"):
        load_dataset(tmp_path / "packed")
    assert len(load_dataset(tmp_path / "packed", bad_images="skip")) == 4


def test_a_missing_image_is_named(samples: list[Sample], tmp_path: Path) -> None:
    cells = [{"bytes": sample.content, "path": None} for sample in samples[:4]]
    table = pyarrow.table({"image": [*cells, {"bytes": None, "path": "/etc/passwd"}], "label": list("aabbb")})
    with pytest.raises(UsageError, match=r"1 of 5 images .*\n  'x.parquet#4': ValueError: the image is missing"):
        load_dataset(write_table(tmp_path / "x.parquet", table))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("form", ["parquet", "arrow stream", "tar with json"])
def test_unchanged_shards_are_not_read_again(
    samples: list[Sample], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    FORMS[form](tmp_path / "packed", samples)
    first = load_dataset(tmp_path / "packed", cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        for source in (ArrowSource, TarSource):
            patch.setattr(source, "content", lambda *image: pytest.fail("read again"))
        patch.setattr(tar_shards, "_index", lambda *shard: pytest.fail("listed again"))
        assert load_dataset(tmp_path / "packed", cache_dir=tmp_path / "cache").fingerprint == first.fingerprint
    FORMS[form](tmp_path / "packed", samples[::-1])
    assert load_dataset(tmp_path / "packed", cache_dir=tmp_path / "cache").fingerprint != first.fingerprint
    assert {entry.kind for entry in entries_of(tmp_path / "cache")} == {"audit"}


def test_without_pyarrow_it_is_one_line(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_table(tmp_path / "x.parquet", table_of(samples))
    monkeypatch.setattr(arrow_tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        load_dataset(file)
    assert str(caught.value) == f"{file} needs pyarrow: pip install 'embedcore[arrow]'"


def test_files_of_hugging_faces_datasets(root: Path, samples: list[Sample], tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    rows = {
        "image": [{"bytes": sample.content, "path": None} for sample in samples],
        "label": [CLASSES.index(sample.label) for sample in samples],
    }
    written = datasets.Dataset.from_dict(rows, features=features)
    written.to_parquet(tmp_path / "a" / "train-00000-of-00001.parquet")
    written.save_to_disk(tmp_path / "b")
    splits = {"train": written.select([0, 3]), "test": written.select([1, 2, 4])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "c")
    (tmp_path / "b" / "cache-0123456789abcdef.arrow").write_bytes(b"of datasets.map")
    assert {load_dataset(tmp_path / name).fingerprint for name in "ab"} == {load_dataset(root).fingerprint}
    found = load_dataset(tmp_path / "c")
    assert int(found.is_query.sum()) == 3 and found.classes == ("cat", "dog")


# Names are only names.

NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=8)
    | st.sampled_from(["..", ".", "", "etc", "a b", "con", "\udce9", "..\\x", "-rf"]),
    min_size=1, max_size=5,
).map("/".join)  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


def image_of(seed: int) -> bytes:
    return b"P6 1 1 255\n" + seed.to_bytes(3, "big")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NAMES, min_size=1, max_size=6))
def test_names_of_members_are_only_names(scratch: Path, names: list[str]) -> None:
    folder = scratch / "inside"
    before = {*scratch.rglob("*")} | {folder, folder / "x.tar"}
    members = {}
    for seed, name in enumerate(names):
        members |= {f"{name}{seed}k.ppm": image_of(seed), f"{name}{seed}k.cls": b"ab"[seed % 2 : seed % 2 + 1]}
    members |= {f"{each}.{kind}": image_of(9) if kind == "ppm" else b"ab"[place : place + 1]
                for place in (0, 1) for each in (f"z{place}", f"y{place}") for kind in ("ppm", "cls")}  # fmt: skip
    write_tar(folder / "x.tar", members)
    try:
        found = load_dataset(folder)
    except UsageError as error:  # a name before the first dot may be that of another sample, or hidden
        assert "\n" not in str(error)
    else:
        assert {*found.names} <= {f"x.tar/{name}" for name in members} and len(found) >= 4
        assert {found.images.content(row) for row in range(len(found))} <= {*members.values()}
    assert {*scratch.rglob("*")} <= before


@settings(deadline=None, max_examples=40)
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=4, max_size=8))
def test_labels_are_those_of_a_list(scratch: Path, labels: list[str | None]) -> None:
    folder = scratch / "labels"
    samples = [Sample(str(seed), image_of(seed), label) for seed, label in enumerate(labels)]
    for sample in samples:
        folder.mkdir(exist_ok=True)
        (folder / f"{sample.name}.ppm").write_bytes(sample.content)
    file = write_table(scratch / "labels.parquet", table_of(samples))
    outcomes = []
    for arguments in ((file, None), ([folder / f"{sample.name}.ppm" for sample in samples], labels)):
        try:
            outcomes.append(load_dataset(*arguments).fingerprint)
        except UsageError as error:
            assert "\n" not in str(error)
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 0.999), st.sampled_from(["x.parquet", "x.arrow", "x.stream", "x.tar"]))
def test_a_file_that_is_cut_off_is_one_line(scratch: Path, share: float, name: str) -> None:
    folder = scratch / f"cut-{name}"
    samples = [Sample(str(seed), image_of(seed), "ab"[seed % 2]) for seed in range(40)]
    write = write_tar if name == "x.tar" else write_table
    file = write(folder / name, members_of(samples) if name == "x.tar" else table_of(samples))
    content = file.read_bytes()
    end = len(content.rstrip(b"\0")) if name == "x.tar" else len(content)  # a tar file may lack some of its end mark
    file.write_bytes(content[: int(end * share)])
    try:
        found = load_dataset(folder, bad_images="skip")
    except UsageError as error:
        assert "\n" not in str(error)
    else:  # a stream without its end mark is valid
        assert name == "x.stream" and len(found) < 40


# The hub.


@pytest.fixture
def hub_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of huggingface_hub and datasets, without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(caches / "datasets"))
    return caches


def snapshot(cache: Path, repo: str) -> Path:
    """The folder of a repository's commit in the hub's cache."""
    folder = cache / "hub" / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c" * 40)
    (folder / "snapshots" / ("c" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("c" * 40)


def test_the_local_copy_of_a_hub_dataset(root: Path, samples: list[Sample], hub_cache: Path) -> None:
    copy = snapshot(hub_cache, "user/shop")
    write_table(copy / "data" / "train-00000-of-00001.parquet", table_of(samples))
    write_tar(copy / "tars" / "x.tar", members_of(samples))
    for address in ("", "@main", f"@{'c' * 40}", "/data", "/tars/"):
        found = load_dataset(f"hf://datasets/user/shop{address}")
        assert (found.fingerprint, found.name) == (load_dataset(root).fingerprint, "user/shop")


def test_the_local_copy_may_be_a_folder_of_images(root: Path, samples: list[Sample], hub_cache: Path) -> None:
    copy = snapshot(hub_cache, "photos")
    for sample in samples:
        (copy / sample.label).mkdir(exist_ok=True)
        (copy / sample.label / f"{sample.name}.png").write_bytes(sample.content)
    assert load_dataset("hf://datasets/photos").fingerprint == load_dataset(root).fingerprint


def test_the_copy_of_datasets_is_found(root: Path, samples: list[Sample], hub_cache: Path) -> None:
    snapshot(hub_cache, "user/shop").joinpath("README.md").touch()
    for config in ("default", "large"):
        folder = hub_cache / "datasets" / "user___shop" / config / "0.0.0" / "abc"
        write_table(folder / "shop-train.stream", table_of(samples))
        address = "hf://datasets/user/shop"
        if config == "default":
            assert load_dataset(address).fingerprint == load_dataset(root).fingerprint
    assert len(load_dataset(f"{address}/large")) == 5
    message = r"the cache of datasets has 2 versions or configurations of it: name the folder of one, such as .*/abc$"
    with pytest.raises(UsageError, match=message):
        load_dataset(address)


def test_offline_without_a_copy_is_one_line(hub_cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset("hf://datasets/user/shop")
    assert str(caught.value) == "hf://datasets/user/shop is not in the cache and HF_HUB_OFFLINE is set"


@pytest.mark.parametrize(
    "address", ["", "user/../shop", "a b", "user/shop@", "user/shop/../../x", "user//shop", "?token=x"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"is not of the form hf://datasets/USER/NAME\[@REVISION\]\[/FOLDER\]"):
        load_dataset(f"hf://datasets/{address}")


def test_a_hub_dataset_is_read_in_place(
    root: Path, samples: list[Sample], hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from fsspec.implementations.local import LocalFileSystem

    from embedcore.zoo.hub import Hub

    opened: list[str] = []
    remote = hub_cache / "remote"
    commit = remote / "datasets" / "user" / "shop@abc"

    class FakeFileSystem:
        def find(self, path: str, maxdepth: int) -> list[str]:
            return [os.path.relpath(file, remote) for file in LocalFileSystem().find(remote / path, maxdepth=maxdepth)]

        def open(self, path: str, mode: str) -> object:
            opened.append(path)
            return (remote / path.removeprefix("hf://")).open(mode)

    class FakeApi:
        def dataset_info(self, repo: str, revision: str | None) -> object:
            assert (repo, revision) == ("user/shop", "v1")
            return type("Info", (), {"sha": "abc"})

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", FakeFileSystem)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(Hub, "why_unreachable", lambda hub, remote: None)
    write_tar(commit / "x.tar", members_of(samples))
    with pytest.raises(
        UsageError, match=r"shop@abc has no Parquet files that can be read on the hub: download it \(hf"
    ):
        load_dataset("hf://datasets/user/shop@v1")
    write_table(commit / "data" / "train.parquet", table_of(samples))
    found = load_dataset("hf://datasets/user/shop@v1", cache_dir=hub_cache / "cache")
    assert (found.fingerprint, found.name) == (load_dataset(root).fingerprint, "user/shop")
    assert found.names[0] == "data/train.parquet#0"
    assert {*opened} == {"hf://datasets/user/shop@abc/data/train.parquet"}


def test_an_index_does_not_depend_on_the_order_of_members(samples: list[Sample], root: Path, tmp_path: Path) -> None:
    members = members_of(samples)
    write_tar(tmp_path / "packed" / "x.tar", {name: members[name] for name in sorted(members, key=lambda n: n[-3:])})
    assert load_dataset(tmp_path / "packed").fingerprint == load_dataset(root).fingerprint


def test_a_tar_file_damaged_in_the_middle_does_not_end_there(samples: list[Sample], tmp_path: Path) -> None:
    file = write_tar(tmp_path / "packed" / "x.tar", members_of(samples))
    content = bytearray(file.read_bytes())
    header = content.index(b"dog-000.cls")
    content[header + 100] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match=rf"x.tar cannot be read as tar file: it is damaged at byte {header}"):
        load_dataset(tmp_path / "packed")


def test_the_class_is_named_in_a_key_of_json(samples: list[Sample], root: Path, tmp_path: Path) -> None:
    members = members_of(samples)
    for sample in samples:
        members[f"{sample.name}.json"] = json.dumps({"kind": sample.label, "label": "other"}).encode()
    write_tar(tmp_path / "packed" / "x.tar", members)
    assert load_dataset(tmp_path / "packed", columns="label=kind").fingerprint == load_dataset(root).fingerprint
    members["cat-000.json"] = b'{"kind": '
    write_tar(tmp_path / "packed" / "x.tar", members)
    with pytest.raises(UsageError, match=r"x.tar/cat-000.json: Expecting value"):
        load_dataset(tmp_path / "packed", columns="label=kind")
