"""The additions of a session to pytest-benchmark's saved JSON; `embedcore.results.run.run_of` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pytest_benchmark.stats import Stats

from embedcore.images.ceilings import reference_counts
from embedcore.plain import json_safe
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_classes
from embedcore.zoo.families import family_of_slug

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset

SCHEMA = 1
"""Number of the top-level ``embedcore`` block; raised when a reader of the old one would misread the new one."""


def embedcore_block(
    *, settings: Mapping[str, object], datasets: Sequence[Mapping[str, object]], excluded: Iterable[Result]
) -> dict[str, Any]:
    """Return the top-level ``embedcore`` block of the saved JSON.

    `datasets`: the session's dataset first. If there are several, all are listed under ``datasets``, and an excluded
    model names its dataset by fingerprint, as a measured one does.
    """
    several = len(datasets) > 1
    block = {
        "schema": SCHEMA,
        "settings": json_safe(settings),
        "dataset": json_safe(datasets[0] if datasets else {}),
        "excluded": [result.excluded_info() | ({"dataset": result.dataset} if several else {}) for result in excluded],
    }
    return block | ({"datasets": json_safe(datasets)} if several else {})


def dataset_block(dataset: Dataset) -> dict[str, Any]:
    """Return the saved JSON's block on a dataset.

    If queries and references are separate, it has ``reference_classes`` [n_references], packed as ``query_classes``,
    and ``roles`` [n], the role of each image, likewise: 1 query, 2 reference.
    """
    notes = [note for note in (*dataset.notes, dataset.duplicates_line) if note]
    if dataset.skipped:
        first = dataset.skipped[0][0]
        notes.append(f"{len(dataset.skipped)} images that cannot be read were skipped, the first: {first}")
    references = reference_counts(dataset.query_labels, dataset.reference_labels)
    of_class = np.zeros(len(dataset.classes), dtype=np.int64)
    of_class[dataset.query_labels] = references  # equal for all queries of a class
    block: dict[str, Any] = json_safe(
        {
            **dataset.summary(),
            "query_reference_duplicates": dataset.query_reference_duplicates,
            "notes": notes,
            "credits": list(dataset.credits),
            "query_classes": pack_classes(dataset.query_labels),
            "lone_classes": np.unique(dataset.query_labels[references == 0]).tolist(),
            "class_names": list(dataset.titles),
            "class_references": of_class.tolist(),
        }
    )
    if dataset.reference_labels is not None:  # else each image is both
        block["reference_classes"] = pack_classes(dataset.reference_labels)
        block["roles"] = pack_classes(dataset.is_query + 2 * dataset.is_reference)
    return block


def benchmark_entry(result: Result, test: str) -> dict[str, Any]:
    """Return an entry of ``benchmarks``, as pytest-benchmark would write it for the test of that id.

    Times are seconds per image: a round counts as many iterations as a batch has images.
    """
    images, stats = result.batch_size or 1, Stats()
    seconds = [duration / images for duration in result.durations] or [0.0]
    for value in seconds:
        stats.update(value)
    name = f"test_model[{result.model}]"
    return {
        "group": benchmark_group(family_of_slug(result.family).title, result),
        "name": test.rpartition("::")[2] if test else name,
        "fullname": test or name,
        "params": {"embed_model": result.model},
        "param": result.model,
        "extra_info": result.extra_info(),
        "options": {"timer": "replayed_seconds"},
        "stats": {**stats.as_dict(), "data": seconds, "iterations": images},
    }


def benchmark_group(family: str, result: Result) -> str:
    """Return the name of a result's table in pytest-benchmark's output.

    Results in a reduced batch, and results without timing, have tables of their own: their speeds do not compare.
    """
    if not result.durations:
        return f"{family}, precomputed embeddings: not timed"
    return f"{family}, in a smaller batch than asked for" if result.batch_decayed else family
