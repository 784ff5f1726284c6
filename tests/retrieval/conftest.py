from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

Embeddings = Callable[..., np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """Search with two workers: the other tests have one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def embeddings() -> Embeddings:
    """Make float32 [n, d], rows L2-normalised: ``spread`` around ``centres`` common points, in a narrow ``cone``."""

    def make(n: int, d: int, *, seed: int = 0, centres: int = 0, spread: float = 1.0, cone: float = 0.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        rows = spread * rng.standard_normal((n, d)) + cone
        if centres:
            rows += rng.standard_normal((centres, d))[rng.integers(0, centres, n)]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture
def brute_force() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """All pairs, each summed exactly and rounded once to float64; ordered by (similarity descending, index ascending).

    Exact rational sums make equal similarities equal in whatever order the products are added.
    """
    from fractions import Fraction

    def search(queries: np.ndarray, references: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
        left = [[Fraction(float(x)) for x in row] for row in queries]
        right = left if references is None else [[Fraction(float(x)) for x in row] for row in references]
        indices, similarities = [], []
        for i, query in enumerate(left):
            exact = [sum((a * b for a, b in zip(query, other, strict=True)), Fraction(0)) for other in right]
            order = sorted(range(len(right)), key=lambda j: (-exact[j], j))
            if references is None:
                order.remove(i)
            indices.append(order[:k])
            similarities.append([float(exact[j]) for j in order[:k]])
        return np.array(indices, dtype=np.int64), np.array(similarities)

    return search
