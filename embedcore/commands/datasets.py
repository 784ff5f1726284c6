"""The datasets of saved runs, for commands that take several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedcore.commands.arguments import print_notes
from embedcore.errors import UsageError
from embedcore.results.merge import merge
from embedcore.results.reading import read_parts
from embedcore.results.result import Result
from embedcore.results.run import run_of


def datasets_of(names: Sequence[str]) -> Iterator[tuple[Path, Mapping[str, Any], list[Result]]]:
    """Yield path, dataset and results of each dataset of saved runs; runs on the same datasets are merged.

    Raises UsageError, also for runs that share only some of their datasets.
    """
    alike: dict[tuple[str, ...], dict[Path, Any]] = {}
    for name in names:
        for path, data in read_parts(name):
            found = run_of(data, path)
            if found.results:
                key = tuple(str(dataset.get("fingerprint")) for dataset, _ in found.by_dataset())
                alike.setdefault(key, {})[path] = data
    seen = set()
    for parts in alike.values():
        merged = merge(list(parts.items()), allow_missing=True)
        print_notes(merged.notes)
        first = next(iter(parts))
        for dataset, results in run_of(merged.data, first).by_dataset():
            if results:
                if dataset.get("fingerprint") in seen:
                    raise UsageError(
                        f"{first}: its dataset {dataset.get('name')} is also in another RUN, which has several datasets"
                    )
                seen.add(dataset.get("fingerprint"))
                yield first, dataset, results


def with_other_weights(measured: Sequence[Sequence[Result]]) -> list[str]:
    """Return the models that have different weights in different results."""
    weights: dict[str, set[str | None]] = {}
    for results in measured:
        for result in results:
            weights.setdefault(result.model, set()).add(result.weights.get("id"))
    return sorted(model for model, ids in weights.items() if len(ids) > 1)
