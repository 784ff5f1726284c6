"""Check on a real device what the CPU tests simulate: ``pytest benchmarks/harness/test_device.py --embed-device cuda``.

All measurements use random weights and noise, so nothing is downloaded. The table at the end is for docs/gpu.md.
Requirements are asserted; durations are only shown. ``test_pipeline_speed.py`` compares the pipeline with the raw
forward pass on a CPU, in a process that is set up for it.
"""

from __future__ import annotations

import functools
import gc
import math
import statistics
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedcore.embed.device import choose_channels_last, place
from embedcore.embed.embedder import ForwardSettings, auto_batch_size, choose_settings, embed_pixels, first_batch
from embedcore.embed.memory import PeakMemory
from embedcore.embed.pipeline import lane_of, run, spans_of
from embedcore.embed.precision import CANARY_COSINE, CANARY_IMAGES, autocast, canary_cosine, choose_precision
from embedcore.embed.timing import host_seconds, time_forward
from embedcore.retrieval.accelerator import search_on_device
from embedcore.retrieval.search import nearest
from embedcore.zoo.backbone import load_backbone

pytestmark = pytest.mark.embed_harness

ROUNDS, PAIRS = 5, 3
BATCH_SIZE = {"cpu": 8}  # on other devices that of a case
KNOWN_MB = 256
STAGES = ("host_buffer", "upload", "compute", "fetch", "rows")  # of a lane, see embed/pipeline.py
BACKBONES = {"cpu": ["test_resnet"]}
ON_A_CARD = ["resnet50", "vit_small_patch16_224"]
MINIATURES = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]
ARCHITECTURES = [
    "convnext_atto",
    "densenet121",
    "edgenext_xx_small",
    "efficientnet_b0",
    "eva02_tiny_patch14_224",
    "fastvit_t8",
    "ghostnet_100",
    "levit_128s",
    "mixer_s32_224",
    "mobilenetv3_small_100",
    "mobilevit_xxs",
    "poolformer_s12",
    "regnety_002",
    "repvgg_a0",
    "resmlp_12_224",
    "resnet18",
    "tiny_vit_5m_224",
    "twins_svt_small",
    "vit_tiny_patch16_224",
    "xcit_nano_12_p16_224",
]


class Noise:
    """``n`` images of noise, held in memory."""

    def __init__(self, backbone, n: int) -> None:
        h, w = backbone.data_config.input_size[1:]
        self.pixels = np.random.default_rng(0).integers(0, 256, (n, h, w, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.pixels[start:stop]


class Ready:
    """A backbone on the device, prepared as in a case, and some batches of images."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self.batches = 4 if device.type == "cpu" else 16
        size = auto_batch_size(BATCH_SIZE.get(device.type, "auto"), device, 2**31)
        self.backbone = load_backbone(name, weights="random")
        self.stored = Noise(self.backbone, size * self.batches)
        self.settings, self.size = choose_settings(self.backbone, self.stored, device, "auto", size)
        self.spans = list(spans_of(0, len(self.stored), self.size))

    def computing(self):
        return autocast(self.settings.precision, self.device, self.backbone.module)

    def forward_seconds(self, rounds: int) -> float:
        """Return the seconds of a batch, measured as in the timing rounds of a case."""
        batch = first_batch(self.backbone, self.stored, self.size, self.settings)
        with self.computing():
            return statistics.median(time_forward(self.backbone.embed, batch, rounds).durations)

    def pipeline(self, **options):
        return embed_pixels(self.backbone, self.stored, self.settings, batch_size=self.size, **options)


@functools.lru_cache(maxsize=1)
def ready(name: str, device: torch.device) -> Ready:
    return Ready(name, device)


@pytest.fixture
def first(proof):
    """The backbone of the tests that need only one."""
    return ready(BACKBONES.get(proof.device.type, ON_A_CARD)[0], proof.device)


def wait_for(device: torch.device) -> None:
    getattr(torch, device.type).synchronize()  # torch.cpu has it too


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def test_embed_rate_over_forward_rate(proof):
    for name in reversed(
        BACKBONES.get(proof.device.type, ON_A_CARD)
    ):  # so that the first one stays cached for the other tests
        case = ready(name, proof.device)
        case.pipeline()
        pairs = [(case.pipeline().seconds, case.forward_seconds(case.batches)) for _ in range(PAIRS)]
        pipeline, forward = (statistics.median(column) for column in zip(*pairs, strict=True))
        embed_rate, forward_rate = len(case.stored) / pipeline, case.size / forward
        proof.add(
            name,
            f"{embed_rate:.0f} img/s",
            f"forward {forward_rate:.0f}",
            f"{embed_rate / forward_rate:.2f}, {case.settings.precision}",
        )


def test_stages_and_their_overlap(proof, first):
    lanes = []

    def kept_lane(*arguments):
        lanes.append(lane_of(*arguments))
        return lanes[-1]

    embedded = first.pipeline(lane_of=kept_lane)
    assert embedded.finite
    lane = lanes[-1]
    seconds: dict[str, list[float]] = {"read": [], "copy": [], "compute": [], "fetch": []}

    def timed(stage, call):
        begin = time.perf_counter()
        result = call()
        wait_for(first.device)
        seconds[stage].append(time.perf_counter() - begin)
        return result

    alone = []
    with first.computing():
        for span in first.spans:
            host = timed("read", lambda: lane.host_buffer(span, 0))  # noqa: B023
            batch = timed("copy", lambda: lane.upload(host, 0))  # noqa: B023
            output = timed("compute", lambda: lane.compute(batch))  # noqa: B023
            alone.append(timed("fetch", lambda: lane.rows(lane.fetch(output))))  # noqa: B023
    pipeline = statistics.median(first.pipeline().seconds for _ in range(PAIRS))

    for stage, each in seconds.items():
        proof.add(f"{stage}, batch of {first.size}", ms(statistics.median(each)), "", "")
    total = sum(map(sum, seconds.values()))
    most = total / max(map(sum, seconds.values()))
    verdict = f"{total / pipeline:.2f}, most {most:.2f}" if lane.slots else f"{total / pipeline:.2f}, inline"
    proof.add(f"overlap, {len(first.spans)} batches", f"sum {ms(total)}", f"pipeline {ms(pipeline)}", verdict)
    # Differences of entries of unit rows; a card may sum in another order each time.
    assert np.abs(embedded.embeddings - np.concatenate(alone)).max() < 1e-3


def test_order_of_the_lane(proof, first):
    """Each batch's rows are its own, and are awaited only after the next batches have started."""

    def sums(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.int32).sum(dim=(1, 2)).float()  # below 2^24, so exact

    lane = lane_of(first.device, first.stored.read, lambda pixels: pixels, sums, first.size)
    calls, counts = [], Counter()

    def noting(stage, call):
        def noted(*arguments):
            calls.append((stage, counts[stage]))
            counts[stage] += 1
            return call(*arguments)

        return noted

    for stage in STAGES:
        setattr(lane, stage, noting(stage, getattr(lane, stage)))
    spans, rows = [], []
    run(lane, first.spans, lambda span, got: (spans.append(span), rows.append(got.copy())))

    assert spans == first.spans
    expected = first.stored.pixels.sum(axis=(1, 2), dtype=np.int64)
    assert np.array_equal(np.concatenate(rows), expected)
    last = len(spans) - 1
    for i in range(len(spans)):
        assert calls.index(("compute", min(i + lane.flying, last))) < calls.index(("rows", i))
    if lane.slots:
        verdict = f"{lane.flying} in flight"
    else:  # the CPU: all of a batch before the next
        assert calls == [(stage, i) for i in range(len(spans)) for stage in STAGES]
        verdict = "inline"
    proof.add("rows of the pipeline", f"{len(expected)} equal", "numpy", verdict)


def test_clock_of_the_rounds(proof, first):
    batch = first_batch(first.backbone, first.stored, first.size, first.settings)
    with first.computing():
        timed = time_forward(first.backbone.embed, batch, ROUNDS)
        wall = [host_seconds(first.backbone.embed, batch) for _ in range(ROUNDS)]
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in timed.durations)
    clock = "events" if first.device.type == "cuda" else "host clock"
    ours, theirs = statistics.median(timed.durations), statistics.median(wall)
    proof.add(f"a round by {clock}", ms(ours), f"wall {ms(theirs)}", f"{ours / theirs:.3f}")
    proof.add("warm-up rounds", str(timed.warmups), "2 to 20", "")
    assert 2 <= timed.warmups <= 20


def test_bf16_against_fp32(proof):
    on_cpu = proof.device.type == "cpu"
    names, images = MINIATURES if on_cpu else ARCHITECTURES, CANARY_IMAGES[proof.device.type]
    cosines, fallen = {}, []
    for name in names:
        backbone = load_backbone(name, weights="random")
        place(backbone.module, proof.device)
        few = first_batch(backbone, Noise(backbone, images), images, ForwardSettings(proof.device))
        cosines[name] = canary_cosine(backbone, few, "bf16")
        if choose_precision("auto", backbone, few)[0] == "fp32":
            fallen.append(name)
    lowest = min(cosines, key=cosines.__getitem__)
    proof.add(f"bf16 of {len(names)} architectures", f"{cosines[lowest]:.5f}", "fp32", f"{len(fallen)} take fp32")
    for name in [lowest, *(name for name in fallen if not on_cpu and name != lowest)]:
        proof.add(name, f"{cosines[name]:.5f}", "lowest cosine", "fp32" if name in fallen else "bf16")
    for name, cosine in cosines.items():
        assert math.isfinite(cosine), name
        assert cosine >= CANARY_COSINE or name in fallen, (name, cosine)


@pytest.mark.parametrize("kind", ["no structure", "narrow cone"])
def test_search_against_the_cpu(proof, kind):
    n, dim, k = (4000, 128, 20) if proof.device.type == "cpu" else (20000, 512, 20)
    rows = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
    rows += np.float32(4.0 if kind == "narrow cone" else 0.0)  # cosines of 0.94
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries, references = rows[: n // 4], rows[n // 4 :]

    def on_device():
        if proof.device.type == "cpu":  # the code of the devices, on the CPU
            return search_on_device(queries, references, k, "cpu", tile=1024)
        found = nearest(queries, references, k, device=str(proof.device))
        return found.indices, found.similarities

    on_device()
    begin = time.perf_counter()
    indices, similarities = on_device()
    middle = time.perf_counter()
    expected = nearest(queries, references, k)
    end = time.perf_counter()
    equal = np.array_equal(indices, expected.indices)
    off = float(np.abs(similarities - expected.similarities).max())
    proof.add(f"search, {kind}", ms(middle - begin), f"cpu {ms(end - middle)}", "equal" if equal else "indices differ")
    assert equal
    assert off <= 1e-13


def test_memory_figure(proof, first):
    on_card = first.device.type == "cuda"
    if not on_card and sys.platform != "linux":
        pytest.skip("this system reports only the growth of the resident peak, not that of one allocation")
    gc.collect()
    with PeakMemory() as memory:
        memory.restart(first.device)
        before = memory.mb
        known = torch.ones(KNOWN_MB * 10**6, dtype=torch.uint8, device=first.device if on_card else "cpu")
        wait_for(first.device)
        grown = memory.mb - before
        del known
    if on_card:
        with PeakMemory() as forward_memory:
            forward_memory.restart(first.device)
            first.forward_seconds(1)
            figure = forward_memory.mb
        allocated = torch.cuda.max_memory_allocated(first.device) / 1e6
        proof.add(
            "peak of the forward pass", f"{figure:.0f} MB", f"torch {allocated:.0f} MB", f"{figure / allocated:.2f}"
        )
        assert figure == pytest.approx(allocated, rel=0.1)
    proof.add(f"{KNOWN_MB} MB allocated", f"{grown:.0f} MB", f"{KNOWN_MB} MB", f"{grown / KNOWN_MB:.2f}")
    assert grown == pytest.approx(KNOWN_MB, rel=0.1)


def test_channels_last_canary(proof, first):
    backbone, device = first.backbone, first.device
    timed = {}

    def seconds(channels_last):
        place(backbone.module, device, channels_last=channels_last)
        batch = first_batch(backbone, first.stored, first.size, ForwardSettings(device, "fp32", channels_last))
        with autocast("fp32", device, backbone.module):
            timed[channels_last] = statistics.median(time_forward(backbone.embed, batch, ROUNDS).durations)
        return timed[channels_last]

    try:
        chosen = choose_channels_last(device, "fp32", seconds)
        for channels_last in {True, False} - set(timed):
            seconds(channels_last)
    finally:
        place(backbone.module, device, channels_last=first.settings.channels_last)
    assert device.type != "cuda" or chosen == (timed[True] < timed[False])
    proof.add(
        "channels-last, fp32",
        ms(timed[True]),
        f"torch's {ms(timed[False])}",
        f"{timed[False] / timed[True]:.2f}, {'taken' if chosen else 'left'}",
    )
    proof.add("cudnn.benchmark", "on" if torch.backends.cudnn.benchmark else "off", "on", "")
    assert torch.backends.cudnn.benchmark


def test_table_can_be_pasted(proof):
    assert max(map(len, proof.table().splitlines())) <= 80
