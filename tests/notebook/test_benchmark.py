"""`benchmark` measures as a session of pytest does, and keeps what is done."""

from __future__ import annotations

import sys

import numpy as np
import pandas
import pytest
from PIL import Image
from torch import nn

from embedcore import (
    Bench,
    OwnModel,
    Run,
    UsageError,
    as_dataset,
    benchmark,
    leaderboard,
    load_backbone,
    rank,
    read_run,
)
from embedcore.compare.comparison import compare
from embedcore.results.result import Result

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"


@pytest.fixture
def measure(tmp_path, images):
    """`benchmark` with random weights, in this process."""

    def run(models=(RESNET, VIT), of=images, **settings):
        quick = {"weights": "random", "rounds": 2, "device": "cpu", "isolation": "none", "cache": tmp_path / "cache"}
        return benchmark(models, of, **{**quick, **settings})

    return run


def test_models_are_measured_as_by_a_bench(measure, images, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = measure()
    bench = Bench(run_settings(), cache=run.path.parent.parent, isolation="none")
    assert isinstance(run, Run) and {result.model for result in run.results} == {RESNET, VIT}
    for result in run.results:
        assert result.scores == bench.measure(result.model, images).scores and len(result.durations) == 2
    assert run.settings["rounds"] == 2 and run.settings["dataset"] == "images" and run.timm
    assert run.settings["processes"] == 1 and run.dataset["fingerprint"] == images.fingerprint
    assert "<table" in run._repr_html_() and set(leaderboard(run)["model"]) == set(rank(run)["model"])
    assert "2/2" in capsys.readouterr().err


def run_settings():
    from embedcore import CaseSettings

    return CaseSettings(weights="random", rounds=2, device="cpu")


def test_the_journal_is_the_run(measure):
    run = measure(progress=False)
    again = read_run(run.path)
    assert again.results == run.results and again.settings == run.settings
    assert compare(run, again).compared == 2 and not compare(run, again).barriers


def test_probes_are_a_setting(measure):
    run = measure(probe=True)
    frame = leaderboard(run)
    assert run.settings["probe"] is True and frame["probe_ridge"].between(0, 1).all()
    ranks = rank(run, metric="probe_ridge")
    assert dict(zip(ranks["model"], ranks["probe_ridge"], strict=True)) == dict(
        zip(frame["model"], frame["probe_ridge"], strict=True)
    )
    assert "probe_ridge" not in leaderboard(measure(RESNET)).columns


def test_no_progress_means_no_output(measure, capfd):
    measure(RESNET, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_file_has_no_progress_bar(measure, capsys):
    """In a terminal the bar redraws one line; a log would have all of them."""
    measure([RESNET, "resnet18"], max_params=1)
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("resnet18.a1_in1k: too-large: ") and error.count("\n") == 1


def test_a_model_that_cannot_be_measured_is_named_with_its_status(measure, capsys):
    run = measure(["test_res*.r160_in1k", "resnet18"], max_params=1)
    assert RESNET in {result.model for result in run.results}
    (result,) = [result for result in run.excluded if result.model == "resnet18.a1_in1k"]
    assert result.status == "too-large"
    assert "resnet18.a1_in1k: too-large: more than 1 million" in capsys.readouterr().err
    assert "Not measured: 1 of" in run._repr_html_()


def test_models_that_left_the_race_are_excluded(measure, monkeypatch, capsys):
    def run_race(bench, record, dataset, options, budget, progress, say):
        assert options.race_top == 2 and set(record.planned.values()) == {VIT, RESNET}
        say("race on 32 of 256 classes: 1 of 2 left")
        race = {"classes": 32, "acc": 0.1, "against": RESNET, "acc_against": 0.5, "at_most": 0.4}
        return {VIT: Result.make(VIT, family="vit", status="raced-out", reason="behind", race=race)}

    monkeypatch.setattr("embedcore.plugin.measuring.run_race", run_race)
    run = measure(race=True, race_top=2)
    assert [result.model for result in run.results] == [RESNET]
    assert [(result.model, result.race["at_most"]) for result in run.excluded] == [(VIT, 0.4)]
    printed = capsys.readouterr().err
    assert "1 of 2 left" in printed and f"{VIT}: raced-out: behind" in printed


def test_a_race_over_few_classes_measures_everything(measure, capsys):
    assert len(measure(race=True).results) == 2
    assert "classes are too few" in capsys.readouterr().err


def interrupt_at(monkeypatch, number):
    """Have the case of that number interrupted."""
    original, calls = Bench.run, []

    def run(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(Bench, "run", run)
    return calls


def test_an_interrupt_keeps_what_is_done_and_resume_goes_on(measure, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        part = measure()
    assert len(part.results) == 1 and len(part.unreached) == 1
    assert "interrupted: 1 model not measured; resume=True continues" in capsys.readouterr().err
    calls = interrupt_at(monkeypatch, 0)
    run = measure(resume=True)
    assert len(calls) == 1 and {result.model for result in run.results} == {RESNET, VIT} and not run.unreached
    assert run.path == part.path and part.results[0] in run.results
    assert "resumed: 1 of 2 results are from the earlier session" in capsys.readouterr().err


def test_an_interrupt_before_the_first_result_is_raised(measure, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        measure()


def test_own_models_and_a_folder(measure, tmp_path, make_photos):
    from safetensors.torch import save_file

    save_file(load_backbone(RESNET, weights="random").module.state_dict(), tmp_path / "ours.safetensors")
    ours = OwnModel(name="ours", arch="test_resnet", weights=str(tmp_path / "ours.safetensors"))
    run = measure([ours], of=make_photos, max_classes=2)
    assert [result.model for result in run.results] == ["ours"] and run.results[0].own
    assert run.settings["dataset"] == str(make_photos) and run.dataset["classes"] == 2


@pytest.fixture
def make_photos(tmp_path):
    for number in range(9):
        path = tmp_path / "photos" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
    return tmp_path / "photos"


def test_fresh_processes_and_further_timings(measure):
    run = measure(RESNET, isolation="process", processes=2)
    assert len(run.results[0].processes) == 2 and len({p.started for p in run.results[0].processes}) == 2


@pytest.mark.parametrize("model", [nn.Linear(1, 1), nn.Sequential(nn.ReLU()), [nn.ReLU()], 7])
def test_what_cannot_be_sent_to_a_process_is_refused(measure, model):
    with pytest.raises(
        UsageError, match=r"^a (Linear|Sequential|ReLU|int) cannot be sent to the process that measures"
    ):
        measure(model)


FRAME = pandas.DataFrame({"photo": ["a.png"]})
UNLABELLED = as_dataset([np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "no model to measure: the list is empty"),
        ({"models": "resnet5O"}, ".*unknown model 'resnet5O'"),
        (
            {"models": [OwnModel(name="a", embeddings="x"), OwnModel(name="a", embeddings="y")]},
            "two models are named 'a'",
        ),
        ({"batchsize": 3}, "no setting 'batchsize': did you mean batch_size?"),
        ({"report": "x"}, "no setting 'report': "),
        ({"rounds": 0}, "rounds is 0: must be a whole number, 1 or more"),
        ({"precision": "fp8"}, "precision is 'fp8': choose from auto, fp32, bf16, fp16"),
        ({"max_classes": 2}, "max_classes chooses images, and Dataset 'images': .* is loaded: pass it to load_dataset"),
        ({"of": "nowhere/at/all"}, "no such folder of images: "),
        ({"of": FRAME}, "the DataFrame: no column 'path'; .*path=NAME,label=NAME"),
        ({"of": FRAME, "columns": "path=photo"}, "the DataFrame: no column 'label'; .*columns='label=NAME'"),
        ({"of": UNLABELLED}, "images has no classes: it can be embedded, but scores need labels"),
    ],
)
def test_wrong_arguments_are_one_line(measure, settings, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        measure(**settings)
