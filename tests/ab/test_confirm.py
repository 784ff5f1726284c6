"""Suspect speeds settled by interleaved measurements, with simulated sides; and environments built again."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import sys
from collections import Counter

import msgspec
import numpy as np
import pytest
from synthetic_runs import MACHINE, as_run, hits_of, result, saved

from embedcore.ab import confirm as module
from embedcore.ab.confirm import ConfirmationLines, confirm, rebuilt, settle
from embedcore.ab.environments import Environment
from embedcore.ab.schedule import Track
from embedcore.ab.sides import SideLost
from embedcore.compare.comparison import compare
from embedcore.compare.interleaved import Interleaved, ratio_of
from embedcore.compare.limits import read_limits
from embedcore.compare.verdict import judge
from embedcore.errors import UsageError

CLASSES = np.repeat(np.arange(20), 5)
MODELS = tuple(f"net_{letter}.x" for letter in "abcd")
HERE = {
    **MACHINE,
    "python": platform.python_version(),
    "requirements": ["embedcore==0.2.0", "numpy==2.0.0", "timm==1.0.20"],
}


def run(speeds=(), *, machine=HERE, name="run.json", settings=None, **fields):
    """A run whose models take 1 / speed seconds a round, 1 if not named."""
    infos = []
    for model in MODELS:
        speed = dict(speeds).get(model, 1.0)
        seconds = [float(s) / speed for s in 1.0 + 0.001 * np.random.default_rng(2).standard_normal(10)]
        changes = {"durations": seconds, "images_per_s": {"forward": 16.0 * speed}, **fields}
        infos.append(result(model, CLASSES, hits_of(model, CLASSES, 0.6), **changes))
    return as_run(saved(infos, CLASSES, machine=machine, settings=settings), name)


class Sides:
    """Both sides: what was started and measured, and how much slower each model of side B is."""

    def __init__(self):
        self.slower, self.started, self.measured = {}, [], []
        self.facts = {"machine": HERE, "machine_in_use": "p", "weights": "auto"}
        self.fails = self.lost = False
        self.renewed = 0

    @contextlib.contextmanager
    def start(self, environment, arguments):
        self.started.append((environment, list(arguments)))
        yield self

    def opened(self):
        return self.facts

    def renew(self):
        self.renewed += 1

    def measure(self, sides, model, changes):
        self.measured.append((model, changes))
        if self.lost:
            raise SideLost("side B: its process ended")
        rng = np.random.default_rng(len(self.measured))
        found = {}
        for side in sides:
            level = 1.0 / (1 - self.slower.get(model, 0.0)) if side == "B" else 1.0
            seconds = level * math.exp(rng.normal(0, 0.004))
            found[side] = as_result(model, [seconds] * 10, changes)
            if self.fails:
                found[side] = msgspec.structs.replace(found[side], status="crashed", reason="lost")
        return found


def as_result(model, durations, changes):
    made = run().results[0]
    return msgspec.structs.replace(made, model=model, durations=tuple(durations), batch_size=changes["batch_size"])


@pytest.fixture
def sides(monkeypatch):
    fake = Sides()
    monkeypatch.setattr(module, "Side", fake.start)
    monkeypatch.setattr(module, "measure_interleaved", fake.measure)
    monkeypatch.setattr(module, "installed_requirements", lambda: HERE["requirements"])
    monkeypatch.setattr(module, "rebuilt", lambda run, name, cache: Environment(name, sys.executable))
    return fake


@pytest.fixture
def asked(tmp_path):
    limits = read_limits("images_per_s:5%", tmp_path)

    def asked(base, new, names=MODELS, **options):
        return confirm(compare(base, new), list(names), limits, cache=tmp_path, **options)

    return asked


def test_only_the_suspects_are_measured_and_a_real_fall_is_an_alarm(sides, asked):
    sides.slower["net_b.x"] = 0.1
    answers = asked(run(), run(), ["net_a.x", "net_b.x"])
    assert {model for model, _ in sides.measured} == {"net_a.x", "net_b.x"}
    pairs = max(Counter(model for model, _ in sides.measured).values())
    assert sides.renewed == 2 * pairs, "each pair of a model comes from new servers of both sides"
    assert not answers["net_a.x"].alarms(0.05) and answers["net_b.x"].alarms(0.05)
    (baseline, arguments), (candidate, _) = sides.started
    assert (baseline.name, candidate.name) == ("the baseline", "the new run")
    assert "--embed-roster=net_a.x,net_b.x" in arguments and "--embed-protocol=native" in arguments


@pytest.mark.parametrize(("fall", "decides"), [(0.015, True), (0.022, True), (0.035, False)])
def test_at_the_last_look_the_99_percent_interval_decides(fall, decides):
    """24 pairs with a noise of 4.2 %: too wide to stop early, and enough to exclude a fall of 5 % or not."""
    pairs = math.log(1 - fall) + 0.042 * np.array([-1, 1] * 12)
    ratio = ratio_of(pairs, models=20, noise=0.042)
    assert not ratio.settled(0.05) and not ratio.alarms(0.05) and (ratio.lowest > 0.95) is decides
    track = Track("net_a.x", pairs=list(pairs), ratio=ratio, why="still uncertain after 48 processes")
    assert module._answer(track, 0.05) == (ratio if decides else track.why)
    assert module._answer(dataclasses.replace(track, settled=True, why="the budget was used up"), 0.05) != ratio


def test_the_sides_use_the_settings_of_both_runs(sides, asked):
    asked(run(batch_size=16), run(batch_size=8), ["net_a.x"])
    assert {(changes["batch_size"], changes["precision"]) for _, changes in sides.measured} == {(8, "fp32")}


def test_a_lucky_baseline_passes_after_confirmation(sides, tmp_path):
    """12 % faster in the baseline's session, and unchanged; a real fall of another model stays one."""
    limits = read_limits("images_per_s:5%", tmp_path)
    comparison = compare(run({"net_a.x": 1.12}), run({"net_b.x": 0.88}))
    sides.slower["net_b.x"] = 0.12
    before = judge(comparison, limits)
    assert {"net_a.x", "net_b.x"} <= {*before.suspects, *(found.model for found in before.of("regression"))}
    after = settle(comparison, before, cache=tmp_path)
    assert [found.model for found in after.of("regression")] == ["net_b.x"]
    assert not after.suspects and not after.undecided


def test_progress_in_lines_is_one_at_the_start_and_then_one_a_minute(sides, asked):
    lines, times = [], iter([0.0, 30.0, 59.0, 61.0, 100.0, 130.0])
    progress = ConfirmationLines(lines.append, clock=lambda: next(times))
    for done, model in enumerate("abcdef"):
        progress(model, done // 4, 2)
    assert lines == [
        "embedcore: measuring 2 suspect speeds again, interleaved, in 2 to 24 pairs of processes each",
        "embedcore: after 1 min 1 s: 0 of 2 known, now d",
        "embedcore: after 2 min 10 s: 1 of 2 known, now f",
    ]
    started = []
    asked(run(), run(), ["net_b.x"], progress=lambda *now: started.append((now, bool(sides.started))))
    assert started[0] == (("net_b.x", 0, 1), False), "the first line comes before an environment is built"


def test_without_an_answer_a_suspect_is_undecided_and_says_why(sides, tmp_path):
    limits = read_limits("images_per_s:5%", tmp_path)
    comparison = compare(run(processes=[]), run(processes=[]))  # sessions of one process never decide
    before = judge(comparison, limits)
    assert before.suspects == MODELS
    after = settle(comparison, before, cache=tmp_path, seconds=0.0)
    assert not sides.started and not after.suspects and not after.failed
    assert "not confirmed: the budget was used up" in str(after.undecided)
    sure = judge(compare(run({"net_a.x": 1.5}), run()), limits)
    assert [found.model for found in sure.of("regression")] == ["net_a.x"]
    left = settle(compare(run({"net_a.x": 1.5}), run()), sure, cache=tmp_path, seconds=0.0)
    assert left.of("regression") == sure.of("regression")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"processor": "another CPU, 2 threads"}, "another processor: a CPU, 2 threads, now another CPU, 2 threads"),
        ({"gpu": "card"}, "another card: none, now card"),
        ({"driver": "570.1"}, "another driver: none, now 570.1"),
        ({"python": "2.7.1"}, "was measured with Python 2.7.1"),
        ({"requirements": ["embedcore==0.3.0"]}, "two versions of embedcore"),
    ],
)
def test_another_machine_is_a_reason_and_starts_nothing(sides, asked, change, why):
    answers = asked(run(), run(machine={**HERE, **change}), ["net_a.x"])
    assert why in answers["net_a.x"] and not sides.started
    if {*change} & {"processor", "gpu", "driver"}:  # this machine is none of both
        sides.facts = {**sides.facts, "machine": {**HERE, **change}}
        assert why in asked(run(), run(), ["net_a.x"])["net_a.x"]
        assert not sides.measured


def test_failures_are_reasons(sides, asked, monkeypatch):
    assert asked(run(), run(durations=[]), ["net_a.x"]) == {"net_a.x": "its durations were not saved"}
    assert asked(run(), run(), ["gone.x"]) == {"gone.x": "it was not measured in both runs"}
    sides.fails = True
    assert asked(run(), run(), ["net_a.x"])["net_a.x"].startswith("side A: lost")
    sides.lost = True
    assert asked(run(), run(), ["net_a.x"]) == {"net_a.x": "side B: its process ended"}

    def impossible(run, name, cache):
        raise UsageError("'timm==0.0.0' cannot be installed: no such version")

    monkeypatch.setattr(module, "rebuilt", impossible)
    assert asked(run(), run(), ["net_a.x"]) == {"net_a.x": "'timm==0.0.0' cannot be installed: no such version"}


def test_a_budget_that_ends_during_confirmation_is_a_reason(sides, asked, monkeypatch):
    times = iter(range(1000))
    original = module.measure_models
    monkeypatch.setattr(module, "measure_models", lambda *a, **o: original(*a, **o, clock=lambda: float(next(times))))
    answers = asked(run(), run(), seconds=7.0)
    assert [isinstance(answer, Interleaved) for answer in answers.values()] == [True, True, False, False]
    assert answers["net_d.x"] == "the budget was used up"
    assert "--embed-timeout=7" in sides.started[0][1]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """What an environment is made of, for recorded requirements of a run."""
    made = []

    def environment_for(requirements, cache, **options):
        made.append((list(requirements), options["exact"]))
        return Environment("x", sys.executable, tmp_path)

    monkeypatch.setattr(module, "environment_for", environment_for)
    here = ["numpy==2.0.0", "timm==1.0.31", "torch==2.14.1", "pytest==9.0", "rich==14.0", "embedcore==0.2.0"]

    def environment(*requirements, settings=None):
        made.clear()
        recorded = {each.split("==")[0].split(" @ ")[0]: each for each in (*here, *requirements)}
        saved_run = run(machine={**HERE, "requirements": [*recorded.values()]}, settings=settings)
        found = rebuilt(saved_run, "the baseline", tmp_path, here=lambda: here)
        assert found.name == "the baseline"
        return made[0] if made else None

    return environment


def test_an_equal_environment_is_this_one(environment):
    assert environment() is None
    assert environment("pytest==8.0", "rich==13.0", "embedcore==0.1.0") is None  # these decide no speed


def test_only_what_differs_is_installed_with_exact_versions(environment):
    assert environment("timm==1.0.20") == (["timm==1.0.20"], True)
    assert environment("timm==1.0.20", "numpy==1.26.0") == (["numpy==1.26.0", "timm==1.0.20"], True)
    assert environment("nvidia-cublas-cu12==12.1") == (["nvidia-cublas-cu12==12.1"], True)
    assert environment("rich==13.0", settings={"roster": "own.toml"}) == (["rich==13.0"], True)


def test_local_code_is_used_only_if_it_is_still_the_same(environment, tmp_path):
    (tmp_path / "my clone" / "timm").mkdir(parents=True)
    (tmp_path / "my clone" / "timm" / "__init__.py").write_text("")
    then = module.local_requirement("timm", tmp_path / "my clone")
    assert environment(then) == ([f"timm @ file://{tmp_path}/my%20clone"], True)
    (tmp_path / "my clone" / "timm" / "__init__.py").write_text("changed = 1")
    with pytest.raises(UsageError, match=r"the code of timm in .*/my clone has changed since"):
        environment(then)
    with pytest.raises(UsageError, match="torch was installed from /clone, and its code was not recorded"):
        environment("torch @ file:///clone")


def test_a_run_without_requirements_cannot_be_built_again(tmp_path):
    with pytest.raises(UsageError, match="does not contain the requirements of its environment"):
        rebuilt(run(machine=MACHINE), "the baseline", tmp_path)
