"""The bench as a library: one call measures a model on a dataset."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from packed_images import members_of, samples_of, table_of, write_table, write_tar
from PIL import Image

from embedcore import Bench, CaseSettings, as_dataset, load_dataset
from embedcore.errors import UsageError
from embedcore.measure import bench as bench_module
from embedcore.results.result import Result

MODEL = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(12)]
    return load_dataset(images, [str(index % 3) for index in range(12)])


def bench_of(tmp_path, **settings):
    return Bench(CaseSettings(weights="random", rounds=2, device="cpu", **settings), cache=tmp_path, isolation="none")


def test_a_model_is_measured_under_the_settings_and_their_changes(tmp_path, dataset):
    bench = bench_of(tmp_path, batch_size=4)
    result = bench.measure(MODEL, dataset)
    assert result.ok and result.dataset == dataset.fingerprint
    assert (result.batch_size, len(result.durations), result.weights["source"]) == (4, 2, "random")
    again = bench.measure(MODEL, dataset, batch_size=2)
    assert again.batch_size == 2 and again.scores == result.scores
    assert bench.stores[dataset.fingerprint].shape[0] == 12


def test_a_case_does_not_depend_on_how_the_images_are_stored(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(12):
        path = tmp_path / "folder" / str(number % 3) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    samples = samples_of(tmp_path / "folder")
    sources = (
        tmp_path / "folder",
        write_table(tmp_path / "table" / "part.parquet", table_of(samples)),
        write_table(tmp_path / "stream" / "part.stream", table_of(samples)),
        write_tar(tmp_path / "shards" / "000.tar", members_of(samples)).parent,
    )
    bench = bench_of(tmp_path / "cache", processes=1)
    results = [bench.measure(MODEL, load_dataset(source, cache_dir=tmp_path / "cache")) for source in sources]
    assert [result.status for result in results] == ["ok"] * len(sources), results
    fields = ("scores", "ci95", "verdicts", "sketch", "dataset", "batch_size", "gmacs", "transform")
    assert all(getattr(result, name) == getattr(results[0], name) for result in results for name in fields)
    assert len([*(tmp_path / "cache" / "pixels").glob("*.npy")]) == 1, "all use one pixel store"


def test_what_goes_wrong_with_a_model_is_a_result(tmp_path, dataset):
    large = bench_of(tmp_path, max_params=0.1).measure("resnet18.a1_in1k", dataset)
    assert (large.status, large.dataset) == ("too-large", dataset.fingerprint)
    unknown = bench_of(tmp_path).measure("resnet5O", dataset)
    assert not unknown.ok and "resnet5O" in unknown.reason


def test_images_without_labels_are_refused(tmp_path):
    images = as_dataset([np.full((8, 8, 3), value, np.uint8) for value in (0, 9)])
    with pytest.raises(UsageError, match="label"):
        bench_of(tmp_path).measure(MODEL, images)


def test_a_result_belongs_to_its_weights(tmp_path, dataset):
    from safetensors.torch import load_file, save_file

    from embedcore.zoo.loading import build_model
    from embedcore.zoo.weights import Weights

    path = tmp_path / f"{MODEL}.safetensors"
    save_file(build_model(MODEL, Weights("random", "seed:0")).state_dict(), path)
    bench = Bench(CaseSettings(weights=str(tmp_path), rounds=1, device="cpu"), cache=tmp_path / "c", isolation="none")
    result = bench.measure(MODEL, dataset)
    assert result.ok and not bench.weights_changed(result)
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    assert bench.weights_changed(result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds is 0: it must be a whole number above 0"),
        ({"batch_size": 0}, "batch_size is 0: it must be 'auto' or a whole number above 0"),
        ({"batch_size": "many"}, "batch_size is 'many': it must be 'auto' or a whole number above 0"),
        ({"channels_last": "yes"}, "channels_last is 'yes': it must be True, False or None"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, dataset, changes, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        bench_of(tmp_path).measure(MODEL, dataset, **changes)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        CaseSettings(**changes)


@pytest.mark.parametrize("name", ["batchsize", "family", "model"])
def test_what_is_no_setting_is_a_type_error_that_names_it(tmp_path, dataset, name):
    with pytest.raises(TypeError, match=f"CaseSettings.*'{name}'|multiple values for argument '{name}'"):
        bench_of(tmp_path).measure(MODEL, dataset, **{name: "x"})


@pytest.mark.parametrize(
    ("isolation", "message"),
    [
        ("thread", "isolation is 'thread': it must be 'process' or 'none'"),
        ("none", "--embed-memory-limit / memory_limit needs --embed-isolation process / isolation='process'"),
    ],
)
def test_a_bench_that_cannot_measure_as_asked_is_one_line(tmp_path, isolation, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        Bench(CaseSettings(memory_limit=1.0), cache=tmp_path, isolation=isolation)


def test_a_path_is_no_dataset(tmp_path):
    with pytest.raises(UsageError, match=r"^a PosixPath is not a dataset: load it with embedcore\.load_dataset$"):
        bench_of(tmp_path).measure(MODEL, tmp_path)


def test_the_time_limit_of_a_case_includes_decoding(tmp_path, dataset, monkeypatch):
    limits = []

    class Recorder:
        def __init__(self, timeout_s, **options):
            limits.append(timeout_s)

        def run(self, case, inputs, stages):
            return Result.make(case.model, family=case.family, status="timeout", reason="none")

    def slow(self, case, dataset, progress):
        time.sleep(0.2)

    monkeypatch.setattr(bench_module, "ChildExecutor", Recorder)
    monkeypatch.setattr(Bench, "_pixels", slow)
    bench = Bench(CaseSettings(weights="random"), cache=tmp_path, timeout_s=7.0)
    case = bench.case(MODEL)
    bench.run(case, dataset, limit_s=5.0)
    bench.run(case, dataset)
    assert 4 < limits[0] <= 4.8 and limits[1] == 7.0


def test_the_content_of_weights_is_read_once(tmp_path, dataset, monkeypatch):
    from safetensors.torch import save_file

    from embedcore.files import sha256_of
    from embedcore.zoo.loading import build_model
    from embedcore.zoo.weights import Weights

    path = tmp_path / "weights" / f"{MODEL}.safetensors"
    path.parent.mkdir()
    save_file(build_model(MODEL, Weights("random", "seed:0")).state_dict(), path)
    read = []
    for module in ("embedcore.images.ledger", "embedcore.zoo.weights"):
        monkeypatch.setattr(f"{module}.sha256_of", lambda path: read.append(path) or sha256_of(path))
    monkeypatch.setattr("embedcore.images.ledger._TICK_NS", -(10**12))
    bench = Bench(CaseSettings(weights=str(path.parent), rounds=1, device="cpu"), cache=tmp_path, isolation="none")
    first, second = bench.measure(MODEL, dataset), bench.measure(MODEL, dataset)
    bench.time(second, dataset)
    assert first.weights == second.weights and first.weights["id"].startswith("sha256:")
    assert read == [path]
