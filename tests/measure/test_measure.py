from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from embedcore.embed.library import embed_dataset
from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import UnsupportedModel, UsageError, WeightsGated, WeightsUnavailable
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import attempt
from embedcore.measure.outcome import NotFiniteError, TooLargeError, reason_of, status_of
from embedcore.results.verdicts import unpack_outcomes, unpack_sketch, unpack_verdicts
from embedcore.retrieval.probes import probe
from embedcore.zoo.backbone import load_backbone


def test_result_contains_the_measurement(case, images, dataset):
    result = attempt(case, images)
    assert result.status == "ok", result.reason
    backbone = load_backbone(case.model, weights="random")
    embeddings = embed_dataset(backbone, dataset)
    similarities = embeddings @ embeddings.T
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")
    hits = dataset.labels[order] == dataset.labels[:, None]
    assert result.scores["acc"] == pytest.approx(hits[:, 0].mean())
    assert result.scores["acc5"] == pytest.approx(hits[:, :5].sum(axis=1).mean() / 5)
    hits5, rank1 = unpack_verdicts(result.verdicts)
    assert hits5.tolist() == hits[:, :5].sum(axis=1).tolist()
    assert rank1.tolist() == hits[:, 0].tolist()
    assert result.dim == embeddings.shape[1]
    assert result.pretraining is None  # random weights were trained on nothing, whatever the tag says
    assert result.params_m == pytest.approx(sum(p.numel() for p in backbone.module.parameters()) / 1e6)
    assert result.gmacs > 0
    assert unpack_sketch(result.sketch).shape == (8, 64)
    low, high = result.ci95["acc"]
    assert low <= result.scores["acc"] <= high
    batch_seconds = np.median(result.durations)
    assert result.images_per_s["forward"] == pytest.approx(result.batch_size / batch_seconds)
    assert (result.precision, result.device, result.batch_decayed) == ("fp32", "cpu", False)
    assert result.channels_last
    assert 2 <= result.warmup_rounds <= 20
    assert sys.platform != "linux" or result.crowded >= 0
    assert 0 <= result.peak_memory_mb < 1000  # what this process grew by, not torch's default
    assert (result.architecture, result.tag) == ("test_resnet", "r160_in1k")


def test_result_records_preprocessing_and_source_of_weights(case, images, tmp_path):
    random = attempt(case, images)
    half = [0.5, 0.5, 0.5]
    done = {"crop_pct": 0.95, "crop_mode": "center", "interpolation": "bilinear", "mean": half, "std": half}
    assert random.transform == done
    assert (random.default_tag, "address" in random.weights) == ("r160_in1k", False)
    save_file(load_backbone(case.model, weights="random").module.state_dict(), tmp_path / f"{case.model}.safetensors")
    squared = attempt(dataclasses.replace(case, weights=str(tmp_path), protocol="square224"), images)
    assert squared.weights["address"] == "timm/test_resnet.r160_in1k"
    assert squared.transform == done | {"crop_pct": 1.0, "crop_mode": "squash", "square": 224}


def test_settings_are_followed(case, images):
    changed = dataclasses.replace(case, batch_size=4, rounds=2, precision="bf16", seed=1)
    result = attempt(changed, images)
    assert (result.batch_size, len(result.durations), result.precision) == (4, 2, "bf16")
    assert result.weights == {"source": "random", "id": "seed:1"}
    assert result.scores != attempt(case, images).scores or result.sketch != attempt(case, images).sketch


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"model": "resnet18.a1_in1k", "weights": "auto"}, "no-weights", "resnet18.a1_in1k"),
        ({"point": "cls"}, "unsupported", "cls"),
        ({"max_params": 0.1}, "too-large", "0.1 million parameters"),
        ({"device": "cuda:9"}, "error", "cuda:9"),
    ],
)
def test_unmeasurable_cases_have_a_status_and_a_reason(case, images, monkeypatch, change, status, reason):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = attempt(dataclasses.replace(case, **change), images)
    assert result.status == status
    assert reason in result.reason
    assert "\n" not in result.reason


class Pixels:
    """Pixels in memory that fail, or for which the embeddings are not finite."""

    def __init__(self, shape, error=None):
        self.shape, self.error = shape, error

    def __len__(self):
        return self.shape[0]

    def read(self, start, stop):
        if self.error is not None:
            raise self.error
        return np.zeros((stop - start, *self.shape[1:]), dtype=np.uint8)


@pytest.mark.parametrize("error", [MemoryError("no more"), torch.cuda.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_runs_out_with_one_image_is_oom(case, images, shape, error):
    result = attempt(dataclasses.replace(case, batch_size=2), CaseInputs(images.truth, Pixels(shape, error)))
    assert (result.status, result.outcome) == ("oom", "skip")
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("cannot run under a TorchDispatchMode"), MemoryError("no more")])
def test_a_count_that_fails_costs_no_case(case, images, monkeypatch, error):
    from embedcore.zoo.backbone import Backbone

    embed = Backbone.embed

    def only_without_a_mode(self, x):
        if torch.utils._python_dispatch.is_in_torch_dispatch_mode():
            raise error
        return embed(self, x)

    monkeypatch.setattr(Backbone, "embed", only_without_a_mode)
    result = attempt(case, images)
    assert (result.status, result.gmacs) == ("ok", None)
    assert result.detail == f"GMACs could not be counted: {type(error).__name__}: {error}"


def test_a_fault_of_the_model_is_not_blamed_on_counting(case, images, monkeypatch):
    from embedcore.zoo.backbone import Backbone

    def embed(self, x):
        raise UnsupportedModel("gives a list")

    monkeypatch.setattr(Backbone, "embed", embed)
    result = attempt(case, images)
    assert (result.status, result.reason) == ("unsupported", "gives a list")


def test_nan_embeddings_are_a_failure(case, images, monkeypatch):
    from embedcore.zoo.backbone import Backbone

    monkeypatch.setattr(Backbone, "embed", lambda self, x: torch.full((len(x), 8), torch.nan))
    result = attempt(case, images)
    assert (result.status, result.outcome) == ("nan", "fail")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (WeightsUnavailable("none here"), "no-weights", "none here"),
        (WeightsGated("accept first"), "gated", "accept first"),
        (UnsupportedModel("no class token"), "unsupported", "no class token"),
        (TooLargeError("400 M"), "too-large", "400 M"),
        (NotFiniteError("NaN"), "nan", "NaN"),
        (UsageError("no such device"), "error", "no such device"),
        (KeyError("x"), "error", "KeyError: 'x'"),
        (RuntimeError("two\nlines"), "error", "RuntimeError: two lines"),
        (ZeroDivisionError(), "error", "ZeroDivisionError"),
    ],
)
def test_status_and_reason_of_an_exception(error, status, reason):
    assert (status_of(error), reason_of(error)) == (status, reason)


def test_probes_are_scored_on_request(case, images, dataset, monkeypatch):
    calls = []

    def seen(*sides, **settings):
        calls.append((sides, settings, probe(*sides, **settings)))
        return calls[-1][2]

    monkeypatch.setattr("embedcore.measure.measure.probe", seen)
    result = attempt(dataclasses.replace(case, probe=True), images)
    assert result.status == "ok", result.reason
    (((rows, labels), settings, expected),) = calls
    embeddings = embed_dataset(load_backbone(case.model, weights="random"), dataset)
    np.testing.assert_allclose(rows, embeddings, atol=1e-5)
    assert labels.tolist() == dataset.labels.tolist() and settings == {"seed": case.seed}
    assert list(expected.outcomes) == ["probe_ridge", "probe_logistic", "few_shot_1", "few_shot_2"]
    assert {name: result.scores[name] for name in expected.values} == expected.values
    assert {name: result.ci95[name] for name in expected.ci95} == expected.ci95
    for name, outcomes in expected.outcomes.items():
        found = unpack_outcomes(result.probe_verdicts[name])
        assert (found.right == outcomes.right).all() and (found.judged == outcomes.judged).all()
    plain = attempt(case, images)
    assert len(calls) == 1 and plain.probe_verdicts == {} and not plain.scores.keys() & expected.values.keys()
    monkeypatch.setattr("embedcore.retrieval.logistic.find_spec", lambda name: None)
    without = attempt(dataclasses.replace(case, probe=True), images)
    assert "probe_logistic left out: it needs scikit-learn" in without.detail
    assert "probe_ridge" in without.scores and "probe_logistic" not in without.scores
