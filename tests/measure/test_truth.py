from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StreamedPixels, open_pixel_store
from embedcore.images.workers import PixelReader
from embedcore.measure import executors
from embedcore.measure.executors import ChildExecutor
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import attempt
from embedcore.measure.truth import GroundTruth
from embedcore.results.neighbours import NeighbourStore
from embedcore.zoo.transforms import data_config

GEOMETRY = geometry_of(data_config("test_resnet.r160_in1k"), "native")
MEASURED_ANEW = {
    "durations",
    "warmup_rounds",
    "images_per_s",
    "measured_s",
    "peak_memory_mb",
    "crowded",
    "stolen",
    "processes",
}


class Unsendable:
    """A user's dataset with an attribute that cannot be pickled and that no measuring process needs."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.transform = lambda image: image

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


@pytest.fixture(scope="module")
def unsendable(arrays):
    labels = [index % 4 for index in range(len(arrays))]
    return load_dataset(Unsendable([Image.fromarray(array) for array in arrays], labels))


def stored(dataset, folder):
    """Pixels on disk for a dataset, in the geometry of the others."""
    return CaseInputs(
        GroundTruth.of(dataset), open_pixel_store(dataset, GEOMETRY, folder), embeddings_folder=folder / "embeddings"
    )


def same(one, other):
    """The fields in which two results differ, without measured times and memory."""
    one, other = one.to_json(), other.to_json()
    return {name for name in one.keys() - MEASURED_ANEW if one[name] != other[name]}


def test_a_child_needs_nothing_of_the_images(case, unsendable, tmp_path):
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(unsendable)
    pair = stored(unsendable, tmp_path)
    pair = dataclasses.replace(pair, neighbours=NeighbourStore(tmp_path / "neighbours", "run"))
    inline = attempt(case, dataclasses.replace(pair, embeddings_folder=None))
    result = ChildExecutor(timeout_s=120).run(case, pair)
    assert (result.status, result.detail) == ("ok", "")
    assert same(inline, result) <= {"detail", "embeddings"}
    assert list((tmp_path / "embeddings").rglob("*")) and list((tmp_path / "neighbours").rglob("*"))


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_the_message_size_does_not_grow_with_the_images(case, images, dataset, arrays, tmp_path, kind, monkeypatch):
    sent = []
    monkeypatch.setattr(executors, "Child", lambda work, **options: sent.append(work.args[0]) or pytest.fail("started"))
    if kind == "arrays":
        dataset = load_dataset(arrays, [str(index % 4) for index in range(40)])
    pair = dataclasses.replace(images, truth=GroundTruth.of(dataset))
    with pytest.raises(pytest.fail.Exception):
        ChildExecutor(timeout_s=120).run(case, pair)
    assert len(sent[0]) < 4000
    _, arrived = pickle.loads(sent[0])
    assert isinstance(arrived.truth, GroundTruth) and not hasattr(arrived, "dataset")


@pytest.mark.parametrize("roles", [None, ["query", "reference"] * 20])
def test_the_ground_truth_equals_the_datasets(arrays, roles):
    dataset = load_dataset(arrays, [str(index // 10) for index in range(40)], roles=roles)
    truth = pickle.loads(pickle.dumps(GroundTruth.of(dataset)))
    assert (len(truth), truth.fingerprint, truth.leave_one_out) == (40, dataset.fingerprint, roles is None)
    assert truth.decoder == dataset.images.decoder
    for name in ("labels", "is_query", "is_reference", "query_labels", "reference_labels"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(dataset, name))


def streamed(dataset, images):
    reader = PixelReader(dataset.images, dataset.digests, GEOMETRY)
    return dataclasses.replace(images, truth=GroundTruth.of(dataset), pixels=StreamedPixels(reader, 1))


def test_images_that_are_streamed_are_sent(case, images, arrays):
    dataset = load_dataset(arrays, [str(index % 4) for index in range(40)])
    pair = streamed(dataset, images)
    result = ChildExecutor(timeout_s=120).run(case, pair)
    assert result.status == "ok" and same(attempt(case, pair), result) == set()


def test_images_that_can_be_neither_stored_nor_sent_are_one_line(case, images, unsendable):
    result = ChildExecutor(timeout_s=120).run(case, streamed(unsendable, images))
    assert (result.status, result.detail, result.measured_s) == ("error", "", 0.0)
    assert result.reason.startswith("there is no room for a pixel store, and these images cannot be sent")
    assert "--embed-cache" in result.reason and "--embed-isolation none" in result.reason
    assert "lambda" in result.reason and "resume" not in result.reason
    assert attempt(case, streamed(unsendable, images)).status == "ok"


SCRIPT = """
import sys
import numpy as np
from embedcore import Bench, CaseSettings, load_dataset

print("begins")

class Mine:
    transform = lambda image: image
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return np.full((64, 64, 3), 30 * index, np.uint8), index % 2

bench = Bench(CaseSettings(weights="random", rounds=1), cache=sys.argv[1])
print(bench.measure("test_resnet.r160_in1k", load_dataset(Mine())).status)
"""


def test_a_script_that_defines_its_dataset_is_not_run_again_in_a_child(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "cache"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.split() == ["begins", "ok"], done.stderr
