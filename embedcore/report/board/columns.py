"""What the columns of a leaderboard are, and the text of their cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from embedcore.results.leaderboard import Row
from embedcore.results.result import Result

NOTHING = "–"  # the cell of a figure that was not measured
DECAYED, TOKEN_MEAN, NON_COMMERCIAL, TIED, DISTURBED = "*", "†", "‡", "≈", "!"
OWN, NO_CLASSIFIER, RESAMPLED = "§", "¶", "‖"

_LONGEST_SLUG = 16
_ID_SHOWN = len("sha256:") + 8

# The licence names that say so themselves, and Apple's research licence, whose text says so and whose name does not.
_NON_COMMERCIAL = re.compile(r"(?:^|[-_ ])nc(?:[-_ ]|$)|non-?commercial|^apple-amlr$", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """One column: how it is headed, what its cells say, and how soon a narrow terminal goes without it.

    ``short`` and ``long``: the heading in the terminal and where there is room, if not the key. ``full``: the cell
    where there is room, if that is another one; ``narrow``: the cell without the interval, if it has one. ``text``:
    aligned as text is, not as figures are. ``drop``: columns with the highest number go first; those with 0 stay.
    """

    key: str
    cell: Callable[[Row], str]
    short: str = ""
    long: str = ""
    full: Callable[[Row], str] | None = None
    narrow: Callable[[Row], str] | None = None
    text: bool = False
    drop: int = 0


def leaderboard_columns(metric: str = "acc") -> tuple[Column, ...]:
    """The columns of a leaderboard ranked by `metric`, which comes first and with its interval."""
    other = "acc5" if metric == "acc" else "acc"
    return (
        Column("rank", rank_with_mark, "#"),
        Column("rank95", rank_interval, "ranks", "95 % ranks", drop=1),
        Column("model", lambda row: marked_name(row.result), text=True),
        Column(
            metric,
            lambda row: score_with_interval(row.result, metric),
            long=f"{metric} ±",
            narrow=lambda row: score(row.result, metric),
        ),
        Column(other, lambda row: score(row.result, other), drop=2),
        Column("map_at_r", lambda row: score(row.result, "map_at_r"), "map@R", drop=6),
        Column("params_m", lambda row: figure(row.result.params_m), "M", "params (M)", drop=3),
        Column("gmacs", lambda row: figure(row.result.gmacs), "GMACs", "GMACs", drop=8),
        Column("input_size", lambda row: input_size(row.result), "input", "input size", drop=9),
        Column("dim", lambda row: dim(row.result), drop=11),
        Column("images_per_s", lambda row: images_per_s(row.result), "img/s", "images/s", drop=4),
        Column("pretraining", lambda row: row.result.pretraining or NOTHING, text=True, drop=5),
        Column("licence", lambda row: licence(row.result), text=True, drop=7),
        Column(
            "weights", lambda row: weights_source(row.result), full=lambda row: weights(row.result), text=True, drop=10
        ),
    )


def leader_columns(titles: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of the table of leaders: the family comes first (its slug where room is short, else its title), and
    the overall rank is the last that a narrow terminal goes without."""
    rank, *others = leaderboard_columns()
    family = Column(
        "family",
        lambda row: cut(row.result.family, _LONGEST_SLUG),
        full=lambda row: titles.get(row.result.family, row.result.family),
        text=True,
    )
    return family, replace(rank, drop=1), *others


def without_intervals(columns: Iterable[Column]) -> list[Column]:
    return [replace(c, cell=c.narrow, long="", narrow=None) if c.narrow else c for c in columns]


def shown(rows: Iterable[Row], columns: Iterable[Column], *, intervals: bool) -> tuple[list[Row], list[Column]]:
    """Rows and columns of a table, with or without `intervals` and what follows from them."""
    if not intervals:
        rows, columns = (replace(row, standing=None) for row in rows), without_intervals(columns)
    rows = list(rows)
    ranked = any(row.standing for row in rows)
    return rows, [column for column in columns if ranked or column.key != "rank95"]


def rank_with_mark(row: Row) -> str:
    """Marked where it is not sure that the leader is better."""
    return f"{row.rank}{TIED if row.standing and row.standing.tied_with_leader else ''}"


def rank_interval(row: Row) -> str:
    """Such as ``1–3``, or ``2`` where no other rank is possible."""
    return interval(row.standing.rank95) if row.standing else NOTHING


def interval(ranks: tuple[int, int]) -> str:
    low, high = ranks
    return str(low) if low == high else f"{low}–{high}"


def cut(text: str, longest: int) -> str:
    """`text` of at most `longest` characters, with "…" for what is missing."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def cut_middle(text: str, longest: int, mark: str = "…") -> str:
    """`text` of at most `longest` characters, with `mark` for what is missing in the middle: the ends of a model's name
    tell more.

    >>> cut_middle("vit_base_patch16_224.augreg_in21k", 20)
    'vit_base_p…reg_in21k'
    """
    if len(text) <= longest:
        return text
    kept = max(0, longest - len(mark))
    return text[: kept - kept // 2] + mark + text[len(text) - kept // 2 :]


def marked_name(result: Result, longest: int | None = None) -> str:
    """The model's name with its marks, of at most ``longest`` characters."""
    marks = OWN * result.own
    marks += NO_CLASSIFIER * ("classifier" in result.weights) + RESAMPLED * ("resampled" in result.weights)
    return (result.model if longest is None else cut_middle(result.model, longest - len(marks))) + marks


def score(result: Result, metric: str) -> str:
    value = result.scores.get(metric)
    return NOTHING if value is None else f"{value:.3f}"


def score_with_interval(result: Result, metric: str) -> str:
    """Such as ``0.262 ±.031``; the score alone if it has no interval."""
    half = result.half_interval(metric)
    return score(result, metric) if half is None else f"{score(result, metric)} ±{f'{half:.3f}'.removeprefix('0')}"


def figure(value: float | None) -> str:
    """Three digits or all before the point: 0.34, 12.1, 304."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def input_size(result: Result) -> str:
    """The side of a square input, else ``height×width``."""
    if result.input_size is None:
        return NOTHING
    _, height, width = result.input_size
    return str(height) if height == width else f"{height}×{width}"


def dim(result: Result) -> str:
    return NOTHING if result.dim is None else f"{result.dim}{TOKEN_MEAN if result.token_mean else ''}"


def images_per_s(result: Result) -> str:
    rate = result.images_per_s.get("forward")
    marks = f"{DECAYED if result.batch_decayed else ''}{DISTURBED if result.disturbed else ''}"
    return NOTHING if rate is None else f"{figure(rate)}{marks}"


def non_commercial(result: Result) -> bool:
    """Whether the licence's name says: not for commercial use. (Another may say so in its text: read it.)"""
    return result.licence is not None and _NON_COMMERCIAL.search(result.licence) is not None


def licence(result: Result) -> str:
    return f"{result.licence or NOTHING}{NON_COMMERCIAL if non_commercial(result) else ''}"


def weights_source(result: Result) -> str:
    """Where weights are from, with the part of a checkpoint: ``own:best.pth (model_ema)``; RANDOM stands out."""
    source = "RANDOM" if result.random_weights else result.weights.get("source", NOTHING)
    file = f":{result.weights['file']}" if "file" in result.weights else ""
    part = f" ({result.weights['part']})" if "part" in result.weights else ""
    return f"{source}{file}{part}"


def weights(result: Result) -> str:
    """Source and the beginning of the id: ``hub sha256:01234567``, ``RANDOM seed:0``."""
    return f"{weights_source(result)} {result.weights.get('id', '')[:_ID_SHOWN]}".rstrip()


def random_notice(rows: Sequence[Row]) -> str | None:
    """The line that every table with random weights in it carries, None for one without."""
    marked = [row.result for row in rows if row.result.random_weights]
    if not marked:
        return None
    seeds = sorted({result.weights.get("id", "").removeprefix("seed:") or "unknown" for result in marked})
    which = "" if len(marked) == len(rows) else f" in {len(marked)} of {len(rows)} rows"
    return f"RANDOM WEIGHTS (seed {', '.join(seeds)}){which}: not pretrained, for testing only"


def footnotes(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """What the marks in the columns `keys` of these rows mean, and what a column left out would have warned of."""
    results = [row.result for row in rows]
    notes = []
    if "rank" in keys and any(row.standing and row.standing.tied_with_leader for row in rows):
        notes.append(f"{TIED} tied with the leader: no model is surely better")
    if any(result.own for result in results):
        notes.append(f"{OWN} your own model, not timm's")
    bare = [result.weights["classifier"] for result in results if "classifier" in result.weights]
    if bare:
        which = bare[0] if len(set(bare)) == 1 else "left out"
        notes.append(
            f"{NO_CLASSIFIER} the classifier of its file was {which}; no embedding needs it but that of `head`"
        )
    if any("resampled" in result.weights for result in results):
        notes.append(f"{RESAMPLED} tensors of its file did not fit and were resized by timm (resample = true)")
    if "images_per_s" in keys and any(result.batch_decayed for result in results):
        notes.append(f"{DECAYED} in a smaller batch than asked for, for lack of memory: do not compare this speed")
    if "images_per_s" in keys and any(result.disturbed for result in results):
        notes.append(f"{DISTURBED} the processor was busy with other work meanwhile: do not compare this speed")
    if "dim" in keys and any(result.token_mean for result in results):
        notes.append(f"{TOKEN_MEAN} mean of the model's tokens")
    limited = sum(map(non_commercial, results))
    if limited and "licence" in keys:
        notes.append(f"{NON_COMMERCIAL} not for commercial use")
    elif limited:
        notes.append(f"{limited} of these {len(results)} not for commercial use")
    return notes
