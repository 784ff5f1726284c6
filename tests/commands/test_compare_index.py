"""`embedcore compare --index`: from two saved runs and their kept embeddings to an answer for each model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from embedcore.cli import main
from embedcore.images.load_dataset import load_dataset
from embedcore.measure.bench import Bench
from embedcore.measure.case import CaseSettings
from embedcore.results.saved import benchmark_entry, dataset_block, embedcore_block
from embedcore.zoo.roster import own_models

FACTORY = """
from embedcore.zoo.backbone import load_backbone

def lite0():
    return load_backbone("tf_efficientnet_lite0.in1k").module
"""
ENTRY = """
[[model]]
name = "lite0"
factory = "planted:lite0"
input_size = 224
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
interpolation = "bicubic"
"""
KINDS = {"as-it-is": "crop_pct = 0.875\n", "crop": "crop_pct = 1.0\n"}


@pytest.fixture(scope="module")
def emoji():
    return load_dataset("emoji", max_classes=12, seed=0)


def save(path, dataset, results):
    block = embedcore_block(settings={"protocol": "native"}, datasets=[dataset_block(dataset)], excluded=[])
    entries = [benchmark_entry(result, "") for result in results]
    path.write_text(json.dumps({"machine_info": {}, "benchmarks": entries, "embedcore": block}))
    return str(path)


def measured(folder, dataset, name, text, *, keep=True):
    """Measure the model of a roster file; return the path of the saved run."""
    roster = folder / f"{name}.toml"
    roster.write_text(text)
    settings = CaseSettings(device="cpu", rounds=1, batch_size=4, channels_last=True)
    models = own_models(str(roster))
    bench = Bench(settings, cache=folder / "cache", own_models=models, isolation="none", keep_embeddings=keep)
    results = [bench.measure(model, dataset) for model in models]
    assert all(result.ok for result in results), [result.reason for result in results]
    return save(folder / f"{name}.json", dataset, results)


@pytest.fixture(scope="module")
def real(tmp_path_factory, emoji):
    """Runs of lite0's real weights, as it is and with planted changes."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "planted.py").write_text(FACTORY)
    return folder, {name: measured(folder, emoji, name, ENTRY + kind) for name, kind in KINDS.items()}


def answers(capsys, *arguments):
    assert main(["compare", *map(str, arguments), "--index", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    return found["stored"]


def rows_of(folder, run):
    (entry,) = json.loads((folder / f"{run}.json").read_text())["benchmarks"]
    return np.load(folder / "cache" / "embeddings" / f"{entry['extra_info']['embeddings']}.npy")


def test_real_weights_with_a_changed_crop(real, emoji, capsys):
    folder, runs = real
    (answer,) = answers(capsys, runs["as-it-is"], runs["crop"], "--cache", folder / "cache")
    old, new = rows_of(folder, "as-it-is"), rows_of(folder, "crop")
    near = (new[emoji.is_query].astype(float) @ old[emoji.is_reference].T.astype(float)).argmax(axis=1)
    acc = np.mean(emoji.reference_labels[near] == emoji.query_labels)
    assert answer["searches"]["new_old"]["scores"]["acc"] == pytest.approx(acc, abs=1e-12)
    assert (answer["equal"], answer["matrix"], answer["advice"]) == (False, None, "re-embed")
    assert answer["distance"] == pytest.approx(np.linalg.norm(new.astype(float) - old, axis=1).mean())


def test_the_same_embeddings_are_kept(real, capsys):
    folder, runs = real
    assert main(["compare", runs["crop"], runs["crop"], "--index", "--cache", str(folder / "cache")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["lite0: keep: the embeddings are equal", "", "1 index: keep 1"]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A base with rows of 16 columns, and a new run whose rows are rotated; in the current folder."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(0)
    for label in range(20):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(5):
            noise = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / str(label) / f"{number}.png")
    dataset = load_dataset(str(tmp_path / "images"))
    rows = rng.standard_normal((20, 16))[dataset.labels] + rng.standard_normal((100, 16))
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    for name, given in (("old", rows), ("turned", rows @ rotation), ("wide", rng.standard_normal((100, 20)))):
        np.save(tmp_path / f"{name}.npy", given)
    return dataset


def run_of(dataset, tmp_path, name, **changes):
    return measured(tmp_path, dataset, name, f'[[model]]\nname = "ours"\nembeddings = "{name}.npy"\n', **changes)


def test_a_planted_rotation_is_repaired_by_the_written_matrix(planted, tmp_path, capsys):
    old, turned = (run_of(planted, tmp_path, name) for name in ("old", "turned"))
    (answer,) = answers(capsys, old, turned, "--cache", "cache", "--maps", "maps")
    assert (answer["advice"], answer["matrix"]) == ("rotate", "maps/ours.npz")
    scores = {name: search["scores"] for name, search in answer["searches"].items()}
    assert scores["rotated"] == scores["old_old"] != scores["new_old"]
    with np.load("maps/ours.npz", allow_pickle=False) as file:
        matrix, facts = file["matrix"], json.loads(str(file["facts"]))
    np.testing.assert_allclose(rows_of(tmp_path, "turned") @ matrix, rows_of(tmp_path, "old"), atol=1e-6)
    assert rows_of(tmp_path, "turned").shape[1] == len(matrix)
    assert (tmp_path / "cache" / "embeddings" / f"{facts['from']}.npy").exists()
    assert main(["compare", old, turned, "--index", "--cache", "cache"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("ours: rotate by embedcore-maps/ours.npz: acc ") and text.endswith("1 index: rotate 1\n")
    assert max(map(len, text.splitlines())) <= 80


def test_models_without_an_answer_say_why_in_one_line(planted, tmp_path, capsys):
    old = run_of(planted, tmp_path, "old")
    unkept = run_of(planted, tmp_path, "turned", keep=False)
    wide = run_of(planted, tmp_path, "wide")
    command = ["compare", old, unkept, "--index", "--cache", "cache"]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("ours: unknown: turned was measured without --embed-keep-embeddings /")
    assert "no index can be judged: ours: turned was measured without" in captured.err
    (answer,) = answers(capsys, old, wide, "--cache", "cache")
    assert (answer["advice"], answer["line"]) == ("re-embed", "ours: re-embed: the embeddings have another width")
    data = json.loads((tmp_path / "old.json").read_text())
    data["embedcore"]["dataset"]["fingerprint"] = "another"
    (tmp_path / "another.json").write_text(json.dumps(data))
    assert main(["compare", "another.json", wide, "--index", "--cache", "cache"]) == 2
    assert "the runs have different images" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "cache" / "embeddings")
    assert main(["compare", old, wide, "--index", "--cache", "cache"]) == 2
    assert "the embeddings of old are no longer in cache/embeddings" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("block", [{"query_classes": "!"}, {"roles": "eJw=", "reference_classes": "x"}])
def test_damaged_labels_are_one_line(planted, tmp_path, capsys, block):
    path = run_of(planted, tmp_path, "old")
    data = json.loads((tmp_path / "old.json").read_text())
    data["embedcore"]["dataset"] |= block
    (tmp_path / "old.json").write_text(json.dumps(data))
    assert main(["compare", path, path, "--index", "--cache", "cache"]) == 2
    assert "labels of the images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--format", "junit"], "--index: format junit"),
        (["--html", "x.html"], "--index cannot be combined with --html"),
    ],
)
def test_formats_that_do_not_exist(tmp_path, capsys, more, line):
    assert main(["compare", "a", "b", "--index", *more]) == 2
    assert line in capsys.readouterr().err
