"""Search and count in a gallery of millions of embeddings, against the plain matrix products of the same blocks.

    python benchmarks/harness/huge_gallery.py
    python benchmarks/harness/huge_gallery.py --references 200000 --queries 2000 --rounds 1

The references are seeded float32 rows in a file in a temporary folder, which is read in blocks. Prints the seconds of
`nearest_streamed` and `beaten_by`, those of the products alone (torch.mm of float32 tiles that overwrite one another,
by as many threads, the file read in the same blocks), their ratio, and the peak memory of the process, file pages
included. The aim is at least .8 of the speed of the products, and less than 3 GB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from embedcore.embed.embedding_blocks import read_blocks
from embedcore.retrieval.first_pass import height_of
from embedcore.retrieval.streamed import beaten_by, nearest_streamed
from embedcore.retrieval.threads import Scratch, tile_workers

TILE = 2048
K = 5


def make_rows(n: int, dim: int, seed: int, centres: np.ndarray | None) -> np.ndarray:
    """Return float32 [n, d] of length 1: around the ``centres``, in a narrow cone, or without structure."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), dtype=np.float32)
    if centres is not None:
        rows += centres[rng.integers(0, len(centres), n)] + np.float32(1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def write_references(path: Path, n: int, dim: int, centres: np.ndarray | None) -> None:
    """Write the references in pieces, so that they are never in memory together."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (n, dim)})
        for start in range(0, n, 2**16):
            make_rows(min(2**16, n - start), dim, 1 + start, centres).tofile(file)


def plain_products(queries: np.ndarray, path: Path, block: int) -> None:
    """Multiply all queries with all references, in tiles that overwrite one another."""
    left = torch.from_numpy(queries)
    scratch = Scratch(TILE * TILE, torch.float32)
    with tile_workers() as pool:
        height = height_of(len(left), TILE, pool)
        for rows in read_blocks(path, block):
            right = torch.from_numpy(rows)

            def work(top: int, right: torch.Tensor = right) -> None:
                part = left[top : top + height]
                for start in range(0, len(right), TILE):
                    tile = right[start : start + TILE]
                    out = scratch.tensor[: len(part) * len(tile)].view(len(part), len(tile))
                    torch.mm(part, tile.T, out=out)

            list(pool.map(work, range(0, len(left), height)))


def peak_gb() -> float:
    """Return the largest resident memory of this process so far, in units of 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Print a row for the search and one for the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=2_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=["classes", "unstructured"], default="classes")
    parsed = parser.parse_args()
    block = 2**24 // parsed.dim
    centres = None
    if parsed.kind == "classes":
        centres = np.random.default_rng(0).standard_normal((2000, parsed.dim), dtype=np.float32)
    queries = make_rows(parsed.queries, parsed.dim, 0, centres)
    with tempfile.TemporaryDirectory(prefix="embedcore-") as folder:
        path = Path(folder) / "references.npy"
        write_references(path, parsed.references, parsed.dim, centres)
        before = peak_gb()
        nearest = nearest_streamed(queries, path, K)
        # Most queries are beaten by few references and some by many, as by distractors of real images.
        limits = nearest.similarities[:, 0] - np.random.default_rng(0).exponential(0.05, parsed.queries)
        calls: dict[str, Callable[[], object]] = {
            "products": lambda: plain_products(queries, path, block),
            f"nearest {K}": lambda: nearest_streamed(queries, path, K),
            "beaten by": lambda: beaten_by(queries, limits, path),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(parsed.rounds):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"{parsed.queries:,} queries, {parsed.references:,} references, {parsed.dim} dimensions ({parsed.kind})")
    print(f"{torch.get_num_threads()} threads; peak memory {peak_gb():.2f} GB ({before:.2f} GB before)")
    rows = [[name, f"{each:.1f}", f"{medians['products'] / each:.2f}"] for name, each in medians.items()]
    print(tabulate(rows, ["what", "seconds", "speed / products"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
