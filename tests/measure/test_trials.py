"""Trial passes of a model run once; a later case takes their outcome unless what may change it has changed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from embedcore.images.ledger import Ledger
from embedcore.measure import trials
from embedcore.measure.measure import attempt
from tests.measure.test_forward import unequal_fields


@pytest.fixture
def remembering(images, tmp_path):
    return dataclasses.replace(images, ledger=Ledger(tmp_path))


@pytest.fixture
def tried(monkeypatch):
    """The models that ran a trial."""
    seen, choose = [], trials.choose_settings

    def choosing(backbone, *arguments):
        seen.append(backbone.name)
        return choose(backbone, *arguments)

    monkeypatch.setattr(trials, "choose_settings", choosing)
    return seen


@pytest.fixture
def counted(monkeypatch):
    """The models whose GMACs were counted."""
    seen, count = [], trials.count_gmacs

    def counting(backbone):
        seen.append(backbone.name)
        return count(backbone)

    monkeypatch.setattr(trials, "count_gmacs", counting)
    return seen


def test_a_second_case_takes_the_outcome_of_the_first(case, remembering, tried):
    first = attempt(case, remembering)
    second = attempt(case, remembering)
    assert first.status == second.status == "ok", first.reason + second.reason
    assert tried == [case.model] and first.gmacs
    assert not unequal_fields(first, second)


@pytest.mark.parametrize(
    "changes", [{"precision": "bf16"}, {"batch_size": 3}, {"seed": 1}, {"point": "avg"}, {"channels_last": False}]
)
def test_another_setting_is_another_trial(case, remembering, tried, changes):
    attempt(case, remembering)
    changed = dataclasses.replace(case, **changes)
    result = attempt(changed, remembering)
    assert result.status == "ok", result.reason
    assert len(tried) == 2
    assert not unequal_fields(result, attempt(changed, dataclasses.replace(remembering, ledger=None)))


@pytest.mark.parametrize("what", ["timm", "machine", "bf16"])
def test_another_environment_is_another_trial(case, remembering, tried, monkeypatch, what):
    attempt(case, remembering)
    if what == "timm":
        monkeypatch.setattr("embedcore.measure.forward.version", lambda name: "9.9")
    elif what == "machine":
        monkeypatch.setattr(trials, "device_name", lambda device: "another processor")
    else:
        monkeypatch.setattr(trials, "has_bf16", lambda device: "another answer")
    attempt(case, remembering)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("changes", "times"),
    [({"precision": "bf16"}, 1), ({"batch_size": 3}, 1), ({"seed": 1}, 1), ({"point": "avg"}, 2)],
    ids=lambda value: str(value),
)
def test_the_work_of_an_architecture_is_counted_once(case, remembering, counted, changes, times):
    first = attempt(case, remembering)
    second = attempt(dataclasses.replace(case, **changes), remembering)
    assert (len(counted), second.gmacs) == (times, first.gmacs)


def test_the_reason_for_fp32_is_kept_and_in_every_result(case, remembering, tried, monkeypatch):
    why = "fp32: bf16 runs at 1.04 times its speed"
    monkeypatch.setattr("embedcore.embed.embedder.choose_precision", lambda *_: ("fp32", why))
    for _ in range(2):
        result = attempt(case, remembering)
        assert (result.precision, result.detail) == ("fp32", why), result.reason
        assert result.extra_info()["detail"] == why
    assert len(tried) == 1


def test_bf16_of_an_earlier_trial_is_used(case, remembering, monkeypatch):
    monkeypatch.setattr("embedcore.embed.embedder.choose_precision", lambda *_: ("bf16", ""))
    first = attempt(case, remembering)
    monkeypatch.undo()
    again = attempt(case, remembering)
    assert (first.precision, again.precision) == ("bf16", "bf16")
    assert again.sketch == first.sketch and again.scores == first.scores


@pytest.mark.parametrize("problem", ["memory", "counter"])
def test_the_outcome_of_a_trial_with_a_problem_is_not_kept(case, remembering, monkeypatch, problem):
    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    def small_canary(spec, backbone, batch):
        return fail() if len(batch) > 2 else ("fp32", "")

    if problem == "memory":
        monkeypatch.setattr("embedcore.embed.embedder.choose_precision", small_canary)
    else:
        monkeypatch.setattr(trials, "count_gmacs", fail)
    kept = []
    monkeypatch.setattr(Ledger, "keep_trial", lambda self, key, outcome: kept.append(key))
    result = attempt(case, remembering)
    assert result.status == "ok", result.reason
    assert not [key for key in kept if key.startswith("trial ")] and result.batch_decayed == (problem == "memory")
