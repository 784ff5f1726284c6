"""A small image set."""

from __future__ import annotations

import numpy as np
import pytest

from embedcore.images.load_dataset import load_dataset


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return load_dataset([rng.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(12)], [*"aabbccaabbcc"])
