"""Approximate indexes of faiss: the references they find, their speed and their size.

All indexes compare by inner product, which is cosine similarity for rows of length 1. They are trained and built on one
thread with faiss's fixed seeds, so that the same references always give the same index.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError
from embedcore.retrieval.exact import similarities
from embedcore.retrieval.search import nearest_except
from embedcore.retrieval.tiles import FloatArray, IntArray

EXACT = "exact"
LINKS, CONSTRUCTION = 32, 40
"""M and efConstruction of HNSW."""
EF_SEARCH = (16, 64, 256)
"""efSearch of HNSW."""
NPROBE = (1, 8, 32)
"""nprobe of IVF-PQ."""
FEWEST = 39 * 256
"""References of IVF-PQ: faiss asks for 39 to train each of the 256 centroids of a byte."""

_BYTES = (64, 32, 16, 8)
_DIMENSIONS = 4  # that a byte of IVF-PQ stands for, or more
_WARM_UP, _PASSES, _PASS_S = 16, 3, 1.0


@dataclass(frozen=True, eq=False)
class Index:
    """An index of references, with the parameters of its searches."""

    form: str
    """exact, int8, HNSW or IVF-PQ."""
    parameters: Mapping[str, int]
    """Names as in faiss; the last one is that of the search."""
    bytes: int
    """Size of the serialised index; of the exact search, of the embeddings."""
    build_s: float
    """Seconds of training and adding on one thread."""
    search: Callable[[FloatArray, int], IntArray]
    """Queries [n, d] and k → rows of the references [n, k], best first, -1 for none."""

    @property
    def name(self) -> str:
        """Form and parameter of the search, such as ``HNSW 64``."""
        return " ".join([self.form, *map(str, [*self.parameters.values()][-1:])])


def import_faiss() -> Any:
    """Return the module faiss. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UsageError("embedcore index needs faiss: pip install 'embedcore[index]'") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and faiss compute on one thread."""
    import torch

    faiss = import_faiss()
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


def exact_search(references: FloatArray) -> Index:
    """Return an index that searches references [n, d] exactly; it consists of them alone."""
    return Index(EXACT, {}, references.nbytes, 0.0, lambda rows, k: nearest_except(rows, references, None, k).indices)


def indexes(references: FloatArray) -> Iterator[Index]:
    """Build and yield the approximate indexes of references [n, d].

    - ``int8``: all references in 8 bits a dimension (`IndexScalarQuantizer`, QT_8bit).
    - ``HNSW``: a graph with M = 32, efConstruction = 40 and each efSearch of `EF_SEARCH`.
    - ``IVF-PQ``: square root of n lists, codes of `code_bytes`, and each nprobe of `NPROBE`; see `why_not`.
    """
    faiss = import_faiss()
    dim, metric = references.shape[1], faiss.METRIC_INNER_PRODUCT
    flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric)
    yield from _built("int8", flat, references, {})
    graph = faiss.IndexHNSWFlat(dim, LINKS, metric)
    graph.hnsw.efConstruction = CONSTRUCTION
    yield from _built("HNSW", graph, references, {"M": LINKS, "efConstruction": CONSTRUCTION}, "efSearch", EF_SEARCH)
    if why_not(references):
        return
    lists, code = round(len(references) ** 0.5), code_bytes(dim)
    coded = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, lists, code, 8, metric)
    yield from _built("IVF-PQ", coded, references, {"nlist": lists, "m": code}, "nprobe", NPROBE)


def code_bytes(dim: int) -> int:
    """Return the largest of 64, 32, 16 and 8 bytes of equal parts of at least 4 dimensions; 0 if none fits.

    >>> code_bytes(1280), code_bytes(192), code_bytes(90)
    (64, 32, 0)
    """
    return next((size for size in _BYTES if dim % size == 0 and dim >= _DIMENSIONS * size), 0)


def why_not(references: FloatArray) -> str:
    """Return why there is no IVF-PQ of references [n, d]; "" if there is one."""
    n, dim = references.shape
    if n < FEWEST:
        return f"{n:,} references are fewer than {FEWEST:,}: 39 for each of the 256 centroids of a byte"
    return "" if code_bytes(dim) else f"{dim} dimensions cannot be divided into 8 equal parts of at least {_DIMENSIONS}"


def _built(
    form: str,
    index: Any,
    references: FloatArray,
    fixed: Mapping[str, int],
    parameter: str = "",
    values: Sequence[int] = (0,),
) -> Iterator[Index]:
    """Train and fill an index, and yield it with each value of the parameter of its search."""
    with one_thread():
        began = time.perf_counter()
        index.train(references)
        index.add(references)
        build_s = time.perf_counter() - began
    size = _serialised_bytes(index)
    for value in values:
        chosen = {parameter: value} if parameter else {}
        yield Index(form, {**fixed, **chosen}, size, build_s, partial(_search, index, chosen))


def _search(index: Any, parameters: Mapping[str, int], queries: FloatArray, k: int) -> IntArray:
    for name, value in parameters.items():
        import_faiss().ParameterSpace().set_index_parameter(index, name, value)
    # faiss returns tensors once a library has imported its support for torch.
    return np.asarray(index.search(queries, k)[1])


def _serialised_bytes(index: Any) -> int:
    """Return the size of the file of an index, without a copy of it in memory."""
    faiss, sizes = import_faiss(), [0]

    def count(block: bytes) -> int:
        sizes[0] += len(block)
        return len(block)

    faiss.write_index(index, faiss.PyCallbackIOWriter(count))
    return sizes[0]


def found_by(index: Index, queries: FloatArray, itself: IntArray | None, k: int) -> IntArray:
    """Return the references [n, k] that an index finds for queries [n, d], best first, -1 for none.

    ``itself`` [n]: the reference that a query must not find, for leave-one-out: k + 1 are searched and it is removed.
    There are fewer columns for fewer references.
    """
    if itself is None:
        return index.search(queries, k)
    found = index.search(queries, k + 1)
    kept = found != itself[:, None]
    kept[kept.all(axis=1), -1] = False
    others: IntArray = found[kept].reshape(len(found), found.shape[1] - 1)
    return others


def recalled(queries: FloatArray, references: FloatArray, found: IntArray, best: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether each reference ``found`` [n], -1 for none, is as similar to its query [n, d] as the ``best`` [n].

    Equal references are equally good: their similarities in float64 are equal to the last bit.
    """
    pairs = similarities(queries, references, np.stack([found.clip(0), best], axis=1))
    same: npt.NDArray[np.bool_] = (found >= 0) & (pairs[:, 0] >= pairs[:, 1])
    return same


def queries_per_s(index: Index, queries: FloatArray, k: int) -> float:
    """Return how many queries a second one thread answers with ``k`` references each, if they come in one batch.

    It is the best of three passes after a warm-up, each over as many of the queries as take about a second.
    """

    def seconds(rows: FloatArray) -> float:
        began = time.perf_counter()
        index.search(rows, k)
        return time.perf_counter() - began

    with one_thread():
        warm_up = queries[:_WARM_UP]
        several = len(warm_up) * _PASS_S / seconds(warm_up)
        step = max(1, int(len(queries) / max(several, _WARM_UP)))
        rows = np.ascontiguousarray(queries[::step])
        return len(rows) / min(seconds(rows) for _ in range(_PASSES))
