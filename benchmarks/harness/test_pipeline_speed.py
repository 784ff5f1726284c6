"""The embedding pipeline against its limit, the raw forward pass of the same model on prepared inputs.

Both alternate in one process that is set up like a measuring child (see ``embedcore.forkserver``).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest

from embedcore.forkserver import tunables_with

pytestmark = pytest.mark.embed_harness

SCRIPT = """
import json, sys, time
import numpy as np, torch
from embedcore.embed.device import place
from embedcore.embed.embedder import ForwardSettings, embed_pixels, first_batch
from embedcore.zoo.backbone import load_backbone

tag, batch_size, batches, pairs = sys.argv[1], 16, 8, 6
device = torch.device("cpu")
backbone = load_backbone(tag, weights="random")
place(backbone.module, device)

class Stored:
    def __init__(self):
        h, w = backbone.data_config.input_size[1:]
        self.pixels = np.random.default_rng(0).integers(0, 256, (batch_size * batches, h, w, 3), dtype=np.uint8)
    def __len__(self):
        return len(self.pixels)
    def read(self, start, stop):
        return self.pixels[start:stop]

stored = Stored()
ready = first_batch(backbone, stored, batch_size, ForwardSettings(device))
def raw():
    with torch.no_grad():
        begin = time.perf_counter()
        for _ in range(batches):
            backbone.embed(ready)
        return time.perf_counter() - begin
def pipeline():
    return embed_pixels(backbone, stored, ForwardSettings(device), batch_size=batch_size).seconds
raw(), pipeline()
print(json.dumps([(raw(), pipeline()) for _ in range(pairs)]))
"""


@pytest.mark.parametrize(
    "tag",
    ["tf_efficientnet_lite0.in1k", "mobilenetv3_large_100.ra_in1k", "resnet50.tv_in1k"],
    ids=["lite0", "mobile", "50"],
)
def test_pipeline_over_raw_forward(benchmark, tag):
    environment = dict(os.environ, GLIBC_TUNABLES=tunables_with(os.environ.get("GLIBC_TUNABLES")))
    timed = []

    def run():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, tag], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        timed.extend(json.loads(done.stdout.splitlines()[-1]))

    benchmark.pedantic(run, rounds=1)
    raw, pipeline = (statistics.median(column) for column in zip(*timed, strict=True))
    benchmark.extra_info.update(
        backbone=tag, peer="raw forward pass", ours_s=pipeline, peer_s=raw, ratio=raw / pipeline, target=0.95
    )
