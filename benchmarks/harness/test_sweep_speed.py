"""A sweep of five models over a folder of JPEG photos, against timm's own loader and model.

The limit is decoding each photo once and the raw forward passes. The peer runs as timm's inference script drives it:
once with the script's defaults (batch 256), once with ``-b 16 --channels-last``.
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


def seconds(way: str, folder: Path, cache: Path, batch_size: int = 16, channels_last: bool = True) -> float:
    environment = dict(os.environ)
    if way == "ours":  # the environment of every measuring child
        environment["GLIBC_TUNABLES"] = tunables_with(environment.get("GLIBC_TUNABLES"))
    script = str(Path(__file__).with_name("sweep.py"))
    arguments = [way, str(folder), str(cache), str(batch_size), "yes" if channels_last else "no", *TAGS]
    done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


@pytest.mark.parametrize(
    ("batch_size", "channels_last", "target"), [(256, False, 2.5), (16, True, 1.3)], ids=["defaults", "tuned"]
)
def test_sweep_over_photos(benchmark, photos, tmp_path, batch_size, channels_last, target):
    ours, peer = [], []

    def pair():
        ours.append(seconds("ours", photos, tmp_path / f"cache{len(ours)}"))
        peer.append(seconds("loader", photos, tmp_path, batch_size, channels_last))

    benchmark.pedantic(pair, rounds=PAIRS)
    benchmark.extra_info.update(
        peer=f"timm loader and model, -b {batch_size}{' --channels-last' if channels_last else ''}",
        ours_s=statistics.median(ours),
        peer_s=statistics.median(peer),
        ratio=statistics.median(peer) / statistics.median(ours),
        target=target,
    )
