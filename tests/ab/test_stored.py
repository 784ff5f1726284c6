"""`embedcore ab --index`: both sides embed all images, with a mini model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcore.ab.compare_sides import judge_sides
from embedcore.ab.environments import Environment
from embedcore.ab.outcome import Outcome
from embedcore.ab.sides import Side
from embedcore.compare.limits import read_limits
from embedcore.compare.stored_embeddings import StoredEmbeddings
from embedcore.embed.kept import KeptEmbeddings
from embedcore.report.gate.ab_text import as_json, as_text

MODEL = "test_resnet.r160_in1k"


@pytest.fixture
def photos(tmp_path):
    """More images than a side measures for its speed: 9 classes of 5."""
    rng = np.random.default_rng(0)
    for label in range(9):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for number in range(5):
            noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / str(label) / f"{number}.png")
    return tmp_path / "photos"


def test_sides_embed_all_images_and_are_judged(photos, tmp_path, forked_sides):
    cache = tmp_path / "cache"
    arguments = [
        f"--embed-roster={MODEL}", f"--embed-dataset={photos}", "--embed-weights=random", "--embed-batch-size=5",
        "--embed-precision=fp32", f"--embed-cache={cache}",
    ]  # fmt: skip
    here = Environment("A", Path(sys.executable))
    changed = [*arguments, "--embed-protocol=square224"]
    with Side(here, arguments) as old, Side(here._replace(name="B"), changed) as new:
        assert old.opened()["dataset"]["queries"] == 32  # 8 classes of 4: for speed and drift
        new.opened()
        assert old.images()["queries"] == 45
        limits, maps = read_limits(None, tmp_path), tmp_path / "maps"
        same = judge_sides({"A": old, "B": old}, [MODEL], lambda model: {}, limits, cache, maps)
        (answer,) = judge_sides({"A": old, "B": new}, [MODEL], lambda model: {}, limits, cache, maps)
        assert [each.found is not None and each.found.equal for each in (*same, answer)] == [True, False]
        assert answer.found.distance > 1e-3 and answer.found.searches.keys() > {"new_old", "rotated"}
        key = old.embed(MODEL).embeddings
    assert KeptEmbeddings(cache / "embeddings").read(key, 45) is not None


def test_the_answers_follow_the_table():
    stored = (StoredEmbeddings("m", None, "the embeddings are gone"),)
    outcome = Outcome({"A": "a"}, (), {}, 0.01, False, None, read_limits(None, Path()), stored=stored)
    assert as_text(outcome).endswith("m: unknown: the embeddings are gone\n\n1 index: unknown 1")
    assert as_json(outcome)["stored"][0]["advice"] == "unknown"
