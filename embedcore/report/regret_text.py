"""What choosing by a rule costs: the text and JSON of ``embedcore regret``, and the sentences on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from embedcore.compare.regret import FEWEST, SAMPLE, SIZE, Regret, Regrets, Rule, candidates, regrets, rules_of
from embedcore.plain import counted, json_safe, listed, wrapped
from embedcore.report.board import captions
from embedcore.report.board.columns import NOTHING
from embedcore.report.board.findings import Named, Sentence
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Leaderboard
from embedcore.zoo.published import published, versions

_SPOKEN = ("ImageNet", SIZE, SAMPLE)
_CARD = ("ImageNet", SIZE, "probe_ridge", "knn20")
"""Rules on the page, at most `_MOST_ON_CARD`."""
_MOST_ON_CARD = 3
_FEWEST_ON_CARD = 3
"""Models that a rule on the page must order."""
_MOST_NAMES = 3

_MEANINGS = (
    "loss: points of acc below the best model that the rule orders{interval}; tau: Kendall's tau-b of the rule and acc "
    "(1: same order, 0: unrelated), over all models and within bands of millions of parameters"
)
_INTERVAL = ", with 95 % intervals that hold for all rules at once (resampled by class)"


def as_text(found: Regrets, dataset: Mapping[str, Any], width: int) -> str:
    """Return a table of the rules and sentences below it, in lines of `width`. `dataset`: its block in the JSON."""
    shown = captions.has_intervals(dataset)
    models, classes = counted(found.models, "model"), counted(found.classes, "class", "classes")
    heading = f"{captions.dataset_name(dataset)}: {models}, {classes}; best by acc: {found.best} ({found.best_acc:.3f})"
    lines = [
        cost_sentence(_spoken(found), shown),
        *_picked(found.rules),
        *_not_ordered(found),
        *_departures(found.rules[0]),
        *_reverse(found),
        *_published(found),
        _MEANINGS.format(interval=_INTERVAL if shown else ""),
    ]
    below = "\n".join(wrapped(each, width) for each in lines)
    return "\n\n".join([wrapped(heading, width), _table(found, shown), below])


def _table(found: Regrets, intervals: bool) -> str:
    """Return the table; without bands of size in which no rule has an agreement."""
    titles = [band.title for band in found.rules[0].bands]
    used = [place for place in range(len(titles)) if any(rule.bands[place].tau is not None for rule in found.rules)]
    headers = ["rule", "models", "loss", *(["95 %"] if intervals else []), "tau", *(titles[place] for place in used)]
    rows = [
        [
            regret.rule.name,
            str(regret.models),
            _points(regret.points),
            *([_interval(regret)] if intervals else []),
            _tau(regret.tau),
            *(_tau(regret.bands[place].tau) for place in used),
        ]
        for regret in found.rules
    ]
    aligned = ["left", *["right"] * (len(headers) - 1)]
    rule = ["-" * max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    # Headings are passed as a row: tabulate makes columns with headers two blanks too wide.
    return tabulate([headers, rule, *rows], tablefmt="plain", disable_numparse=True, colalign=aligned)


def cost_sentence(rules: Sequence[Regret], intervals: bool) -> str:
    """Return ``Had you picked by published ImageNet top-1, you would lose 3.1 points of acc (1.2 to 4.8); by …``."""

    def ends(regret: Regret) -> str:
        return f" ({_interval(regret)})" if intervals else ""

    first, *others = rules
    begun = f"Had you picked by {first.rule.phrase}, you would lose {_points(first.points)} points of acc{ends(first)}"
    more = [f"by {each.rule.phrase} {_points(each.points)}{ends(each)}" for each in others]
    return f"{'; '.join([begun, *more])}."


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(regret: Regret) -> str:
    return f"{_points(regret.low)} to {_points(regret.high)}"


def _tau(tau: float | None) -> str:
    return NOTHING if tau is None else f"{tau:.2f}"


def _spoken(found: Regrets) -> list[Regret]:
    """Return the rules of the sentence below the table: those that need no measurement of all images, or the first."""
    names = {*_SPOKEN, found.rules[0].rule.name}
    return [regret for regret in found.rules if regret.rule.name in names]


def _picked(rules: Sequence[Regret]) -> Iterator[str]:
    """Name each model that is picked, and the rules that pick it."""
    by_pick: dict[tuple[str, ...], list[Regret]] = {}
    for regret in rules:
        by_pick.setdefault(regret.picked, []).append(regret)
    for picked, same in by_pick.items():
        names = [*picked[:_MOST_NAMES]]
        more = len(picked) - len(names)
        names += [f"{more:,} more"] if more else []
        mean = ", the mean" if len(picked) > 1 else ""
        verb = "picks" if len(same) == 1 else "pick"
        by = listed([regret.rule.name for regret in same])
        yield f"{by} {verb} {listed(names)} (acc {same[0].acc:.3f}{mean})."


def _not_ordered(found: Regrets) -> Iterator[str]:
    """Name the best model if a rule cannot order it, since the losses are then against another one."""
    lacking = [regret.rule.name for regret in found.rules if found.best not in regret.rule.values]
    if lacking:
        yield f"The best model, {found.best}, is not ordered by {listed(lacking)}."


def _departures(regret: Regret) -> Iterator[str]:
    if regret.departures:
        moved = [
            f"{each.model} (rank {each.rank} there, {each.rank_by_acc} by acc)"
            for each in regret.departures[:_MOST_NAMES]
        ]
        yield f"Models that depart most from {regret.rule.name}: {'; '.join(moved)}."


def _reverse(found: Regrets) -> Iterator[str]:
    """Say what picking by acc costs in the other scores of the run."""
    other = [f"{_points(each.reverse)} of {each.rule.name}" for each in found.rules if each.reverse is not None]
    if other:
        yield f"Picking by acc instead would lose points of the other scores: {', '.join(other)} (without intervals)."


def _published(found: Regrets) -> Iterator[str]:
    """Name timm's versions of the published results that were used."""
    sets: dict[str, list[str]] = {}
    for name, version in versions().items():
        used = found.of(name)
        if used is not None and used.rule.values.items() <= published()[name].items():
            sets.setdefault(version, []).append(name)
    if sets:
        by_version = "; ".join(f"timm {version} ({', '.join(names)})" for version, names in sets.items())
        yield f"Published accuracies: {by_version}."


def card(board: Leaderboard, table: ClassTable | None) -> tuple[Sentence, ...]:
    """Return up to four sentences for the page's first screen; none if there is nothing to choose from.

    `table`: right queries by class. A rule must order three models, and the classes must suffice for intervals.
    """
    if table is None or not captions.has_intervals(board.dataset):
        return ()
    chosen = [result for result in candidates([row.result for row in board.by_acc]) if result.model in table.models]
    rules = [rule for rule in rules_of(chosen, published()) if _on_card(rule, table)]
    rules = sorted(rules, key=lambda rule: _CARD.index(rule.name))[:_MOST_ON_CARD]
    if not rules:
        return ()
    found = regrets(chosen, table, rules)
    return ((cost_sentence(found.rules, True),), *_first_rule(found))


def _on_card(rule: Rule, table: ClassTable) -> bool:
    return rule.name in _CARD and len(rule.values.keys() & table.models.keys()) >= _FEWEST_ON_CARD


def _first_rule(found: Regrets) -> Iterator[Sentence]:
    """Say what the first rule picks, how far its order agrees with acc, and which model departs most from it."""
    regret = found.rules[0]
    name = captions.sentence(regret.rule.phrase).removesuffix(".")
    if len(regret.picked) == 1:
        best = (". The best of these is ", Named(regret.best), f" ({regret.best_acc:.3f}).")
        is_best = regret.best in regret.picked
        orders = f"{name} orders {regret.models:,} of {counted(found.models, 'model')} and picks "
        yield orders, Named(regret.picked[0]), f" (acc {regret.acc:.3f})", *((", the best.",) if is_best else best)
    if regret.tau is not None:
        within = [band.tau for band in regret.bands if band.tau is not None]
        by_size = (
            f"; {_tau(min(within))} to {_tau(max(within))} among models of similar size" if len(within) > 1 else ""
        )
        yield (f"Kendall's tau of this order and acc is {_tau(regret.tau)} (1: same order){by_size}.",)
    if regret.departures and regret.models > FEWEST:
        most = regret.departures[0]
        yield Named(most.model), f" departs most from it: rank {most.rank} there, {most.rank_by_acc} by acc."


def as_json(found: Regrets, dataset: Mapping[str, Any]) -> Any:
    """Return the regrets on a dataset as JSON values; losses are fractions, published accuracies percent."""
    return json_safe(
        {
            "dataset": captions.dataset_name(dataset),
            "fingerprint": dataset.get("fingerprint"),
            "models": found.models,
            "classes": found.classes,
            "best": found.best,
            "best_acc": found.best_acc,
            "rules": [_fields(regret) for regret in found.rules],
        }
    )


def _fields(regret: Regret) -> dict[str, Any]:
    return {
        "rule": regret.rule.name,
        "phrase": regret.rule.phrase,
        "models": regret.models,
        "picked": regret.picked,
        "acc": regret.acc,
        "best": regret.best,
        "best_acc": regret.best_acc,
        "loss": regret.points,
        "loss_ci95": (regret.low, regret.high),
        "kendall_tau": regret.tau,
        "bands": [band._asdict() for band in regret.bands],
        "departures": [departure._asdict() for departure in regret.departures],
        "loss_by_acc": regret.reverse,
    }
