"""The lines around a leaderboard's tables: dataset, metrics, protocol, machine, and models that were not measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embedcore.plain import counted, json_safe, minute, one_line
from embedcore.report.board.unlabelled_trust import trust_lines
from embedcore.results.headline import UNLABELLED, headline_scores
from embedcore.results.leaderboard import Exclusion, Group, Leaderboard
from embedcore.results.ranking import Ranking
from embedcore.results.result import Result
from embedcore.retrieval.outcomes import PROBES

FEWEST_CLASSES = 10  # intervals resample classes: with fewer they mean little

PROBE_LEGEND = (
    "ridge, logistic: share of queries that a linear classifier, fitted to the references, puts into their class; "
    "k-shot: the same for the nearest class mean of k references of each class, over random draws"
)

_CLASSES = (
    "acc: share of queries whose nearest neighbour has their class{interval}",
    "acc5: share of the 5 nearest neighbours that are of the query's class, always divided by 5",
)
_VIEWS = (
    "view_recall: agreement of views, the share of images that are the nearest of their own random crop{interval}",
    "view_recall5: the same among the 5 nearest",
)

GALLERY_LEGEND = (
    "10× gallery, 100× gallery, all distractors: acc expected if random distractors enlarge the references that "
    "many times, or all of them are added"
)

MISSING = "Models of the study that are no longer available"

_DEFAULTS = {"protocol": "native", "point": "pre_logits", "engine": "eager"}
_COUNTS = ("queries", "references", "classes")
_FACTS = ("acc5_ceiling", "chance_acc", "duplicates", "lone_queries")


def legend(
    board: Leaderboard, settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None = None
) -> list[str]:
    """Return the lines above the tables of one dataset: the dataset, its credits and the `explanations`."""
    lines = [dataset_line(board.dataset), *credits(board.dataset)] if board.dataset else []
    return [*lines, *explanations(board, settings, machine, when)]


def explanations(
    board: Leaderboard, settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None
) -> list[str]:
    """Return the meanings of the columns, and how the models were measured; nothing if no model was."""
    if not board.by_acc:
        return []
    intervals = has_intervals(board.dataset)
    one, _ = units(board.dataset)
    interval = f", ± half its 95 % interval (resampled by {one})" if intervals else ""
    return [
        *(["ranks: 95 % intervals that hold for all models at once"] if board.rankings.by and intervals else []),
        *(line.format(interval=interval) for line in (_VIEWS if board.unlabelled else _CLASSES)),
        *([GALLERY_LEGEND] if any(row.result.distractors for row in board.by_acc) else []),
        *(trust_lines() if board.unlabelled else []),
        *([PROBE_LEGEND] if any(name in PROBES for row in board.by_acc for name in row.result.scores) else []),
        "M: million parameters; images/s (img/s): the forward pass alone",
        settings_line([row.result for row in board.by_acc], settings, machine, when),
    ]


def dataset_line(dataset: Mapping[str, Any]) -> str:
    """Return ``emoji: 544 queries, 544 references, 256 classes; acc5 ceiling 0.690; …``, without what is unknown."""
    if headline_scores(dataset) == UNLABELLED:
        parts = [f"{dataset_name(dataset)}: {_shown(dataset.get('references'))} images without labels, a view of each"]
    else:
        counts = ", ".join(f"{_shown(dataset[key])} {key}" for key in _COUNTS if dataset.get(key) is not None)
        parts = [f"{dataset_name(dataset)}: {counts}"]
        parts += [f"{key.replace('_', ' ')} {_shown(dataset[key])}" for key in _FACTS if dataset.get(key) is not None]
    if dataset.get("lone_queries"):
        parts[-1] += " (no reference of their class: left out)"
    parts += _lines(dataset, "notes")  # of the session: duplicates between the two sides, skipped files
    if not has_intervals(dataset):
        parts.append(f"only {counted(dataset['classes'], *units(dataset))}: too few for meaningful intervals")
    return "; ".join(parts)


def credits(dataset: Mapping[str, Any]) -> list[str]:
    """Return the authors and licences of the images."""
    return _lines(dataset, "credits")


def dataset_name(dataset: Mapping[str, Any]) -> str:
    return one_line(str(dataset.get("name", "dataset")))


def has_intervals(dataset: Mapping[str, Any]) -> bool:
    """Whether there are enough classes for intervals."""
    classes = dataset.get("classes")
    return not isinstance(classes, int) or classes >= FEWEST_CLASSES


def units(dataset: Mapping[str, Any]) -> tuple[str, str]:
    """Return the words for one and several of what intervals resample: classes, or images without labels."""
    return ("image", "images") if headline_scores(dataset) == UNLABELLED else ("class", "classes")


def acc5_limit(dataset: Mapping[str, Any]) -> str:
    """Return ``acc5 at most 0.690``, "" if the ceiling is unknown or 1."""
    ceiling = dataset.get("acc5_ceiling")
    return f"acc5 at most {_shown(ceiling)}" if isinstance(ceiling, int | float) and ceiling < 1 else ""


def families_apart(board: Leaderboard) -> tuple[Group, ...]:
    """Return the families that get tables of their own: none if there is one only, equal to the overall table."""
    return board.groups if len(board.groups) > 1 else ()


def acc5_orders_alike(board: Leaderboard) -> bool:
    """Whether acc5 puts the models in the same order, so that its table would have the same rows."""
    return [row.result for row in board.by_acc] == [row.result for row in board.by_acc5]


def leader_lines(board: Leaderboard, metric: str, *, most_names: int) -> list[str]:
    """Return the lines below the overall table by a metric: the significance of the lead, with up to `most_names`."""
    if not has_intervals(board.dataset):
        return []
    if board.rankings.why:
        return [f"no intervals of ranks: {board.rankings.why}"] if metric == board.headline.first else []
    ranking = board.rankings.by.get(metric)
    return lead(ranking, most_names=most_names) if ranking else []


def sentence(line: str) -> str:
    """Return a line as a sentence."""
    return f"{line[0].upper()}{line[1:]}."


def lead(ranking: Ranking, *, most_names: int) -> list[str]:
    """Return which models are tied for first, and how many classes would separate the two best."""
    model_ranks = sorted(ranking.model_ranks().values(), key=lambda model_rank: model_rank.rank)
    tied = [model_rank.model for model_rank in model_ranks if model_rank.tied_with_leader]
    if not tied:
        return [f"{model_ranks[0].model} is significantly better than all others"] if len(model_ranks) > 1 else []
    named = ", ".join(tied[:most_names]) + (", …" if len(tied) > most_names else "")
    lines = [f"{len(tied)} of {len(model_ranks)} models are tied for first: {named}"]
    needed, kind = ranking.order.classes_needed, "images" if ranking.metric in UNLABELLED else "classes"
    if not model_ranks[1].tied_with_leader:
        return lines
    if ranking.classes < 2:
        return lines
    if len(set(sorted(ranking.order.means.tolist())[-2:])) == 1:
        return [*lines, f"the two best are equal in {ranking.metric}"]
    if math.isinf(needed):
        why = "they differ too little" + (", or one class has most of the queries" if kind == "classes" else "")
        return [*lines, f"no number of {kind} is known to separate the two best: {why}"]
    needed = float(f"{needed:.2g}")
    return [
        *lines,
        f"about {needed:,.0f} {kind} like these would separate the two best; there are {ranking.classes:,}",
    ]


def settings_line(
    results: Sequence[Result], settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None = None
) -> str:
    """Return the settings that are not the default, and when and on what the results were measured.

    Such as ``point avg; measured 2026-11-27 04:12 on cuda:0 (NVIDIA H100), bf16; timm 1.0.31, torch 2.14.1, CUDA 13.0;
    processor AMD EPYC 7B13, 8 threads``. `machine`: ``machine_info.embedcore`` of the saved JSON; `when`: its
    ``datetime``.
    """
    parts = [f"{key} {_shown(settings[key])}" for key, usual in _DEFAULTS.items() if settings.get(key, usual) != usual]
    devices: dict[str, list[str]] = {"processor": [], "gpu": []}
    for device in _counts(result.device for result in results):
        devices["gpu" if device.startswith("cuda") else "processor"].append(device)
    named = {key: f" ({_shown(machine[key])})" if machine.get(key) else "" for key in devices}
    places = " and ".join(", ".join(names) + named[key] for key, names in devices.items() if names)
    precisions = _counts(result.precision for result in results)
    counts = ", ".join(name if len(precisions) == 1 else f"{name} ({n})" for name, n in precisions.items())
    measured = f"measured {minute(when)}".rstrip()
    parts.append(f"{measured} on {places or 'an unknown device'}, {counts or 'in an unknown precision'}")
    versions = [f"{name} {_shown(machine[name])}" for name in ("timm", "torch") if machine.get(name)]
    if devices["gpu"] and machine.get("cuda"):
        versions.append(f"CUDA {_shown(machine['cuda'])}")
    parts += [", ".join(versions)] if versions else []
    if machine.get("processor") and not devices["processor"]:
        parts.append(f"processor {_shown(machine['processor'])}")
    return "; ".join(parts)


def missing_lines(settings: Mapping[str, Any]) -> list[str]:
    """Return ``name: reason`` for each model of the study that is no longer available (``--embed-roster article``)."""
    return [f"{_shown(name)}: {_shown(reason)}" for name, reason in settings.get("roster_missing") or ()]


def exclusion_line(exclusion: Exclusion, board: Leaderboard, *, most_names: int | None = None) -> str:
    """Return ``1822 no-weights: hub unreachable (first: vit_tiny_patch16_224.augreg_in21k)``.

    Up to `most_names` models are all named; if there are more, only the first is. A raced-out model has the largest acc
    that it may have.
    """
    names = [
        result.model if (bound := board.acc_bound(result)) is None else f"{result.model}: acc at most {bound:.3f}"
        for result in exclusion.results
    ]
    named = ", ".join(names) if most_names is None or len(names) <= most_names else f"first: {names[0]}"
    return f"{len(names)} {exclusion.status}: {exclusion.reason or 'no reason given'} ({named})"


def excluded_summary(board: Leaderboard) -> str:
    """Return ``Not measured: 14 of 1826 models (12 no-weights, 2 oom)``, "" if every model was measured."""
    excluded = board.excluded_results
    if not excluded:
        return ""
    listed = ", ".join(f"{n} {status}" for status, n in _counts(result.status for result in excluded).items())
    return f"Not measured: {len(excluded)} of {len(excluded) + len(board.by_acc)} models ({listed})"


def _counts(names: Iterable[str | None]) -> Counter[str]:
    """Return how often each name occurs, in order of first occurrence."""
    return Counter(name for name in names if name)


def _lines(dataset: Mapping[str, Any], key: str) -> list[str]:
    lines = dataset.get(key)
    return [one_line(str(line)) for line in lines] if isinstance(lines, list | tuple) else []


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{one_line(str(key))} {_shown(item)}" for key, item in value.items())
    plain = json_safe(value)
    return f"{plain:.3f}" if isinstance(plain, float) else one_line(str(plain))
