"""Models of the user's own beside timm's: measured, saved, ranked, resumed and compared as all others are."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch

from embedcore.images.load_dataset import load_dataset
from embedcore.results.reading import read_run

FACTORY = """
import torch
from torch import nn

class Colour(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return [x, (x * self.scale[:, None, None]).mean((2, 3))]

def colour():
    return Colour()

def chance():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 8))

def raises():
    raise ValueError("no such checkpoint")

def unfit():
    return nn.Flatten(0)

def dies():
    import os
    os._exit(7)
"""

OURS = """
[[model]]
name = "ours-v3"
arch = "test_resnet.r160_in1k"
weights = "runs/best.pth"
input_size = 96
mean = [0.5, 0.4, 0.3]

[[model]]
name = "colour"
factory = "our_factories.zoo:colour"
input_size = 32
mean = [0, 0, 0]
std = [1, 1, 1]
family = "vit"

[[model]]
name = "given"
embeddings = "given.npy"
family = "elsewhere"

[[model]]
name = "test_vit"
"""
OWN = ("ours-v3", "colour", "given")


@pytest.fixture
def ours(project):
    """ours.toml in a folder lists/ with its files: three own models and one of timm's."""
    folder = project.path / "lists"
    (folder / "runs").mkdir(parents=True)
    (folder / "our_factories").mkdir()
    (folder / "our_factories" / "zoo.py").write_text(FACTORY)
    torch.manual_seed(3)
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(
        {"state_dict": {f"module.backbone.{key}": value for key, value in state.items()}}, folder / "runs/best.pth"
    )
    dataset = load_dataset(str(project.path / "images"))
    # One direction a class: the nearest is always of the class.
    np.save(folder / "given.npy", np.eye(len(dataset.classes), 16, dtype=np.float16)[dataset.labels])
    (folder / "ours.toml").write_text(OURS)
    return folder


def infos(data):
    return {bench["extra_info"]["model"]: bench["extra_info"] for bench in data["benchmarks"]}


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--embed-isolation=none")], ids=["alone", "xdist"])
def test_own_models_are_measured_saved_and_ranked_beside_timms(run, project, saved, ours, workers):
    outcome = run("--benchmark-json=run.json", "--embed-report=report", *workers, roster="lists/ours.toml")
    outcome.assert_outcomes(passed=4)
    data = saved()
    found = infos(data)
    assert set(found) == {*OWN, "test_vit.r160_in1k"}

    ours_v3 = found["ours-v3"]
    assert (ours_v3["architecture"], ours_v3["tag"], ours_v3["family"]) == ("test_resnet", "", "own")
    assert ours_v3["weights"]["source"] == "own:runs/best.pth"
    assert ours_v3["weights"]["classifier"] == "left out (the file has none)"
    assert ours_v3["input_size"] == [3, 96, 96] and ours_v3["transform"]["mean"] == [0.5, 0.4, 0.3]
    assert ours_v3["licence"] is None and ours_v3["pretraining"] is None and ours_v3["default_tag"] is None
    assert ours_v3["images_per_s"]["forward"] > 0 and ours_v3["point"] == "pre_logits"

    colour = found["colour"]
    assert colour["weights"]["source"] == "factory:our_factories.zoo:colour"
    assert colour["weights"]["id"].startswith("sha256:")
    assert (colour["point"], colour["dim"], colour["family"], colour["params_m"]) == ("output", 3, "vit", 3e-6)
    assert colour["scores"]["acc"] == 1  # the classes of the image set are colours

    given = found["given"]
    assert given["scores"]["acc"] == 1 and given["dim"] == 16 and given["family"] == "elsewhere"
    assert given["weights"]["source"] == "own:given.npy"
    assert given["images_per_s"] == {} and given["durations"] == []
    nothing = ("peak_memory_mb", "params_m", "gmacs", "batch_size", "device", "precision", "point", "input_size")
    assert {given[key] for key in nothing} == {None}
    (bench,) = [bench for bench in data["benchmarks"] if bench["extra_info"]["model"] == "given"]
    assert (bench["stats"]["rounds"], bench["stats"]["median"], bench["stats"]["ops"]) == (1, 0, 0)
    assert bench["group"] == "elsewhere, precomputed embeddings: not timed"

    text = outcome.stdout.str()
    page = (project.path / "report" / "leaderboard.md").read_text()
    for table in (text, page):
        assert "colour§" in table and "ours-v3§¶" in table and "§ your own model, not timm's" in table
        assert "¶ classifier of the file left out" in " ".join(table.split())
        assert "Own models (1)" in table or "Own models (1 model)" in table
    assert "elsewhere (1" in text
    report = json.loads((project.path / "report" / "leaderboard.json").read_text())
    assert {row["model"] for row in report["rows"]} == set(found)
    rows = {row["model"]: row for row in csv.DictReader((project.path / "report" / "leaderboard.csv").open())}
    assert rows["given"]["images_per_s_forward"] == "" and rows["given"]["licence"] == ""


def test_ids_options_and_shards_treat_own_models_like_others(run, ours):
    def collected(*arguments):
        outcome = run("--collect-only", "-q", *arguments, roster="lists/ours.toml,test_resnet")
        return {line.partition("[")[2].rstrip("]") for line in outcome.outlines if "::" in line}

    everything = {*OWN, "test_vit.r160_in1k", "test_resnet.r160_in1k"}
    assert collected() == everything
    assert collected("-k", "ours") == {"ours-v3"}
    assert collected("--embed-family=own") == {"ours-v3"}
    assert collected("--embed-family=elsewhere", "--embed-family=vit") == {"given", "colour", "test_vit.r160_in1k"}
    parts = [collected(f"--embed-shard={part}/2") for part in (1, 2)]
    assert parts[0] | parts[1] == everything and not parts[0] & parts[1]


def test_too_many_parameters_are_known_before_and_after_loading(run, saved, ours):
    run("--benchmark-json=run.json", "--embed-max-params=0.0000001", roster="lists/ours.toml").assert_outcomes(
        passed=1, skipped=3
    )
    assert infos(saved()).keys() == {"given"}
    assert {entry["status"] for entry in saved()["embedcore"]["excluded"]} == {"too-large"}


def test_pytest_benchmark_reads_untimed_results(run, project, ours):
    for _ in range(2):
        run("--benchmark-save=ours", "-k", "given or colour", roster="lists/ours.toml")
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", "--group-by=name"]
    done = subprocess.run(compare, cwd=project.path, capture_output=True, text=True, check=True)
    assert done.stdout.count("test_model[given]") >= 2


def test_a_changed_entry_file_or_factory_is_measured_again(run, project, saved, ours):
    roster = "lists/ours.toml"
    run("--benchmark-json=run.json", "--embed-order=roster", roster=roster).assert_outcomes(passed=4)
    before = infos(saved())
    (journal,) = (project.path / "cache" / "runs").glob("*.jsonl")
    begun = b"".join(journal.read_bytes().splitlines(keepends=True)[:4])  # the header and the three own models

    def measured_again():
        journal.write_bytes(begun)
        outcome = run("--benchmark-json=run.json", "--embed-resume", "--embed-order=roster", roster=roster)
        outcome.assert_outcomes(passed=4)
        text = outcome.stdout.str()
        assert "resumed: 3 of 4 results are from the earlier session" in text
        return {name for name in OWN if f"{name}: measured again, since its entry, file or factory has changed" in text}

    assert measured_again() == set()
    assert infos(saved())["ours-v3"] == before["ours-v3"]
    text = (ours / "ours.toml").read_text()
    (ours / "ours.toml").write_text(text.replace("input_size = 96", "input_size = 64"))
    assert measured_again() == {"ours-v3"}
    assert infos(saved())["ours-v3"]["input_size"] == [3, 64, 64]
    (ours / "ours.toml").write_text(text)
    torch.save(timm.create_model("test_resnet").state_dict(), ours / "runs" / "best.pth")
    np.save(ours / "given.npy", np.ones((9, 4)) + np.arange(4))
    with (ours / "our_factories" / "zoo.py").open("a") as file:
        file.write("# another one\n")
    assert measured_again() == {*OWN}
    assert infos(saved())["given"]["dim"] == 4 and "classifier" not in infos(saved())["ours-v3"]["weights"]


def test_the_gate_compares_own_models_except_for_a_missing_speed(run, project, ours):
    roster = "lists/ours.toml"
    assert run("--benchmark-json=base.json", "-k", "given or colour", roster=roster).ret == 0
    limits = "--embed-fail-on=acc:0.5pt,acc5:1pt,drift:1e-3,memory:10%,status"
    arguments = ("-k", "given or colour", "--embed-compare=base.json", limits)
    outcome = run(*arguments, roster=roster)
    outcome.stdout.fnmatch_lines(["PASSED: 2 models compared*"])
    rng = np.random.default_rng(0)
    np.save(ours / "given.npy", rng.normal(size=(9, 16)))
    outcome = run(*arguments, "--benchmark-json=new.json", roster=roster)
    assert outcome.ret == 1
    outcome.stdout.fnmatch_lines(["given *drift*", "FAILED: 2 models compared*"])
    assert {result.model for result in read_run(project.path / "new.json").results} == {"given", "colour"}


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (
            np.ones((8, 4)),
            "error",
            "has 8 rows and the dataset 9 images: one row each, in the order of `embedcore check",
        ),
        (np.ones(9), "error", r"has the shape [9]: it must be [n, dim]"),
        (np.ones((9, 2, 2)), "error", r"has the shape [9, 2, 2]"),
        (np.ones((9, 4), dtype=int), "error", "has the dtype int64: it must be floats"),
        (np.array([[None] * 4] * 9), "error", "is not an array of numbers written by numpy.save (Object arrays cannot"),
        (b"nonsense", "error", "is not an array of numbers written by numpy.save"),
        (np.where(np.eye(9, 4) > 0, np.nan, 1), "nan", "NaN, infinity or zero vectors, the first in row 0"),
        (np.full((9, 4), 1.0) * (np.arange(9) != 5)[:, None], "nan", "zero vectors, the first in row 5"),
    ],
    ids=["length", "vector", "cube", "integers", "objects", "nonsense", "nan", "zeros"],
)
def test_wrong_embeddings_are_one_line(run, saved, ours, content, status, message):
    if isinstance(content, bytes):
        (ours / "given.npy").write_bytes(content)
    else:
        np.save(ours / "given.npy", content)
    outcome = run("--benchmark-json=run.json", "-k", "given", roster="lists/ours.toml")
    assert outcome.ret == pytest.ExitCode.TESTS_FAILED
    (entry,) = saved()["embedcore"]["excluded"]
    assert (entry["model"], entry["status"]) == ("given", status)
    assert entry["reason"].startswith("given: ") and message in entry["reason"]
    assert "Traceback" not in outcome.stdout.str()


@pytest.mark.parametrize(
    ("function", "status", "message"),
    [
        ("raises", "error", "colour: factory our_factories.zoo:raises raised: ValueError: no such checkpoint"),
        ("none", "error", "has no function 'none'"),
        ("unfit", "unsupported", "colour: returns (27648,) for 9 images at the embedding point 'output'"),
        ("dies", "crashed", "the measuring process ended with exit code 7"),
    ],
)
def test_a_wrong_factory_is_one_line_and_fails_only_its_case(run, saved, ours, function, status, message):
    text = (ours / "ours.toml").read_text()
    (ours / "ours.toml").write_text(text.replace("zoo:colour", f"zoo:{function}"))
    outcome = run("--benchmark-json=run.json", "-k", "colour or given", roster="lists/ours.toml")
    assert infos(saved()).keys() == {"given"}
    (entry,) = saved()["embedcore"]["excluded"]
    assert (entry["model"], entry["family"], entry["status"]) == ("colour", "vit", status)
    assert message in entry["reason"] and "\n" not in entry["reason"]
    assert ('raise ValueError("no such checkpoint")' in outcome.stdout.str()) == (function == "raises")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('arch = "test_resnet.r160_in1k"\n', "", "lists/ours.toml, model 1 ('ours-v3'): arch is missing"),
        ("runs/best.pth", "runs/worst.pth", "model 1 ('ours-v3'): weights: */lists/runs/worst.pth does not exist"),
        ("embeddings", "embedings", "model 3 ('given'): unknown key 'embedings': did you mean 'embeddings'?"),
        ("[[model]]", "[[model]", "roster file lists/ours.toml is not TOML: *"),
        ('"test_vit"', '"test_vitt"', "lists/ours.toml, model 4: unknown model 'test_vitt'*"),
    ],
)
def test_bad_toml_is_a_usage_error_of_one_line(run, ours, old, new, message):
    text = (ours / "ours.toml").read_text()
    (ours / "ours.toml").write_text(text.replace(old, new, 1))
    outcome = run(roster="lists/ours.toml")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in outcome.errlines if line.startswith("ERROR")]
    assert len(errors) == 1, outcome.errlines
    outcome.stderr.fnmatch_lines([f"ERROR: *{message.replace('[', '[[]')}*"])


def test_a_checkpoint_that_does_not_fit_is_one_line(run, saved, ours):
    torch.save(timm.create_model("test_vit").state_dict(), ours / "runs" / "best.pth")
    run("--benchmark-json=run.json", "-k", "ours", roster="lists/ours.toml").assert_outcomes(failed=1)
    (entry,) = saved()["embedcore"]["excluded"]
    assert entry["status"] == "error" and "best.pth does not fit: " in entry["reason"] and "\n" not in entry["reason"]


def test_a_folder_with_another_number_of_classes_is_measured_and_shows_its_file(run, project, saved):
    folder = project.path / "weights"
    folder.mkdir()
    torch.manual_seed(3)
    torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), folder / "test_resnet.pth")
    run("--benchmark-json=run.json", "--embed-report=report", roster="test_resnet", weights="weights").assert_outcomes(
        passed=1
    )
    info = infos(saved())["test_resnet.r160_in1k"]
    assert (info["weights"]["source"], info["weights"]["file"]) == ("folder", "test_resnet.pth")
    assert info["licence"] is None and info["pretraining"] is None
    assert "folder:test_resnet.pth sha256:" in (project.path / "report" / "leaderboard.md").read_text()


def test_a_benchmark_of_the_users_own_measures_them_by_name(run, project, saved, ours):
    project.makepyfile(
        test_models="""
        def test_it(embed_images, embed_measure, embed_replay):
            embed_replay(embed_measure("colour", embed_images))
        """
    )
    run("--benchmark-json=run.json", roster="lists/ours.toml").assert_outcomes(passed=1)
    assert infos(saved())["colour"]["weights"]["source"].startswith("factory:")


def test_a_factory_with_random_weights_is_marked(run, project, saved, ours):
    entries = "".join(
        f'[[model]]\nname = "{name}"\nfactory = "our_factories.zoo:{name}"\n' for name in ("colour", "chance")
    )
    (ours / "two.toml").write_text(entries)
    run("--benchmark-json=run.json", "--embed-report=report", roster="lists/two.toml").assert_outcomes(passed=2)
    found = infos(saved())
    assert {name: info["weights"]["source"].partition(":")[0] for name, info in found.items()} == {
        "colour": "factory",
        "chance": "random",
    }
    assert found["chance"]["weights"]["id"].startswith("sha256:")
    page = (project.path / "report" / "leaderboard.md").read_text()
    assert "**RANDOM WEIGHTS in 1 of 2 rows: not pretrained" in page and "RANDOM sha256:" in page
    assert "chance§" in page and "colour§" in page


def test_the_part_and_what_was_resized_are_in_json_and_tables(run, project, saved):
    torch.manual_seed(3)
    state = timm.create_model("test_vit", img_size=96, num_classes=5).state_dict()
    torch.save({"model": state, "ema": state}, project.path / "best.pth")
    entry = '[[model]]\nname = "{}"\narch = "test_vit"\nweights = "best.pth"\n'
    (project.path / "ours.toml").write_text(
        entry.format("strict") + entry.format("free") + 'resample = true\ncheckpoint_key = "model"\n'
    )
    outcome = run("--benchmark-json=run.json", "--embed-report=report", roster="ours.toml")
    outcome.assert_outcomes(passed=1, failed=1)
    weights = infos(saved())["free"]["weights"]
    assert (weights["part"], weights["resampled"]) == ("model", "pos_embed [1, 37, 64] → [1, 101, 64]")
    (entry,) = saved()["embedcore"]["excluded"]
    assert entry["model"] == "strict" and "input_size = 96?" in entry["reason"]
    for table in (outcome.stdout.str(), (project.path / "report" / "leaderboard.md").read_text()):
        assert "free§‖" in table and "‖ timm resized tensors of the file" in " ".join(table.split())
    assert "own:best.pth (model) sha256:" in (project.path / "report" / "leaderboard.md").read_text()
