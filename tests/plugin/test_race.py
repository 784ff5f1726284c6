"""--embed-race: models that cannot be among the best are not measured in full."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from embedcore.cli import main
from embedcore.measure import measure
from embedcore.measure.bench import Bench
from embedcore.plugin.budget import BudgetSpent
from embedcore.plugin.race import rules_of
from embedcore.plugin.shards import Shard

FACTORIES = """
import torch
from torch import nn

class Colour(nn.Module):
    def forward(self, x):
        return torch.cat([x.mean((2, 3)), torch.ones(len(x), 1)], 1)

class Blind(nn.Module):
    def forward(self, x):
        return torch.sin(1000 * x[:, :, :2, :2].flatten(1))

class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("not built for this")

def colour(): return Colour()
def blind(): return Blind()
def broken(): return Broken()
"""
JSON = "--benchmark-json=run.json"
INLINE = "--embed-isolation=none"
CLASSES, STAGE = 130, 32


@pytest.fixture
def race(run, project):
    """Run a race over own models on 130 classes of two images in one colour each."""
    rng = np.random.default_rng(0)
    (project.path / "colours").mkdir()
    for label, colour in enumerate(rng.integers(20, 235, (CLASSES, 3))):
        for number in range(2):
            pixels = (colour + rng.integers(-8, 9, (8, 8, 3))).astype(np.uint8)
            path = project.path / "colours" / f"{label:03}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    (project.path / "race_models.py").write_text(FACTORIES)

    def race(*arguments, models=("colour", "alike=colour", "blind"), **settings):
        entries = []
        for entry in models:
            name, _, factory = entry.partition("=")
            of = f'factory = "race_models:{factory or name}"\ninput_size = 32\nmean = [0, 0, 0]\nstd = [1, 1, 1]'
            entries.append(f'[[model]]\nname = "{name}"\n{of}\n')
        (project.path / "ours.toml").write_text("\n".join(entries))
        return run("--embed-race", JSON, *arguments, dataset="colours", roster="ours.toml", **settings)

    return race


@pytest.fixture
def measured(monkeypatch):
    """(model, number of images) of every measurement."""
    calls, original = [], Bench.run

    def run(self, case, dataset, *arguments, **options):
        calls.append((case.model, len(dataset)))
        return original(self, case, dataset, *arguments, **options)

    monkeypatch.setattr(Bench, "run", run)
    return calls


RACED = [(name, 2 * STAGE) for name in ("colour", "alike", "blind", "colour", "alike")]  # the second stage adds 32
WHOLE = [*RACED, ("colour", 2 * CLASSES), ("alike", 2 * CLASSES)]
LEFT = 2 * CLASSES - 4 * STAGE  # images of no stage


def journal_lines(project):
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_worst_leaves_and_ties_are_measured_in_full(race, project, saved, measured):
    outcome = race(INLINE, "-rs", "--embed-report=report")
    outcome.assert_outcomes(passed=2, skipped=1)
    assert measured == WHOLE
    outcome.stdout.fnmatch_lines([f"embedcore: race on {classes} of 130 classes: 2 of 3 left" for classes in (32, 64)])
    outcome.stdout.fnmatch_lines(["SKIPPED*raced-out: behind * on 32 of 130 classes (acc *"])
    outcome.stdout.fnmatch_lines(["Not measured: 1 of 3 models (1 raced-out)"])
    assert "(blind: acc at most 0." in " ".join(outcome.stdout.str().split())
    data = saved()
    (excluded,) = data["embedcore"]["excluded"]
    assert (excluded["model"], excluded["status"]) == ("blind", "raced-out")
    lost = excluded["race"]
    assert lost["classes"] == STAGE and lost["acc"] < 0.3 < 0.9 < lost["acc_against"]
    assert lost["against"] in ("colour", "alike") and 0 < lost["at_most"] < 0.5
    assert f"at most {lost['at_most']:.2f} times its acc" in excluded["reason"]
    infos = [bench["extra_info"] for bench in data["benchmarks"]]
    assert [info["model"] for info in infos] == ["colour", "alike"]
    assert all(info["images_per_s"]["forward"] > 0 and info["dataset"] for info in infos)
    assert data["embedcore"]["dataset"]["classes"] == CLASSES
    settings = data["embedcore"]["settings"]
    assert (settings["race"], settings["race_top"], settings["race_margin"]) == (True, 1, 0.0)
    text = (project.path / "report" / "leaderboard.md").read_text()
    assert "1 raced-out" in text and "blind: acc at most 0." in text
    assert not list((project.path / "cache" / "embeddings").iterdir())
    stages = [line["race_stage"] for line in journal_lines(project) if "race_stage" in line]
    assert [stage["model"] for stage in stages] == [name for name, _ in RACED]
    assert [stage["classes"] for stage in stages] == [STAGE] * 3 + [2 * STAGE] * 2


def test_the_images_of_the_stages_are_not_embedded_again(race, run, saved, monkeypatch):
    sizes, original = [], measure.embed_pixels

    def embed_pixels(backbone, pixels, *arguments, **options):
        sizes.append((backbone.name, len(pixels)))
        return original(backbone, pixels, *arguments, **options)

    monkeypatch.setattr(measure, "embed_pixels", embed_pixels)
    race(INLINE).assert_outcomes(passed=2, skipped=1)
    assert sizes == [*RACED, ("colour", LEFT), ("alike", LEFT)]
    raced = {bench["extra_info"]["model"]: bench["extra_info"] for bench in saved()["benchmarks"]}
    run(JSON, INLINE, dataset="colours", roster="ours.toml").assert_outcomes(passed=3)
    for bench in saved()["benchmarks"]:
        info = bench["extra_info"]
        if info["model"] in raced:
            before = raced[info["model"]]
            assert (before["scores"], before["verdicts"]) == (info["scores"], info["verdicts"])
            assert before["images_per_s"]["end_to_end"] > 0


def test_in_fresh_processes_too(race, saved):
    race("--embed-keep-embeddings").assert_outcomes(passed=2, skipped=1)
    assert [entry["status"] for entry in saved()["embedcore"]["excluded"]] == ["raced-out"]


def test_an_interrupted_race_goes_on(race, saved, measured, monkeypatch):
    original = Bench.run

    def once(self, case, dataset, *arguments, **options):
        if len(measured) == 2:
            raise BudgetSpent
        return original(self, case, dataset, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", once)
        outcome = race(INLINE, "--embed-budget=1h")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED and measured == WHOLE[:2]
    outcome = race(INLINE, "--embed-resume")
    outcome.assert_outcomes(passed=2, skipped=1)
    assert measured == WHOLE
    before = saved()["embedcore"]["excluded"]
    again = race(INLINE, "--embed-resume", models=("colour", "alike=colour", "blind", "more=blind"))
    again.assert_outcomes(passed=2, skipped=2)
    assert measured == [*WHOLE, ("more", 2 * STAGE)]
    assert before[0] in saved()["embedcore"]["excluded"]


def test_a_run_that_ended_after_its_race_is_not_raced_again(race, saved, measured, project):
    race(INLINE)
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"test_model' not in line or b'"tests"' in line))
    del measured[:]
    race(INLINE, "--embed-resume").assert_outcomes(passed=2, skipped=1)
    assert measured == WHOLE[len(RACED) :]


def test_a_model_that_fails_in_the_race_has_its_result(race, saved, measured):
    outcome = race(INLINE, models=("colour", "broken", "blind"))
    outcome.assert_outcomes(passed=1, skipped=1, failed=1)
    excluded = {entry["model"]: entry for entry in saved()["embedcore"]["excluded"]}
    assert excluded["broken"]["status"] == "error" and "not built for this" in excluded["broken"]["reason"]
    assert [model for model, _ in measured].count("broken") == 1


def test_a_margin_and_a_top_are_parts_of_the_race(race, saved):
    race(INLINE, "--embed-race-top=2", models=("colour", "blind")).assert_outcomes(passed=2)
    outcome = race(INLINE, "--embed-race-top=2", "--embed-race-margin=.5")
    outcome.assert_outcomes(passed=2, skipped=1)
    assert saved()["embedcore"]["settings"]["race_margin"] == 0.5


def test_shards_race_by_themselves_and_the_merged_run_has_the_best(race, project):
    models = ("a=colour", "b=colour", "c=blind", "d=blind")  # of equal cost: a and c, b and d
    for part in (1, 2):
        outcome = race(INLINE, f"--embed-shard={part}/2", f"--benchmark-json=shard{part}.json", models=models)
        outcome.assert_outcomes(passed=1, skipped=1)
    assert main(["merge", "shard1.json", "shard2.json", "-o", "merged.json"]) == 0
    data = json.loads((project.path / "merged.json").read_text())
    assert {bench["extra_info"]["model"] for bench in data["benchmarks"]} == {"a", "b"}
    excluded = {entry["model"]: entry["status"] for entry in data["embedcore"]["excluded"]}
    assert excluded == {"c": "raced-out", "d": "raced-out"}


@pytest.mark.parametrize(("shards", "top", "level"), [(1, 3, 0.95), (4, 1, 0.95), (4, 2, 0.975), (2, 3, 0.975)])
def test_shards_share_the_probability_of_losing_one_of_the_best(shards, top, level):
    options = SimpleNamespace(shard=Shard(1, shards), race_top=top, race_margin=0.0)
    assert rules_of(options).level == pytest.approx(level)


def test_with_few_classes_everything_is_measured(run, saved):
    outcome = run("--embed-race", INLINE, JSON)
    outcome.assert_outcomes(passed=3)
    outcome.stdout.fnmatch_lines(["--embed-race*3 classes are too few * every model is measured on all classes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embed-race-top=3",), "*--embed-race-top / race_top needs --embed-race*"),
        (("--embed-race-margin=1",), "*--embed-race-margin / race_margin needs --embed-race*"),
    ],
)
def test_options_that_do_not_go_together(run, arguments, message):
    outcome = run(INLINE, *arguments)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_several_workers_are_refused(run):
    outcome = run("--embed-race", INLINE, "-n1")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stdout.fnmatch_lines(
        ["ERROR: *--embed-race*run it without pytest-xdist's -n, or divide them by --embed-shard*"]
    )
