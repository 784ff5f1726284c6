"""The lines that say what a leaderboard's numbers stand on: dataset, ceilings, protocol, device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embedcore.plain import json_safe, one_line
from embedcore.results.leaderboard import Exclusion, Leaderboard
from embedcore.results.result import Result

_DEFAULTS = {"protocol": "native", "point": "pre_logits"}

_COUNTS = (("queries", "queries"), ("references", "references"), ("classes", "classes"))


def dataset_line(dataset: Mapping[str, Any]) -> str:
    """Such as ``emoji: 544 queries, 544 references, 256 classes; acc5 ceiling 0.690; …``, without what is unknown."""
    counts = ", ".join(f"{_shown(dataset[key])} {word}" for key, word in _COUNTS if dataset.get(key) is not None)
    parts = [f"{one_line(str(dataset.get('name', 'dataset')))}: {counts}"]
    if dataset.get("acc5_ceiling") is not None:
        parts.append(f"acc5 ceiling {_shown(dataset['acc5_ceiling'])}")
    if dataset.get("chance_acc") is not None:
        parts.append(f"chance acc {_shown(dataset['chance_acc'])}")
    if dataset.get("duplicates") is not None:
        parts.append(f"duplicates {_shown(dataset['duplicates'])}")
    if dataset.get("lone_queries") is not None:
        lone = dataset["lone_queries"]
        parts.append(f"lone queries {_shown(lone)}" + (" (no reference of their class: left out)" if lone else ""))
    # What the session has found out about the images besides: duplicates between the two sides, skipped files.
    notes = dataset.get("notes")
    parts += [one_line(str(note)) for note in notes] if isinstance(notes, list) else []
    return "; ".join(parts)


def acc5_limit(dataset: Mapping[str, Any]) -> str:
    """``acc5 at most 0.690``, "" if the ceiling is unknown or 1."""
    ceiling = dataset.get("acc5_ceiling")
    return f"acc5 at most {_shown(ceiling)}" if isinstance(ceiling, int | float) and ceiling < 1 else ""


def settings_line(results: Iterable[Result], settings: Mapping[str, Any]) -> str:
    """Where it was measured, and what of the protocol is not the default."""
    measured = list(results)
    parts = [
        f"{key} {one_line(str(settings[key]))}" for key, usual in _DEFAULTS.items() if settings.get(key, usual) != usual
    ]
    precisions = _distinct(result.precision for result in measured)
    if precisions and set(precisions) != {"fp32"}:
        counts = {name: sum(result.precision == name for result in measured) for name in precisions}
        parts.append(
            "precision " + ", ".join(name if len(counts) == 1 else f"{name} ({n})" for name, n in counts.items())
        )
    devices = _distinct(result.device for result in measured)
    if devices:
        parts.append(f"measured on {', '.join(devices)}")
    return "; ".join(parts)


def exclusion_line(exclusion: Exclusion, *, most_names: int | None = None) -> str:
    """Such as ``1822 no-weights: hub unreachable (first: vit_tiny_patch16_224.augreg_in21k)``.

    Up to `most_names` models are all named (None: however many there are), of more only the first.
    """
    names = [result.model for result in exclusion.results]
    named = ", ".join(names) if most_names is None or len(names) <= most_names else f"first: {names[0]}"
    return f"{len(names)} {exclusion.status}: {exclusion.reason or 'no reason given'} ({named})"


def excluded_summary(board: Leaderboard) -> str:
    """Such as ``Not measured: 14 of 1826 models (12 no-weights, 2 oom)``, "" if every model was measured."""
    excluded = board.excluded_results
    if not excluded:
        return ""
    counts: dict[str, int] = {}
    for result in excluded:
        counts[result.status] = counts.get(result.status, 0) + 1
    total = len(excluded) + len(board.by_acc)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"Not measured: {len(excluded)} of {total} models ({listed})"


def _distinct(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{one_line(str(key))} {_shown(item)}" for key, item in value.items())
    plain = json_safe(value)
    return f"{plain:.3f}" if isinstance(plain, float) else one_line(str(plain))
