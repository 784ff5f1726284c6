from __future__ import annotations

import json

import numpy as np
import pytest
import records
import synthetic_runs as made

from embedcore.cli import main
from embedcore.results.result import Result
from embedcore.zoo.registry import known_gmacs

CLASSES = np.arange(3)


@pytest.fixture
def plan(tmp_path, monkeypatch, caches, capsys):
    """Run the command in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def plan(*arguments):
        code = main(["plan", "--embed-cache=cache", *arguments])
        return code, *capsys.readouterr()

    return plan


@pytest.fixture
def photos(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return "--embed-dataset=photos"


def test_a_plan_shows_downloads_and_disk_space(plan, photos, tmp_path):
    code, out, _ = plan(photos, "-k", "resnet18.a")
    assert code == 0
    assert "to fetch" in out and "for 3 images in" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80 or str(tmp_path) in out
    assert not (tmp_path / "cache").exists()


def test_without_labels_a_view_of_each_image_is_counted(plan, photos):
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11", "--embed-unlabelled")
    assert code == 0 and "for 6 images in" in " ".join(out.split())


def test_random_weights_are_not_fetched(plan, photos):
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11,vgg13")
    assert code == 0 and out.startswith("models: 2, with random weights\n") and "fetch" not in out.splitlines()[0]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_time_is_said_only_if_it_is_known(plan, photos, monkeypatch, device):
    """Also for a device that this machine lacks."""
    monkeypatch.setattr("embedcore.plugin.start.cpu_gmacs_per_s", lambda: 0.1)
    monkeypatch.setattr("embedcore.measure.forecast._LONG_GMACS", 10.0)
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11", f"--embed-device={device}")
    assert code == 0 and ("time: roughly" in out) == (device == "cpu")


def cards(tmp_path):
    """Saved runs of two cards, on each of which two models were measured."""
    for gpu, speed in (("NVIDIA H100 80GB HBM3", 0.05), ("L4", 0.005)):
        hits = np.ones(3, dtype=np.uint8)
        results = [
            made.result(name, CLASSES, hits, gmacs=gmacs, images_per_s={"forward": speed / gmacs}, durations=[0.5, 0.5])
            for name, gmacs in (("resnet18.x", 10.0), ("resnet50.x", 20.0))
        ]
        data = made.saved(results, CLASSES, machine={**made.MACHINE, "gpu": gpu}, settings={"seed": len(gpu)})
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / f"{gpu[:2]}.json").write_text(json.dumps(data))


def test_hours_by_card_are_those_of_saved_runs(plan, photos, tmp_path):
    cards(tmp_path)
    chosen = [photos, "--embed-weights=random", "--embed-roster=vgg11,vgg13", "-k", "vgg11 or vgg13"]
    code, out, error = plan(*chosen, "--speeds", "runs/NV.json", "runs/L4.json", "--within", "30m", "--embed-seed=0")
    assert code == 0 and error == "" and max(map(len, out.splitlines())) <= 80
    rows = {line[:21].strip(): line[21:].split() for line in out.splitlines() if line.startswith(("NVIDIA", "L4"))}
    # 3 images, and two processes of 6 seconds.
    vgg11, vgg13 = known_gmacs("vgg11.tv_in1k"), known_gmacs("vgg13.tv_in1k")
    work = sum(max(each, each**0.85 * 10**0.15) for each in (vgg11, vgg13))
    for card, (small, large) in {"NVIDIA H100 80GB HBM3": (612.0, 1212.0), "L4": (6012.0, 12012.0)}.items():
        hours = (small + work * large / 30.0) / 3600
        engine, precision, shown, ends, cases, outside, _ = rows[card]
        assert (engine, precision, shown, cases) == ("eager", "fp32", f"{hours:.2f}", "2")
        low, high = map(float, ends.split("–"))
        assert low <= float(shown) <= high
        assert outside == str(sum(not 10 <= each <= 20 for each in (vgg11, vgg13)))
    assert rows["L4"][-1] == "–"  # vgg13 alone takes two hours
    assert rows["NVIDIA H100 80GB HBM3"][-1] == "2"
    assert "hours by machine, for 2 models on 3 images:" in out
    assert plan(*chosen, "--speeds", "runs", "--within", "30m")[1] == out  # a folder of runs that are unlike


def test_hours_of_journals_and_of_no_run(plan, photos, tmp_path):
    chosen = [photos, "--embed-weights=random", "--embed-roster=vgg11"]
    out = plan(*chosen)[1]
    assert "hours by machine: not known, since nothing was measured" in " ".join(out.split())
    result = Result.make(
        "resnet18.x", family="resnet", status="ok", scores={"acc": 0.5, "acc5": 0.3}, gmacs=10.0,
        images_per_s={"forward": 5.0}, durations=[0.5], precision="fp32", engine="compile:max-autotune",
    )  # fmt: skip
    identity = records.IDENTITY | {"machine": "an AMD EPYC of which the name is very long, 2 threads"}
    records.journal(tmp_path / "cache" / "runs", "run", [result], identity=identity)
    lines = plan(*chosen)[1].splitlines()
    place = lines.index("an AMD EPYC of which the name is very long, 2 threads")
    assert lines[place + 1].split()[:2] == ["compile:max-autotune", "fp32"]
    assert "end within 1 d" in " ".join(" ".join(lines).split())


def test_mistakes_in_speeds_are_one_line(plan, photos):
    code, out, error = plan(photos, "--speeds", "nowhere")
    assert code == 4 and out == "" and "no saved run nowhere" in error and error.count("\n") == 1
    code, out, error = plan(photos, "--within", "soon")
    assert code == 4 and out == "" and "argument --within: 'soon': must be a duration" in error


@pytest.mark.parametrize(
    "argument", ["--embed-rounds=0", "--embed-roster=vgg1111", "--embed-dataset=nowhere", "-k=vittt"]
)
def test_a_mistake_is_one_line(plan, argument):
    code, out, error = plan("--embed-weights=random", argument)
    assert code == 4 and out == "" and error.count("\n") == 1
    assert argument.partition("=")[2] in error or "no case is selected" in error


def test_help_is_that_of_the_command(plan):
    code, out, _ = plan("-h")
    assert code == 0 and "embedcore plan [ARGUMENT ...]" in out
