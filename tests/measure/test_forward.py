from __future__ import annotations

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from weight_casts import Casts

from embedcore.embed import embedder
from embedcore.embed.device import ARITHMETIC
from embedcore.embed.embedder import ForwardSettings
from embedcore.embed.engines.names import parse_engine
from embedcore.embed.kept import KeptEmbeddings
from embedcore.embed.reference import CpuReference
from embedcore.embed.sketch import sketch_of
from embedcore.images.load_dataset import load_dataset
from embedcore.measure import forward, measure, trials
from embedcore.measure.executors import ChildExecutor
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import attempt
from embedcore.measure.truth import GroundTruth
from embedcore.results.verdicts import pack_sketch
from embedcore.version import VERSION
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.registry import code_hash

MEASURED_ANEW = {
    "durations",
    "warmup_rounds",
    "images_per_s",
    "measured_s",
    "peak_memory_mb",
    "detail",
    "crowded",
    "stolen",
    "processes",
}


def unequal_fields(one, other):
    ones, others = one.to_json(), other.to_json()
    return {name for name in ones if ones[name] != others[name]} - MEASURED_ANEW


@pytest.fixture
def keeping(images, tmp_path):
    """Inputs with a folder for kept embeddings, empty at first."""
    return dataclasses.replace(images, embeddings_folder=tmp_path / "embeddings")


@pytest.fixture
def passes(monkeypatch):
    """The number of images of each forward pass."""
    seen, embed = [], Backbone.embed

    def counted(self, x):
        seen.append(len(x))
        return embed(self, x)

    monkeypatch.setattr(Backbone, "embed", counted)
    return seen


def test_a_kept_run_equals_the_fresh_one_and_embeds_nothing(case, images, keeping, passes):
    case = dataclasses.replace(case, batch_size=4, rounds=2)
    fresh = attempt(case, images)
    first = attempt(case, keeping)
    gmacs = [1]
    assert passes == [size for run in (fresh, first) for size in (*gmacs, *[4] * (5 + run.warmup_rounds + 2))]
    passes.clear()
    progress = []
    second = attempt(case, keeping, lambda *call: progress.append(call))
    assert passes == [*gmacs, *[4] * (second.warmup_rounds + 2)]
    assert 2 <= second.warmup_rounds <= 20
    assert [call for call in progress if call[0] == "embedding"] == [("embedding", 20, 20)]
    assert first.status == second.status == "ok", second.reason
    assert unequal_fields(fresh, first) == unequal_fields(fresh, second) == {"embeddings"}
    assert (fresh.embeddings, first.embeddings) == (None, second.embeddings)
    rows = KeptEmbeddings(keeping.embeddings_folder).read(first.embeddings, 20)
    assert first.sketch == pack_sketch(sketch_of(rows))
    assert set(first.images_per_s) == {"forward", "end_to_end"}
    assert set(second.images_per_s) == {"forward"}  # unmeasured values are absent
    assert len(second.durations) == 2
    assert "not timed" in second.detail


def test_a_child_keeps_and_finds_embeddings_too(case, keeping):
    first, second = (ChildExecutor(60).run(case, keeping) for _ in range(2))
    assert first.status == second.status == "ok", second.reason
    assert unequal_fields(first, second) == set()
    assert "end_to_end" not in second.images_per_s


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"point": "avg"}, {"precision": "bf16"}, {"protocol": "square224"}, {"model": "test_vit.r160_in1k"}],
)
def test_another_setting_is_embedded_again(case, keeping, change):
    attempt(case, keeping)
    changed = attempt(dataclasses.replace(case, **change), keeping)
    assert changed.status == "ok", changed.reason
    assert "end_to_end" in changed.images_per_s
    assert len(list(keeping.embeddings_folder.glob("*.npy"))) == 2


def test_the_key_depends_on_more_than_settings(case, dataset):
    backbone = load_backbone(case.model, weights="random")
    facts = measure.facts_of(case, backbone, GroundTruth.of(dataset), ForwardSettings(torch.device("cpu")))
    assert (facts["weights"], facts["dataset"]) == ("seed:0", dataset.fingerprint)
    assert (facts["timm"], facts["torch"], facts["device"]) == (timm.__version__, torch.__version__, "cpu")
    assert facts["embedcore"] == VERSION
    assert facts["code"] == code_hash()
    assert facts["mean"] == list(backbone.data_config.mean)
    json.dumps(facts, allow_nan=False)


def test_embeddings_that_cannot_be_kept_cost_no_result(case, images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = attempt(case, dataclasses.replace(images, embeddings_folder=tmp_path / "file"))
    assert result.status == "ok", result.reason
    assert "could not be kept" in result.detail


def test_embeddings_that_are_not_finite_are_not_kept(case, keeping, monkeypatch):
    monkeypatch.setattr(Backbone, "embed", lambda self, x: torch.full((len(x), 8), torch.nan))
    assert attempt(case, keeping).status == "nan"
    assert not keeping.embeddings_folder.exists()


def small_canary(room, monkeypatch):
    """Memory that suffices for ``room`` images where the precision is chosen."""

    def choose(spec, backbone, batch):
        refuse(batch, room)
        return "fp32", ""

    monkeypatch.setattr(embedder, "choose_precision", choose)


def small_timing(room, monkeypatch):
    """Memory that suffices for ``room`` images where rounds are timed."""
    original = measure.time_forward

    def timed(embed, batch, *others):
        refuse(batch, room)
        return original(embed, batch, *others)

    monkeypatch.setattr(measure, "time_forward", timed)


def refuse(batch, room):
    if len(batch) > room:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


class Card:
    """The memory figures of torch.cuda for a fake card: the weights, and a fixed amount for each image of a batch."""

    weights, image, trial = 1000, 10, 500

    def __init__(self, room):
        self.room, self.peak, self.shapes = room, 0, set()

    def restart(self, device):
        self.peak = self.weights

    def use(self, images):
        """A forward pass: the first of each shape tries algorithms; a batch that does not fit fails at its end."""
        self.peak = max(self.peak, self.weights + self.image * images + self.trial * (images not in self.shapes))
        self.shapes.add(images)
        if images > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("room", "fits"), [(20, 20), (12, 10)])
@pytest.mark.parametrize("smaller_in_embedding", [False, True])
def test_the_peak_on_a_card_is_that_of_the_timed_rounds(case, images, monkeypatch, room, fits, smaller_in_embedding):
    """Without canaries, trials of algorithms and failed batches. torch.cuda is a fake."""
    card, cpu = Card(room), torch.device("cpu")
    choose_settings, embed_pixels = trials.choose_settings, measure.embed_pixels
    score, embed = measure.score, Backbone.embed

    def greedy_canary(backbone, pixels, device, *others):
        chosen = choose_settings(backbone, pixels, cpu, *others)
        card.peak = 9999
        return chosen

    def halved(*arguments, batch_size, **options):
        if smaller_in_embedding:
            card.peak, batch_size = 9999, batch_size // 2
        return embed_pixels(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", card.restart)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: card.peak * 10**6)
    monkeypatch.setattr(measure, "use_device", lambda spec: torch.device("cuda", 0))
    monkeypatch.setattr(measure, "place", lambda module, device: None)
    monkeypatch.setattr(measure, "reference_on", lambda device: CpuReference())
    monkeypatch.setattr(measure, "device_lock", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(trials, "choose_settings", greedy_canary)
    monkeypatch.setattr(measure, "embed_pixels", halved)
    monkeypatch.setattr(measure, "score", lambda *sides, device, seed: score(*sides, device="cpu", seed=seed))
    monkeypatch.setattr(Backbone, "embed", lambda self, x: (embed(self, x), card.use(len(x)))[0])
    result = attempt(dataclasses.replace(case, batch_size=20), images)
    expected = fits // 2 if smaller_in_embedding else fits
    assert (result.status, result.batch_size) == ("ok", expected), result.reason
    assert result.peak_memory_mb == card.weights + card.image * expected - CpuReference().nbytes / 1e6


def test_a_factory_that_changes_how_torch_computes_changes_no_number(case, images, monkeypatch):
    seen = []
    load, choose = measure.load_backbone, trials.choose_settings

    def changing(*arguments, **options):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = False
        return load(*arguments, **options)

    def looking(*arguments):
        backends = torch.backends
        seen.append((backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark))
        return choose(*arguments)

    monkeypatch.setattr(measure, "load_backbone", changing)
    monkeypatch.setattr(trials, "choose_settings", looking)
    assert attempt(case, images).status == "ok"
    assert seen == [(ARITHMETIC["tf32"], ARITHMETIC["tf32"], ARITHMETIC["cudnn_benchmark"])]


def test_a_model_that_changes_how_torch_computes_while_it_runs_is_noted(case, images, monkeypatch):
    embed = Backbone.embed

    def changing(self, x):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark_limit", 10)
        return embed(self, x)

    assert "torch's settings" not in attempt(case, images).detail
    monkeypatch.setattr(Backbone, "embed", changing)
    assert attempt(case, images).detail.endswith("changed torch's settings while it ran: cudnn_benchmark_limit is 10")


def test_a_case_in_half_precision_casts_each_weight_once_for_timing_and_embedding(case, images, monkeypatch):
    counted, of_casts = [], ForwardSettings.context

    def counting(self, backbone):
        counted.append(Casts(backbone.module))
        context = contextlib.ExitStack()
        context.enter_context(of_casts(self, backbone))
        context.enter_context(counted[-1])
        return context

    monkeypatch.setattr(ForwardSettings, "context", counting)
    half = dataclasses.replace(case, precision="bf16", processes=1, rounds=3, batch_size=4)
    assert attempt(half, images).status == "ok"
    shared = max(counted, key=lambda casts: sum(casts.counted.values()))
    assert set(shared.counted.values()) <= {0, 1} and sum(shared.counted.values()) > 10
    assert sum(sum(casts.counted.values()) for casts in counted) == sum(shared.counted.values())


@pytest.mark.parametrize("engine", ["compile", "onnxruntime", "openvino"])
def test_each_engine_is_a_setting_of_the_case_with_the_scores_of_eager(case, images, tmp_path, monkeypatch, engine):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    quick = dataclasses.replace(case, batch_size=len(images.truth.labels), processes=1)
    usual = attempt(quick, images)
    result = attempt(dataclasses.replace(quick, engine=engine), dataclasses.replace(images, engines_folder=tmp_path))
    assert (result.status, result.engine, result.precision, result.device) == ("ok", engine, "fp32", "cpu")
    assert (result.scores, result.verdicts) == (usual.scores, usual.verdicts)
    assert usual.engine == "eager" and usual.compile_s is None and result.compile_s > 0
    assert result.weights_mb == pytest.approx(usual.weights_mb, rel=0.2)
    assert any(path.is_file() for path in tmp_path.rglob("*")), "nothing is kept for the next process"


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_a_mode_of_compile_is_the_one_that_torch_is_given(case, images, monkeypatch, mode):
    given = []
    monkeypatch.setattr(torch, "compile", lambda embed, **options: (given.append(options["mode"]), embed)[1])
    result = attempt(dataclasses.replace(case, engine=parse_engine(f"compile:{mode}")), images)
    assert result.status == "ok" and set(given) == {mode}


def test_int8_is_calibrated_on_references(case, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(forward, "calibration_batches", lambda *arguments: given.append(arguments[3]) or iter(()))
    images = np.zeros((4, 8, 8, 3), np.uint8)
    truth = GroundTruth.of(load_dataset([*images], [*"aabb"], roles=["query", "reference"] * 2))
    inputs = CaseInputs(truth, SimpleNamespace(), engines_folder=tmp_path)
    backbone = load_backbone(case.model, weights="random")
    settings = ForwardSettings(torch.device("cpu"), "int8", engine="openvino")
    [*forward.forward_pass_of(case, inputs, backbone, settings)._inputs.calibration(1)]
    assert [chosen.tolist() for chosen in given] == [[1, 3]]


@pytest.mark.parametrize("shrink", [small_canary, small_timing])
def test_memory_that_runs_out_in_the_canary_or_the_timing_halves_the_batch(case, images, monkeypatch, shrink):
    roomy = attempt(dataclasses.replace(case, batch_size=16), images)
    shrink(5, monkeypatch)
    result = attempt(dataclasses.replace(case, batch_size=16), images)
    assert result.status == "ok", result.reason
    assert (result.batch_size, result.batch_decayed) == (4, True)
    assert (roomy.batch_size, roomy.batch_decayed) == (16, False)
    assert result.images_per_s["forward"] == pytest.approx(4 / np.median(result.durations))
    assert result.scores == pytest.approx(roomy.scores)


def test_rounds_are_timed_before_embedding_and_again_after_halving(case, images, monkeypatch):
    """So the end-to-end rate excludes the work that a card does only for its first batch."""
    calls, timed, embedded = [], measure.time_forward, measure.embed_pixels
    monkeypatch.setattr(measure, "time_forward", lambda *a: (calls.append(("time", len(a[1]))), timed(*a))[1])

    def embed(*arguments, batch_size, **options):
        calls.append(("embed", batch_size))
        return embedded(*arguments, batch_size=min(batch_size, room), **options)

    monkeypatch.setattr(measure, "embed_pixels", embed)
    room = 16
    attempt(dataclasses.replace(case, batch_size=16), images)
    assert calls == [("time", 16), ("embed", 16)]
    calls.clear()
    room = 4
    result = attempt(dataclasses.replace(case, batch_size=16), images)
    assert calls == [("time", 16), ("embed", 16), ("time", 4)]
    assert (result.batch_size, result.batch_decayed) == (4, True)
    assert result.images_per_s["forward"] == pytest.approx(4 / np.median(result.durations))


@pytest.mark.parametrize("shrink", [small_canary, small_timing])
def test_too_little_memory_for_one_image_is_oom(case, images, monkeypatch, shrink):
    shrink(0, monkeypatch)
    result = attempt(case, images)
    assert (result.status, result.outcome) == ("oom", "skip")
    assert result.reason.startswith("OutOfMemoryError: CUDA out of memory; peak memory ")
    assert result.peak_memory_mb is not None  # 0 where the heap of this process had room already


def test_scores_alone_need_no_timing(case, images):
    timed, alone = (attempt(dataclasses.replace(case, throughput=throughput), images) for throughput in (True, False))
    assert alone.status == "ok", alone.reason
    assert alone.scores == timed.scores and alone.batch_size == timed.batch_size
    assert alone.durations == alone.processes == () and set(alone.images_per_s) == {"end_to_end"}


def test_single_images_are_timed_on_request(case, images):
    result = attempt(dataclasses.replace(case, latency=True), images)
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p99"]
    assert attempt(case, images).latency_ms == {}
