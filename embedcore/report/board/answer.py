"""The first screen's answer: which model to take, whether the order and the speeds can be trusted, and what to take
instead. Pure functions of a leaderboard that return sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from embedcore.plain import counted, listed
from embedcore.report.board import captions
from embedcore.report.board.columns import figure, score
from embedcore.report.board.marks import MODEL_MARKS, NON_COMMERCIAL_MARK, doubts
from embedcore.report.board.recipe import recipe
from embedcore.report.board.unlabelled_trust import trust_lines
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.result import Result

_SCATTER = 0.15
"""Speeds of two processes of a model that differ by more are not called comparable."""


class Take(NamedTuple):
    """The recommended model."""

    model: str
    score: str
    """Its score in words, with its interval."""
    why: str
    costs: str
    """Its size and speed, as far as they are known."""
    caveats: tuple[str, ...]
    has_code: bool


class Trust(NamedTuple):
    """Whether one thing can be trusted: a question, its answer (None: not known), and why."""

    question: str
    sure: bool | None
    lines: tuple[str, ...]

    @property
    def verdict(self) -> str:
        return "not known" if self.sure is None else "yes" if self.sure else "no"


class Pick(NamedTuple):
    """Another model to take, for example the smallest of those tied for first."""

    label: str
    model: str
    costs: str


@dataclass(frozen=True)
class Answer:
    """What the first screen says."""

    take: Take
    trust: tuple[Trust, ...]
    picks: tuple[Pick, ...]


def answer(board: Leaderboard) -> Answer | None:
    """Return the answer of a leaderboard, None if no model was measured."""
    if not board.by_acc:
        return None
    trust = (order_trust(board), *label_trust(board), speed_trust(board))
    return Answer(take(board), trust, picks(board))


def take(board: Leaderboard) -> Take:
    """Return the fastest of the models tied for first; the smallest if no speed is trusted; else the first model."""
    tied = tied_rows(board)
    best = _candidates(board)[0]
    fast, small = fastest(tied), smallest(tied)
    trusted = fast is not None and not doubts(fast.result)
    chosen = (fast if trusted else small) or best
    result, why = chosen.result, _why(board, tied, chosen)
    return Take(
        result.model, score_text(board, result), why, costs(result), tuple(caveats(chosen)), bool(recipe(result))
    )


def _candidates(board: Leaderboard) -> Sequence[Row]:
    """Return the models that can be recommended: random weights only if there are no others."""
    return [row for row in board.by_acc if not row.result.random_weights] or board.by_acc


def tied_rows(board: Leaderboard) -> list[Row]:
    """Return the candidates that are tied for first; none if the leader is alone, or ties are not known."""
    if not captions.has_intervals(board.dataset):
        return []
    tied = [row for row in _candidates(board) if row.model_rank and row.model_rank.tied_with_leader]
    return tied if len(tied) > 1 else []


def speeds(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return the rows whose speed can be trusted, with images/s; all that have a speed if none can be trusted."""
    timed = [(row, speed) for row in rows if (speed := row.result.images_per_s.get("forward"))]
    return [(row, speed) for row, speed in timed if not doubts(row.result)] or timed


def fastest(rows: Sequence[Row]) -> Row | None:
    """Return the fastest row by a speed that can be trusted; by any speed if none can."""
    found = speeds(rows)
    return max(found, key=lambda pair: pair[1])[0] if found else None


def smallest(rows: Sequence[Row]) -> Row | None:
    """Return the row with the fewest parameters, of equal ones the more accurate."""
    sized = [(row.result.params_m, row) for row in rows if row.result.params_m is not None]
    return min(sized, key=lambda pair: pair[0])[1] if sized else None


def score_text(board: Leaderboard, result: Result) -> str:
    """Return what the first headline score means, in a sentence with its 95 % interval."""
    first = board.headline.first
    bounds = result.ci95.get(first) if captions.has_intervals(board.dataset) else None
    interval = f" ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %)" if bounds else ""
    share = f"For {100 * result.scores[first]:.1f} % of the"
    if board.unlabelled:
        return f"{share} images{interval}, a random crop finds its own image first."
    if leave_one_out(board.dataset):
        return f"{share} images{interval}, the nearest other image is of the same class."
    return f"{share} queries{interval}, the nearest reference is of the same class."


def leave_one_out(dataset: Mapping[str, Any]) -> bool:
    """Whether each image is a query among all others; a saved run has the classes of separate references."""
    sides = dataset.get("queries"), dataset.get("references")
    return "reference_classes" not in dataset and sides[0] is not None and sides[0] == sides[1]


def measured_on(board: Leaderboard) -> str:
    """Return ``4 models measured on 600 images of 20 classes``, without what is unknown."""
    dataset = board.dataset
    measured = f"{counted(len(board.by_acc), 'model')} measured"
    sides = ("queries",) if leave_one_out(dataset) else ("queries", "references")
    nouns = {"queries": ("query", "queries"), "references": ("reference", "references")}
    nouns |= {"queries": ("image", "images")} if len(sides) == 1 else {}
    if board.unlabelled:
        return f"{measured} on {counted(dataset['references'], 'image')} without labels, by agreement of views"
    counts = [counted(dataset[side], *nouns[side]) for side in sides if isinstance(dataset.get(side), int)]
    classes = dataset.get("classes")
    of = f" of {counted(classes, 'class', 'classes')}" if isinstance(classes, int) else ""
    return f"{measured} on {' and '.join(counts)}{of}" if counts else measured


def _why(board: Leaderboard, tied: Sequence[Row], chosen: Row) -> str:
    if len(board.by_acc) == 1:
        return "It is the only model that was measured."
    if not tied:
        if chosen.model_rank is None or not captions.has_intervals(board.dataset):
            return "It has the highest score."
        best = "It is significantly better than all others"
        return f"{best}." if chosen is board.by_acc[0] else "It is the best model with pretrained weights."
    among = f"of the {len(tied):,} models tied for first"
    names = _titles(tied, chosen)
    if not names:
        return f"It has the highest score {among}, whose sizes and speeds are not known."
    doubtful = sum(bool(doubts(row.result)) for row in tied)
    if "fastest" not in names:
        speed = "None of their speeds can be trusted" if doubtful else "Their speeds are not known"
        return f"It is the smallest {among}. {speed}."
    but = f" Doubtful speeds are left out ({counted(doubtful, 'model')})." if doubtful else ""
    return f"It is the {' and the '.join(names)} {among}.{but}"


def _titles(tied: Sequence[Row], row: Row) -> list[str]:
    """Return ``smallest`` and ``fastest`` as far as they hold and the speed can be trusted."""
    holds = {"smallest": smallest(tied) is row, "fastest": fastest(tied) is row and not doubts(row.result)}
    return [word for word, true in holds.items() if true]


def costs(result: Result) -> str:
    """Return size and speed with their units, and why the speed is doubtful."""
    speed, why = result.images_per_s.get("forward"), "; ".join(doubts(result))
    parts = [f"{figure(result.params_m)} million parameters"] if result.params_m is not None else []
    if speed:
        parts.append(f"{figure(speed)} images/s{f' (doubtful: {why})' if why else ''}")
    return " · ".join(parts)


def caveats(row: Row) -> list[str]:
    """Return sentences on the marks of a model that matter to its user: own, random weights, not for commercial use."""
    return [captions.sentence(mark.meaning) for mark in (*MODEL_MARKS, NON_COMMERCIAL_MARK) if mark.applies(row)]


def marked(row: Row) -> list[str]:
    """Return these marks in a few words."""
    return [mark.word for mark in (*MODEL_MARKS, NON_COMMERCIAL_MARK) if mark.applies(row)]


def order_trust(board: Leaderboard) -> Trust:
    """Return whether the lead is significant, and how many classes would make it so."""
    question = "Is the order sure?"
    if len(board.by_acc) == 1:
        return Trust(question, None, ("One model has no order.",))
    if not captions.has_intervals(board.dataset):
        few = counted(int(board.dataset["classes"]), *captions.units(board.dataset))
        return Trust(question, False, (f"With only {few}, differences mean little.",))
    ranking = board.rankings.headline
    if ranking is None:
        why = board.rankings.why
        return Trust(question, None, (f"Not tested{f': {why}' if why else ''}.",))
    tied = sum(bool(row.model_rank and row.model_rank.tied_with_leader) for row in board.by_acc)
    models = len(board.by_acc)
    if tied < 2:
        leader = f"The leader is: at 95 % confidence it is the best of {models:,} models."
        wide = any(row.model_rank and row.model_rank.rank95[0] < row.model_rank.rank95[1] for row in board.by_acc)
        return Trust(question, True, (leader, *(["The table has the interval of every other rank."] if wide else [])))
    which = f"All {models:,}" if tied == models else f"{tied:,} of {models:,}"
    needed = map(captions.sentence, captions.lead(ranking, most_names=0)[1:])
    return Trust(question, False, (f"{which} models are tied for first.", *needed))


def label_trust(board: Leaderboard) -> tuple[Trust, ...]:
    """Return how far an order without labels agrees with one by labels; nothing for a run with labels."""
    if not board.unlabelled:
        return ()
    return (Trust("Would labels give this order?", None, tuple(map(captions.sentence, trust_lines()))),)


def speed_trust(board: Leaderboard) -> Trust:
    """Return whether the speeds can be compared, and why not."""
    question = "Can the speeds be compared?"
    results = [row.result for row in board.by_acc if row.result.images_per_s.get("forward")]
    if not results:
        return Trust(question, None, ("No speed was measured.",))
    reasons = Counter(reason for result in results for reason in doubts(result))
    doubtful = sum(bool(doubts(result)) for result in results)
    if doubtful:
        which = "No speed can" if doubtful == len(results) else f"{doubtful:,} of {len(results):,} speeds cannot"
        counts = "; ".join(f"{reason} ({counted(count, 'model')})" for reason, count in reasons.items())
        return Trust(question, False, (f"{which} be trusted: {counts}.",))
    if len({(result.device, result.processor) for result in results}) > 1:
        return Trust(question, False, ("They come from different devices or machines and cannot be compared.",))
    if min(len(result.processes) for result in results) < 2:
        return Trust(
            question, None, ("Each model was timed in one process only: differences below about 10 % mean nothing.",)
        )
    widest = max(map(_scatter, results))
    words = f"processes of the same model differ by up to {100 * widest:.0f} %"
    if widest > _SCATTER:
        return Trust(question, False, (captions.sentence(words),))
    return Trust(question, True, (f"No contention was seen, and {words}.",))


def _scatter(result: Result) -> float:
    """Return by how much the slowest process of a model is slower than its fastest."""
    found = [median(process.durations) for process in result.processes if process.durations]
    return max(found) / min(found) - 1 if found else 0.0


def picks(board: Leaderboard) -> tuple[Pick, ...]:
    """Return the smallest and the fastest of the models tied for first, and the best one by the score.

    A model appears once, with all its labels. Without ties there is nothing to pick.
    """
    tied = tied_rows(board)
    if not tied:
        return ()
    best = "best" if board.unlabelled else "most accurate"
    wanted = (("smallest", smallest(tied)), ("fastest", fastest(tied)), (best, _candidates(board)[0]))
    first = board.headline.first
    found: dict[str, tuple[Row, list[str]]] = {}
    for label, row in wanted:
        if row is not None:
            found.setdefault(row.result.model, (row, []))[1].append(label)
    return tuple(
        Pick(
            f"{listed(labels).capitalize()} of the {len(tied):,} tied",
            model,
            " · ".join(filter(None, [f"{first} {score(row.result, first)}", costs(row.result), *marked(row)])),
        )
        for model, (row, labels) in found.items()
    )
