from __future__ import annotations

import numpy as np
import pytest

from embedcore.embed.sketch import sketch_of


@pytest.mark.parametrize("n", [1, 3, 8, 100])
def test_shape_and_reproducibility(n):
    embeddings = np.random.default_rng(0).standard_normal((n, 96)).astype(np.float32)
    sketch = sketch_of(embeddings)
    assert sketch.shape == (8, 64)
    assert sketch.dtype == np.float32
    assert np.array_equal(sketch, sketch_of(embeddings.copy()))


def test_a_sketch_keeps_lengths_and_shows_changes():
    embeddings = np.random.default_rng(0).standard_normal((50, 2048))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    sketch = sketch_of(embeddings)
    assert np.linalg.norm(sketch, axis=1).mean() == pytest.approx(1.0, abs=0.15)
    changed = embeddings.copy()
    changed[0, 5] += 0.01
    assert np.abs(sketch_of(changed) - sketch).max() > 1e-4
