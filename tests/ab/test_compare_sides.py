"""`embedcore ab` from end to end with a mini model; some tests use fake sides."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path

import forked
import msgspec
import pytest

from embedcore.ab import compare_sides as module
from embedcore.ab.compare_sides import compare_sides
from embedcore.ab.environments import Environment
from embedcore.ab.noise import stored_noise
from embedcore.ab.sides import Side, SideLost, measure_interleaved
from embedcore.cli import main
from embedcore.compare.limits import read_limits
from embedcore.embed.trace import Call, Trace, summary_of
from embedcore.errors import UsageError
from embedcore.plugin import side as side_program
from embedcore.report.gate.ab_text import as_json, as_text
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_sketch

MODEL = "test_resnet.r160_in1k"
HERE = Environment("A", Path(sys.executable))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for label in "ab":
        (folder / label).mkdir()
        for number in range(4):
            Image.effect_noise((40, 40), 30 + 50 * number + (label == "b")).convert("RGB").save(
                folder / label / f"{number}.png"
            )
    return folder


@pytest.fixture(scope="module")
def arguments(photos, tmp_path_factory):
    """Settings with random weights; the roster also has an own model, `colour`."""
    cache, lists = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("lists")
    (lists / "made_for_sides.py").write_text(
        "from torch import nn\ndef f(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    (lists / "ours.toml").write_text('[[model]]\nname = "colour"\nfactory = "made_for_sides:f"\n')
    return [
        f"--embed-roster={lists / 'ours.toml'},test_resnet*,test_vit.*", "-k", "resnet", f"--embed-dataset={photos}",
        "--embed-rounds=2", "--embed-weights=random", "--embed-batch-size=2", f"--embed-cache={cache}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with a timm that cannot be imported."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "timm").mkdir()
    (folder / "timm" / "__init__.py").write_text("raise ImportError('the timm of the working directory')")
    return folder


@pytest.fixture(scope="module")
def sides(arguments, hostile):
    """Two sides, whose working directory is `hostile`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hostile)
        patch.setenv("PYTHONPATH", str(hostile))
        a, b = (Side(HERE._replace(name=name), arguments) for name in "AB")
    with a, b:
        yield {"A": a, "B": b}


def test_a_side_measures_with_pytest_arguments(sides, tmp_path):
    side = sides["A"]
    facts = side.opened()
    assert facts["models"] == [MODEL]
    assert facts["settings"]["batch_size"] == 2
    assert facts["dataset"]["classes"] == 2
    side.save_weights(MODEL, tmp_path)
    results = [side.measure(MODEL, weights=str(tmp_path), batch_size=4, channels_last=False) for _ in range(2)]
    assert [(r.status, r.batch_size, r.channels_last, r.weights["source"]) for r in results] == [
        ("ok", 4, False, "folder")
    ] * 2
    assert results[0].sketch == results[1].sketch
    with pytest.raises(UsageError, match="A: random weights of"):
        side.save_weights(MODEL, Path("/proc/nowhere"))
    assert side.measure(MODEL).ok  # the side has survived the error


def test_two_sides_measure_in_turn(sides, tmp_path):
    for side in sides.values():
        side.opened()
    sides["A"].save_weights(MODEL, tmp_path)
    results = measure_interleaved(sides, MODEL, {"rounds": 5, "weights": str(tmp_path)})
    assert [(r.status, len(r.durations)) for r in results.values()] == [("ok", 5)] * 2
    # A side that fails before its rounds releases the other.
    results = measure_interleaved(sides, MODEL, {"rounds": 5, "max_params": 0.001})
    assert [result.status for result in results.values()] == ["too-large"] * 2


def test_a_killed_side_is_lost(arguments, forked_sides):
    with Side(HERE, arguments) as side:
        side._process.kill()
        with pytest.raises(SideLost, match="A: its process ended with code -9"):
            side.measure(MODEL)


def test_a_side_is_isolated_from_the_working_directory(sides, hostile):
    """Its children, which a forkserver starts, too."""
    assert not Path(sides["A"].opened()["code"]["timm"]["file"]).is_relative_to(hostile)
    assert sides["A"].measure(MODEL, rounds=1).ok


def test_a_side_runs_own_models_but_not_precomputed_embeddings(sides, arguments, tmp_path):
    side = sides["A"]
    side.opened()
    side.save_weights("colour", tmp_path)  # a factory has weights of its own
    result = side.measure("colour", weights=str(tmp_path))
    assert (result.status, result.weights["source"]) == ("ok", "factory:made_for_sides:f"), result.reason
    (tmp_path / "rows.npy").touch()
    (tmp_path / "rows.toml").write_text('[[model]]\nname = "rows"\nembeddings = "rows.npy"\n')
    with pytest.raises(UsageError, match="rows has embeddings only"):
        side_program.Side([f"--embed-roster={tmp_path / 'rows.toml'}", *arguments[3:]])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--embed-point=nowhere"], "argument --embed-point: invalid choice: 'nowhere'"),
        (["--embed-roster=nonsense_model"], "nonsense_model"),
    ],
)
def test_invalid_pytest_arguments_are_one_line(arguments, line):
    with pytest.raises(UsageError, match=line) as error:
        side_program.collect(arguments)
    assert not str(error.value).startswith("usage")


def test_a_killed_command_continues(sides, arguments, monkeypatch, capsys, tmp_path):
    cache = Path(sides["A"].opened()["cache"])
    command = ["ab", "--aa", "--fail-on", "drift:1e-3,status,images_per_s:90%", "--format", "json", "--", *arguments]
    code = "import forked, embedcore.ab.sides, embedcore.cli\nembedcore.ab.sides.subprocess = forked.FORKED_SIDES\n"
    code += f"embedcore.cli.main({command})"
    process = forked.start(forked.script, code, folder=tmp_path, output=tmp_path / "output")
    deadline = time.monotonic() + 300
    while not (before := _files(cache)) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert before, "nothing was measured"
    # The killed command's sides exit when their input ends; the next command has those that run here.
    running = iter(sides.values())
    monkeypatch.setattr(module, "Side", lambda environment, arguments: contextlib.nullcontext(next(running)))
    assert main(command) == 0
    after = _files(cache)
    assert before.items() <= after.items() and len(before) < len(after)
    assert len({path.parent for path in after}) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["models"][0]["drift"] == 0.0
    assert found["models"][0]["processes"] >= 4
    assert found["passed"]


def _files(cache):
    """The kept measurements, by path."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.glob("ab/*/*.json")}


MODELS = {"old": ["gone.a", "both.a", "slow.a", "moved.a"], "new": ["both.a", "slow.a", "moved.a", "added.a"]}


class FakeSide:
    """A side whose models and results depend on the name of its interpreter."""

    def __init__(self, environment, arguments):
        self.environment, self.kind = environment, str(environment.python)
        self.cache = arguments[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def opened(self):
        return {
            "models": MODELS[self.kind], "cache": self.cache, "weights": "auto", "seed": 0, "settings": {},
            "machine": {"processor": "p", "timm": self.kind}, "machine_in_use": "p",
            "code": {}, "versions": {"timm": self.kind, "torch": "2", "commit": None},
            "dataset": {"fingerprint": "f", "queries": 0},
        }  # fmt: skip

    def renew(self):
        pass

    def trace(self, model, **changes):
        import torch

        same, moved = (summary_of(torch.full((2,), value)) for value in (1.0, 2.0 + (self.kind == "new")))
        calls = (Call("norm", "LayerNorm", {"eps": float(len(self.kind))}, summary_of([]), same, moved),)
        return Trace({}, same, calls)

    def measure(self, model, **changes):
        import numpy as np

        new = self.kind == "new"
        sketch = np.ones((8, 64), dtype=np.float32)
        if new and model == "moved.a":
            sketch[0, 0] = 3
        result = Result.make(
            model, family="f", status="ok", scores={"acc": 0.5, "acc5": 0.5}, batch_size=2, device="cpu",
            durations=(1.06 if new and model == "slow.a" else 1.0,) * 3, images_per_s={"forward": 2.0},
            peak_memory_mb=100.0, sketch=pack_sketch(sketch), dim=64, weights={"id": "sha256:0", "source": "folder"},
            channels_last=False,
        )  # fmt: skip
        return msgspec.structs.replace(result, dataset="f")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Side", FakeSide)
    monkeypatch.setattr(
        module,
        "measure_interleaved",
        lambda sides, model, changes: {key: side.measure(model, **changes) for key, side in sides.items()},
    )

    def compared(a="old", b="new", **options):
        sides = {"A": Environment(a, Path(a)), "B": Environment(b, Path(b))}
        return compare_sides(sides, [str(tmp_path)], read_limits(None, tmp_path), **options)

    return compared


def test_worst_first_with_causes_and_models_of_one_side(fake):
    outcome = fake()
    rows = {row.model: row for row in outcome.rows}
    assert [row.level for row in outcome.rows] == ["regression", "regression", ""]
    assert rows["slow.a"].word == "WORSE slower"
    assert rows["slow.a"].ratio.ratio == pytest.approx(1 / 1.06)
    assert rows["moved.a"].word == "WORSE drift"
    assert "code (timm old → new)" in rows["moved.a"].notes[0]
    assert rows["moved.a"].origin.name == "norm" and rows["both.a"].origin is None
    assert "began in norm (LayerNorm): same settings, other code" in " ".join(as_text(outcome).split())
    assert rows["both.a"].word == "same"
    assert outcome.alone == {"A": ["gone.a"], "B": ["added.a"]}
    text = as_text(outcome)
    assert "on side A only: gone.a" in text and "on side B only: added.a" in text
    assert "Limits: acc 0.5 pt, " in text and as_json(outcome)["limits"]["acc"] == 0.005
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(json.dumps(as_json(outcome)))["passed"] is False


def test_an_unmeasured_speed_is_not_reported_as_the_same(fake):
    outcome = fake("old", "old", seconds=0.0)
    assert {row.word for row in outcome.rows} == {"not measured"}
    row = dataclasses.replace(outcome.rows[0], drift=0.0)
    assert row.word == "no drift"
    assert not outcome.passed and not as_json(outcome)["passed"]
    assert as_json(outcome)["undecided"].keys() == {row.model for row in outcome.rows}
    assert "NOT JUDGED: speed of 4 (the budget was used up)." in as_text(outcome)


def test_what_was_not_judged_is_in_the_headline(fake):
    now = iter(range(1000))
    outcome = fake("old", "old", seconds=7.0, clock=lambda: float(next(now)))  # enough for two models
    assert outcome.passed and len(outcome.undecided) == 2
    lines = " ".join(as_text(outcome).split())
    assert "PASSED what was judged: speed of 2, drift of 4; not judged: speed of 2 (the budget was used up)." in lines
    assert sorted(row.word for row in outcome.rows) == ["no drift", "no drift", "same", "same"]
    everything = fake("old", "old")
    assert "PASSED: 4 models." in as_text(everything) and not everything.undecided


@pytest.mark.parametrize(
    ("a", "seconds", "option", "code"),
    [("old", 0.0, "warn", 2), ("old", 6.0, "warn", 0), ("old", 6.0, "fail", 3), ("old", 9e9, "fail", 0)],
)
def test_exit_codes_of_the_undecided(fake, monkeypatch, capsys, a, seconds, option, code):
    now = iter(range(1000))
    outcome = fake(a, a, seconds=seconds, clock=lambda: float(next(now)))
    monkeypatch.setattr(module, "compare_sides", lambda *_, **__: outcome)
    assert main(["ab", "--aa", "--undecided", option]) == code


def test_sides_without_a_common_model_are_one_line(fake, monkeypatch):
    monkeypatch.setitem(MODELS, "new", ["added.a"])
    with pytest.raises(UsageError, match=r"no model is on both sides.*only side A has gone.a.*only side B has added.a"):
        fake()


def test_an_interrupted_comparison_does_not_continue_with_other_code(fake, monkeypatch):
    """The code of a local timm is a hash among the requirements of the machine."""
    measured, measure, opened = [], FakeSide.measure, FakeSide.opened

    def noted(self, model, **changes):
        measured.append(model)
        return measure(self, model, **changes)

    def with_code(self):
        facts = opened(self)
        return {**facts, "machine": {**facts["machine"], "requirements": [f"timm @ file:///clone#sha256={codes[0]}"]}}

    monkeypatch.setattr(FakeSide, "measure", noted)
    monkeypatch.setattr(FakeSide, "opened", with_code)
    codes, counts = ["1", "1", "2"], []
    while codes:
        measured.clear()
        fake("old", "old", seconds=6.0, clock=functools.partial(next, map(float, range(1000))))
        counts.append(len(measured))
        del codes[0]
    assert counts[0] == counts[2] > 0 and counts[1] == 0


def test_a_comparison_that_fails_after_its_measurements_continues(fake, monkeypatch, tmp_path):
    measured, measure = [], FakeSide.measure

    def noted(self, model, **changes):
        measured.append(model)
        return measure(self, model, **changes)

    def fail(*_):
        raise UsageError("no space left")

    monkeypatch.setattr(FakeSide, "measure", noted)
    monkeypatch.setattr(module, "judge_sides", fail)
    counts = []
    for _ in range(2):
        measured.clear()
        with pytest.raises(UsageError, match="no space left"):
            fake("old", "old", maps=tmp_path)
        counts.append(len(measured))
    assert counts[0] > 0 and counts[1] == 0


def test_aa_without_noise_stores_no_noise_floor(fake, tmp_path):
    outcome = fake("old", "old", aa=True)
    assert outcome.noise_found is None  # without any noise there is no floor to keep
    assert stored_noise(tmp_path, "p") is None
    assert outcome.passed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ab"], "name at least one side"),
        (["ab", "--aa", "--candidate", "timm==1"], "takes no candidate"),
        (["ab", "--baseline", "timm==1", "--python-a", "python"], "name a requirement or an interpreter, not both"),
        (["ab", "--python-a", "/nowhere/python"], "no such interpreter"),
        (["ab", "--aa", "--fail-on", "speed:1%"], "'speed' is not one of"),
    ],
)
def test_invalid_sides_are_one_line(arguments, line, capsys):
    assert main(arguments) in (2, 4)
    output = capsys.readouterr().err
    assert line in output
    assert output.count("\n") == 1
