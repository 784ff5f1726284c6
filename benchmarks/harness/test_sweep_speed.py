"""A sweep of five models over a folder of JPEG photos, against timm's own loader and model.

The limit is decoding each photo once and the raw forward passes. The peer runs as timm's inference script drives it:
with the script's defaults (batch 256), with ``-b 16 --channels-last``, and on processors that multiply bf16 also with
``--amp --amp-dtype bfloat16``. There embedcore's own sweep in fp32 is a peer of the one in ``auto`` too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from embedcore.embed.precision import multiplies_bf16
from embedcore.forkserver import tunables_with

pytestmark = pytest.mark.embed_harness

PHOTOS, CLASSES = 160, 8
TAGS = (
    "tf_efficientnet_lite0.in1k",
    "mobilenetv3_large_100.ra_in1k",
    "resnet18.a1_in1k",
    "resnet50.tv_in1k",
    "regnety_008.pycls_in1k",
)
PAIRS = 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files of 500 x 375, cropped at random from the two photos in scikit-learn."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    originals = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(PHOTOS):
        original = originals[number % 2]
        scale = rng.uniform(0.5, 1.0)
        width, height = int(original.width * scale), int(original.height * scale)
        left, top = rng.integers(original.width - width + 1), rng.integers(original.height - height + 1)
        photo = original.resize((500, 375), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        path = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo.save(path, quality=90)
    return folder


def seconds(way: str, folder: Path, cache: Path, precision: str, batch_size: int = 16, layout: str = "yes"):
    """Return the seconds of a sweep and the precision of each model."""
    environment = dict(os.environ)
    if way == "ours":  # the environment of every measuring child
        environment["GLIBC_TUNABLES"] = tunables_with(environment.get("GLIBC_TUNABLES"))
    script = str(Path(__file__).with_name("sweep.py"))
    arguments = [way, str(folder), str(cache), precision, str(batch_size), layout, *TAGS]
    done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    sweep = json.loads(done.stdout.splitlines()[-1])
    return sweep["seconds"], sweep["precisions"]


DEFAULTS, TUNED, TUNED_AMP = ("fp32", 256, "no"), ("fp32", 16, "yes"), ("bf16", 16, "yes")
PEERS = (
    ("fp32", ("loader", *DEFAULTS), 2.5),
    ("fp32", ("loader", *TUNED), 1.3),
    # auto pays for the canary of each model; bf16 is auto once the answers are kept.
    *((precision, ("ours", "fp32"), 2) for precision in ("auto", "bf16")),
    *((precision, ("loader", *DEFAULTS), 5) for precision in ("auto", "bf16")),
    *((precision, ("loader", *TUNED_AMP), 1.5) for precision in ("auto", "bf16")),
)


@pytest.mark.parametrize(
    ("precision", "peer", "target"), PEERS, ids=[f"{ours}-{'_'.join(map(str, peer))}" for ours, peer, _ in PEERS]
)
def test_sweep_over_photos(benchmark, photos, tmp_path, precision, peer, target):
    if precision != "fp32" and not multiplies_bf16():
        pytest.skip("this processor does not multiply bf16")
    ours, others = [], []
    way, *settings = peer

    def pair():
        number = len(ours)
        ours.append(seconds("ours", photos, tmp_path / f"cache{number}", precision))
        others.append(seconds(way, photos, tmp_path / f"peer{number}", *settings))

    benchmark.pedantic(pair, rounds=PAIRS)
    ours_s = statistics.median(duration for duration, _ in ours)
    peer_s = statistics.median(duration for duration, _ in others)
    benchmark.extra_info.update(
        peer=" ".join(map(str, peer)),
        ours_s=ours_s,
        peer_s=peer_s,
        ratio=peer_s / ours_s,
        precisions=dict(zip(TAGS, ours[-1][1], strict=True)),
        target=target,
    )
