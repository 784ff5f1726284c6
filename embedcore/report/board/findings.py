"""Sentences of the page computed from a leaderboard: facts, warnings, the best by size and speed, disagreements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from embedcore.plain import listed, minute, one_line
from embedcore.report.board import captions
from embedcore.report.board.answer import speeds
from embedcore.report.board.columns import figure, random_notice, score
from embedcore.report.board.marks import doubts
from embedcore.report.change_text import signed
from embedcore.results.class_table import FEW, ClassTable
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.result import Result

SIZES = (5, 10, 25, 100)  # million parameters
_LIMITS = (("max_classes", "classes"), ("max_per_class", "images per class"))
_MOST_NAMES = 4
_MOST_FAMILIES = 3
_MOST_DISAGREEMENTS = 3  # in each direction
_FEWEST_MODELS = 3  # of a family whose spread is shown


class Named(NamedTuple):
    """A model in a sentence, a link in the page."""

    model: str


Sentence = tuple["str | Named", ...]


@dataclass(frozen=True)
class Finding:
    """Sentences under one heading."""

    heading: str
    sentences: tuple[Sentence, ...]


def facts(
    board: Leaderboard, settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None = None
) -> list[tuple[str, str]]:
    """Return (name, value) for each known fact about dataset, protocol, machine and versions."""
    dataset = board.dataset
    versions = ("timm", "torch", *(("cuda",) if machine.get("gpu") else ()), "python")
    places = (", ".join(filter(None, (row.result.device, row.result.precision))) for row in board.by_acc)
    lone = dataset.get("lone_queries")
    found = [
        ("Labels", "none: the queries are views, a random crop of each image" if board.unlabelled else None),
        ("Images", ", ".join(f"{_text(dataset[key])} {key}" for key in ("queries", "references") if dataset.get(key))),
        ("Classes", None if board.unlabelled else dataset.get("classes")),
        ("Highest possible acc5", dataset.get("acc5_ceiling")),
        ("acc by chance", dataset.get("chance_acc")),
        ("Duplicate images", dataset.get("duplicates")),
        ("Queries without a reference", f"{_text(lone)}, left out" if lone else None),
        ("Protocol", _protocol(settings)),
        ("Measured on", "; ".join(filter(None, dict.fromkeys(places)))),
        ("Processor", machine.get("processor")),
        ("GPU", machine.get("gpu")),
        ("Versions", ", ".join(f"{name} {machine[name]}" for name in versions if machine.get(name))),
        ("Measured at", minute(when)),
    ]
    return [(name, text) for name, value in found if (text := one_line(_text(value)))]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _protocol(settings: Mapping[str, Any]) -> str:
    words = [_text(settings.get("protocol")), f"point {settings['point']}" if settings.get("point") else ""]
    limits = [f"at most {settings[key]} {what}" for key, what in _LIMITS if settings.get(key)]
    if limits:
        words.append(f"{' with '.join(limits)} (seed {settings.get('seed')})")
    return ", ".join(filter(None, words))


def warnings(board: Leaderboard) -> list[str]:
    """Return warnings that precede all numbers: random weights, too few classes, models that were not measured."""
    few, of = board.dataset.get("classes"), captions.units(board.dataset)[1]
    lines = (
        random_notice(board.by_acc),
        "" if captions.has_intervals(board.dataset) else f"Only {few} {of}: differences mean little",
        captions.excluded_summary(board),
    )
    return [line for line in lines if line]


def findings(board: Leaderboard) -> list[Finding]:
    """Return the winner by the second headline score, the best models by size and speed, the most uneven families."""
    if not board.by_acc:
        return []
    found = [
        Finding(f"Best by {board.headline.five}", tuple(best_by_acc5(board))),
        Finding("Best by size", tuple(best_of_sizes(board))),
        Finding("Best by speed", tuple(best_of_speeds(board))),
        Finding("Families with the widest spread", tuple(spreads(board))),
    ]
    return [finding for finding in found if finding.sentences]


def best_by_acc5(board: Leaderboard) -> Iterator[Sentence]:
    """Yield the first model by the second headline score, and those tied with it."""
    best, five = board.by_acc5[0].result, board.headline.five
    interval = best.ci95.get(five) if captions.has_intervals(board.dataset) else None
    bounds = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    yield Named(best.model), f": {five} {score(best, five)}{bounds}."
    ranking = board.rankings.by.get(five) if captions.has_intervals(board.dataset) else None
    if ranking is None:
        return
    tied = [row.result.model for row in board.by_acc5 if row.model_rank and row.model_rank.tied_with_leader]
    others = [model for model in tied if model != best.model]
    if others:
        count = "One other model is" if len(others) == 1 else f"{len(others):,} other models are"
        yield f"{count} not significantly worse: ", *_named(others), "."
    elif len(board.by_acc5) > 1:
        yield ("It is significantly better than all others.",)
    for line in captions.lead(ranking, most_names=0)[1:]:
        yield (captions.sentence(line),)


def _named(models: Sequence[str]) -> Iterator[str | Named]:
    """Yield the first models, separated by commas."""
    for place, model in enumerate(models[:_MOST_NAMES]):
        yield from ([", "] if place else [])
        yield Named(model)
    if len(models) > _MOST_NAMES:
        yield f" and {len(models) - _MOST_NAMES:,} more"


def best_of_sizes(board: Leaderboard) -> Iterator[Sentence]:
    """Yield the best model below each of `SIZES`; sizes with the same model share a sentence."""
    first = board.headline.first
    sized = [(row.result, row.result.params_m) for row in board.by_acc if row.result.params_m is not None]
    best = ((size, next((result for result, params in sized if params < size), None)) for size in SIZES)
    for result, sizes in _grouped(best):
        words = f"Below {listed([f'{size}' for size in sizes])} million parameters: "
        yield words, Named(result.model), f", {first} {score(result, first)} with {figure(result.params_m)} million."


def best_of_speeds(board: Leaderboard) -> Iterator[Sentence]:
    """Yield the best model that reaches each round number of images/s, among the speeds that can be trusted."""
    timed, first = speeds(board.by_acc), board.headline.first
    if not timed:
        return
    if doubts(timed[0][0].result):
        yield ("No speed can be trusted:",)
    values = [speed for _, speed in timed]
    needs = _round_numbers(min(values), max(values))
    best = ((need, next((row.result for row, speed in timed if speed >= need), None)) for need in needs)
    for result, reached in _grouped(best):
        words = f"At least {reached[-1]:,g} images/s: "
        speed = figure(result.images_per_s["forward"])
        yield words, Named(result.model), f", {first} {score(result, first)} at {speed} images/s."


def _round_numbers(low: float, high: float) -> Iterator[float]:
    """Yield 1, 2 and 5 times powers of ten: the last one up to `low`, and all above it up to `high`.

    >>> list(_round_numbers(36, 143))
    [20.0, 50.0, 100.0]
    """
    numbers = (
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        for step in (1, 2, 5)
    )
    fitting = [number for number in numbers if number <= high]
    below = sum(number <= low for number in fitting)
    yield from fitting[max(0, below - 1) :]


def spreads(board: Leaderboard) -> Iterator[Sentence]:
    """Yield the families whose best and worst models differ most."""
    first = board.headline.first

    def spread(rows: Sequence[Row]) -> float:
        return rows[0].result.scores[first] - rows[-1].result.scores[first]

    groups = [group for group in board.groups if len(group.rows) >= _FEWEST_MODELS and spread(group.rows) > 0]
    for group in sorted(groups, key=lambda group: -spread(group.rows))[:_MOST_FAMILIES]:
        worst, best = group.rows[-1].result, group.rows[0].result
        words = f"{group.title}, {len(group.rows):,} models: {first} {score(worst, first)} by "
        yield words, Named(worst.model), f" to {score(best, first)} by ", Named(best.model), "."


def _grouped(best: Iterable[tuple[float, Result | None]]) -> Iterator[tuple[Result, list[float]]]:
    """Yield each result with all numbers for which it is the best, in order, without None."""
    for _, same in groupby(best, key=lambda pair: id(pair[1])):
        first, *others = same
        if first[1] is not None:
            yield first[1], [first[0], *(of for of, _ in others)]


def disagreements(rows: Sequence[dict[str, Any]], table: ClassTable | None) -> list[Sentence]:
    """Return a sentence on each of the `disagreeing` rows, with the reason as far as it is known."""
    return [_why(row, table) for row in disagreeing(rows)]


def disagreeing(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the models whose ranks by acc and acc5 differ most."""
    by_gap = sorted(rows, key=lambda row: row["rank_acc5"] - row["rank"])
    higher_by_acc5 = [row for row in by_gap[:_MOST_DISAGREEMENTS] if row["rank_acc5"] < row["rank"]]
    higher_by_acc = [row for row in by_gap[::-1][:_MOST_DISAGREEMENTS] if row["rank_acc5"] > row["rank"]]
    return [*higher_by_acc, *higher_by_acc5]


def _why(row: dict[str, Any], table: ClassTable | None) -> Sentence:
    head = Named(row["model"]), f": {_ordinal(row['rank'])} by acc and {_ordinal(row['rank_acc5'])} by acc5"
    shares = table.few_references_effect(row["model"]) if table and row["model"] in table.models else None
    if shares is None:
        return *head, "."
    few, few_of_all, many, many_of_all = shares
    return (
        *head,
        f". In classes with fewer than {FEW} references its acc is {_than(few, few_of_all)}, "
        f"in the other classes {_than(many, many_of_all)}.",
    )


def _than(value: float, mean: float) -> str:
    return f"{value:.3f} ({signed(value - mean, 3)} relative to the mean of all models)"


def _ordinal(number: int) -> str:
    """
    >>> [_ordinal(n) for n in (1, 2, 3, 11, 22, 113)]
    ['1st', '2nd', '3rd', '11th', '22nd', '113th']
    """
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
