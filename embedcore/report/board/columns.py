"""The table of a leaderboard's columns, which the terminal, Markdown, CSV, JSON and the page read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedcore.report.board.marks import (
    MODEL_MARKS,
    NON_COMMERCIAL_MARK,
    SPEED_MARKS,
    TIED_MARK,
    TOKENS_MARK,
    Mark,
    mark_words,
)
from embedcore.results.headline import LABELLED, UNLABELLED, Headline, headline_of
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.ranking import ModelRank
from embedcore.results.result import Result
from embedcore.retrieval.gallery_growth import ALL, SIZES
from embedcore.retrieval.outcomes import PROBES, SHOTS

NOTHING = "–"  # the cell of a value that was not measured

_LONGEST_SLUG = 16
_ID_SHOWN = len("sha256:") + 8


@dataclass(frozen=True)
class Entry(Row):
    """A result with all its ranks, or without any (0) if it was not measured."""

    rank_acc5: int = 0
    rank_in_family: int = 0
    title: str = ""
    """Title of the family."""
    probe_ranks: Mapping[str, ModelRank] = field(default_factory=dict)
    """Its rank by each probe."""


@dataclass(frozen=True)
class Column:
    """A column of every output. `value` is plain (JSON), or None; `format` makes a cell of it.

    Terminal and Markdown show the columns with a `drop`; a narrow terminal drops the highest first and keeps 0. The
    page shows those with a `width` in pixels, the `optional` ones on request. leaderboard.csv and .json have all.
    """

    key: str
    value: Callable[[Row], Any]
    format: Callable[[Any], str] = str
    title: str = ""
    """Heading where there is little room, in the terminal and on a phone, if not the key."""
    meaning: str = ""
    """Heading in Markdown and the page, if not the key."""
    marks: tuple[Mark, ...] = ()
    full: Callable[[Row], str] | None = None
    """The cell in Markdown, where there is room for more."""
    text: bool = False
    """Aligned and sorted as text."""
    interval: bool = False
    """Followed by half the 95 % interval of the score; the page draws a bar."""
    sort: Callable[[Any], Any] | None = None
    """Sort key of the page, computed from the value."""
    descending: bool = False
    """Whether the page's first sort puts the highest first."""
    parts: tuple[str, ...] = ()
    """Names in the CSV of a value that is a tuple."""
    drop: int | None = 12
    width: int = 90
    optional: bool = False
    sparse: bool = False
    """Left out of tables in which no row has a value."""

    def cell(self, row: Row) -> str:
        """Return the text of a cell with its marks."""
        value = self.value(row)
        if value is None:
            return NOTHING
        text = self.format(value)
        half = row.result.half_interval(self.key) if self.interval else None
        if half is not None:
            text += f" ±{half:.3f}".replace("±0", "±")
        return text + self.signs(row)

    def signs(self, row: Row) -> str:
        """Return the marks of a cell."""
        return "".join(dict.fromkeys(mark.sign for mark in self.marks if mark.applies(row)))

    @property
    def stored(self) -> bool:
        """Whether leaderboard.csv and .json have it as a field of the result, or as a score."""
        return self.key in _STORED

    @property
    def heading(self) -> str:
        return self.title or self.key

    @property
    def long_heading(self) -> str:
        return f"{self.key} ±" if self.interval else self.meaning or self.key


def figure(value: float | None) -> str:
    """Return three digits, or all digits before the point: 0.34, 12.1, 304."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def score(result: Result, metric: str) -> str:
    value = result.scores.get(metric)
    return NOTHING if value is None else _score(value)


def images_per_s(result: Result) -> str:
    """Return the speed of the forward pass with its marks."""
    return column("images_per_s").cell(Row(1, result))


def _score(value: float) -> str:
    return f"{value:.3f}"


def interval(ranks: tuple[int, int]) -> str:
    """Return ``1–3``, or ``2`` if no other rank is possible."""
    low, high = ranks
    return str(low) if low == high else f"{low}–{high}"


def input_size(result: Result) -> tuple[int, int] | None:
    """Return height and width."""
    return None if result.input_size is None else (result.input_size[1], result.input_size[2])


def size_text(size: tuple[int, int]) -> str:
    height, width = size
    return str(height) if height == width else f"{height}×{width}"


def weights_source(result: Result) -> str | None:
    """Return the source, file and part of the weights: ``own:best.pth (model_ema)``; RANDOM stands out."""
    source = "RANDOM" if result.random_weights else result.weights.get("source")
    file = f":{result.weights['file']}" if "file" in result.weights else ""
    part = f" ({result.weights['part']})" if "part" in result.weights else ""
    return None if source is None else f"{source}{file}{part}"


def weights(result: Result) -> str:
    """Return source and the beginning of the id: ``hub sha256:01234567``, ``RANDOM seed:0``."""
    return f"{weights_source(result) or NOTHING} {result.weights.get('id', '')[:_ID_SHOWN]}".rstrip()


def _of(value: Callable[[Result], Any]) -> Callable[[Row], Any]:
    return lambda row: value(row.result)


def _speed(key: str, name: str, *titles: Any, **options: Any) -> Column:
    options |= {"descending": True}
    return Column(key, lambda row: row.result.images_per_s.get(name), figure, *titles, **options)


def _rank(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name, 0) or None


def _of_model_rank(key: str, *arguments: Any, **options: Any) -> Column:
    return Column(key, lambda row: getattr(row.model_rank, key, None), *arguments, **options)


def _probe_rank_columns(metric: str, words: str) -> Iterator[Column]:
    """Yield the columns of the place by a probe, and of its interval."""

    def of(key: str) -> Callable[[Row], Any]:
        return lambda row: getattr(getattr(row, "probe_ranks", {}).get(metric), key, None)

    bounds = f"rank95_{metric}_low", f"rank95_{metric}_high"
    yield Column(f"rank_{metric}", of("rank"), str, f"# {words}", f"rank by {words}", **_ON_REQUEST)
    ranks = f"{words} ranks", f"95 % ranks by {words}"
    yield Column(f"rank95_{metric}", of("rank95"), interval, *ranks, sort=min, parts=bounds, **_ON_REQUEST)


def _field(key: str, *arguments: Any, **options: Any) -> Column:
    return Column(key, lambda row: getattr(row.result, key), *arguments, **options)


def _score_column(metric: str, title: str = "", width: int = 130, **options: Any) -> Column:
    value = _of(lambda result: result.scores.get(metric))
    return Column(metric, value, _score, title, width=width, descending=True, **options)


def _of_images(key: str, *arguments: Any, **options: Any) -> Column:
    return Column(key, _of(lambda result: result.unlabelled.get(key)), *arguments, **options)


def _gallery_column(gallery: str) -> Column:
    """Return the column of acc in a gallery with distractors."""
    key, words = f"acc_{gallery}", "all distractors" if gallery == ALL else f"{SIZES[gallery]}× gallery"
    value = _of(lambda result: result.gallery_scores.get(key, (None,))[0])
    return Column(key, value, _score, words, f"acc, {words}", descending=True, drop=5, width=130, sparse=True)


_GALLERIES = tuple(map(_gallery_column, (*SIZES, ALL)))

_RANKED_PROBES = {"probe_ridge": "ridge", "probe_logistic": "logistic"}
_BOUNDS, _SIZE = ("rank95_low", "rank95_high"), ("input_height", "input_width")
_ON_REQUEST: dict[str, Any] = {"drop": None, "optional": True}  # in the page alone

COLUMNS = (
    Column("rank", lambda row: row.rank or None, title="#", marks=(TIED_MARK,), drop=0, width=64),
    Column("rank_acc5", _rank("rank_acc5"), str, "# acc5", "rank by acc5", **_ON_REQUEST),
    Column("rank_in_family", _rank("rank_in_family"), str, "# family", "rank in the family", **_ON_REQUEST),
    _of_model_rank("rank95", interval, "ranks", "95 % ranks", sort=min, parts=_BOUNDS, drop=1),
    _of_model_rank("p_best", "{:.2f}".format, "p best", "probability of being first", descending=True, **_ON_REQUEST),
    _of_model_rank("tied_with_leader", drop=None, width=0),
    _field("model", marks=MODEL_MARKS, text=True, drop=0, width=325),
    Column("marks", mark_words, text=True, drop=None, width=0),
    _score_column("acc", interval=True, drop=0, width=176),
    _score_column("acc5", interval=True, drop=2, width=156),
    *_GALLERIES,
    _score_column("map_at_r", "map@R", drop=6, optional=True),
    _score_column("probe_ridge", "ridge", drop=5, sparse=True),
    _score_column("probe_logistic", "logistic", drop=9, optional=True, sparse=True),
    *(column for probe in _RANKED_PROBES.items() for column in _probe_rank_columns(*probe)),
    *(_score_column(f"few_shot_{k}", f"{k}-shot", drop=10, optional=True, sparse=True) for k in SHOTS),
    _field("params_m", figure, "M", "parameters (M)", drop=3, width=118),
    _field("gmacs", figure, "GMACs", "GMACs", drop=8, optional=True),
    Column("input_size", _of(input_size), size_text, "input", "input size", sort=max, parts=_SIZE, drop=9, width=80),
    _field("dim", marks=(TOKENS_MARK,), drop=11, optional=True),
    _speed("images_per_s", "forward", "img/s", "speed (images/s)", marks=SPEED_MARKS, drop=4, width=108),
    _speed("images_per_s_end_to_end", "end_to_end", "end to end", "speed with reading (images/s)", **_ON_REQUEST),
    _field("family", text=True, drop=None, width=210),
    _field("pretraining", text=True, drop=5, width=150),
    _field("licence", marks=(NON_COMMERCIAL_MARK,), text=True, drop=7, width=140),
    _field("peak_memory_mb", figure, "MB", "peak memory (MB)", **_ON_REQUEST),
    _field("engine", text=True, **_ON_REQUEST),
    Column("weights", _of(weights_source), full=_of(weights), text=True, drop=10, width=130, optional=True),
)
"""A column added here appears in all outputs."""

_BY_VIEWS = {
    "rank_acc5": Column(
        f"rank_{UNLABELLED.five}", _rank("rank_acc5"), str, "# five", f"rank by {UNLABELLED.five}", **_ON_REQUEST
    ),
    "acc": _score_column(UNLABELLED.first, interval=True, drop=0, width=176),
    "acc5": _score_column(UNLABELLED.five, interval=True, drop=2, width=156),
    "map_at_r": _of_images("effective_rank", figure, "eff. rank", "effective rank", drop=6, optional=True),
    "probe_ridge": _of_images("near_duplicates", _score, "near dup.", "near-duplicates", drop=6, optional=True),
}
"""Columns of a run without labels, by the keys of those that they replace."""

_STORED = {*Result.__struct_fields__, *LABELLED, *UNLABELLED, "map_at_r", *PROBES, "images_per_s_end_to_end"}
_STORED |= {"effective_rank", "near_duplicates"}
_STORED |= {column.key for column in _GALLERIES}


def column(key: str) -> Column:
    return next(column for column in COLUMNS if column.key == key)


def columns_of(scores: Headline) -> tuple[Column, ...]:
    """Return the columns of runs with these headline scores."""
    return COLUMNS if scores == LABELLED else tuple(_BY_VIEWS.get(column.key, column) for column in COLUMNS)


def entries(board: Leaderboard) -> Iterator[Entry]:
    """Yield every result with its ranks: the measured ones, best first, then the others."""
    titles = {group.slug: group.title for group in board.groups}
    ranks, probe_ranks = board.ranks, board.rankings.by_probes()
    for row in board.by_acc:
        rank, rank_acc5, rank_in_family = ranks[id(row.result)]
        title, of_probes = titles[row.result.family], probe_ranks.get(row.result.model, {})
        yield Entry(rank, row.result, row.model_rank, rank_acc5, rank_in_family, title, of_probes)
    for result in board.excluded_results:
        yield Entry(0, result)


def leaderboard_columns(metric: str = "acc") -> tuple[Column, ...]:
    """Return the columns of a table ranked by `metric`, which comes before the other headline score."""
    first, five = names = headline_of((metric,))
    shown = {column.key: column for column in columns_of(names) if column.drop is not None}
    other = five if metric == first else first
    scores = {
        metric: replace(shown[metric], drop=0, interval=True),
        other: replace(shown[other], drop=2, interval=False),
    }
    keys = [*shown]
    keys[keys.index(first) : keys.index(five) + 1] = [metric, other]
    return tuple((shown | scores)[key] for key in keys)


def leader_columns(titles: Mapping[str, str], metric: str = "acc") -> tuple[Column, ...]:
    """Return the columns of the table of leaders: the family first (its slug in the terminal, its title in Markdown);
    the rank is dropped last."""
    rank, *others = leaderboard_columns(metric)
    family = replace(
        column("family"),
        format=lambda slug: cut(slug, _LONGEST_SLUG),
        full=lambda row: titles.get(row.result.family, row.result.family),
        drop=0,
    )
    return family, replace(rank, drop=1), *others


def page_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the page's table that have a value in some row, with one for each further score."""
    columns = columns_of(rows[0].result.headline) if rows else COLUMNS
    known = {column.key for column in columns}
    metrics = dict.fromkeys(metric for row in rows for metric in row.result.scores)
    more = [_score_column(metric, optional=True) for metric in metrics if metric not in known]
    return [c for c in (*columns, *more) if c.width and any(c.value(row) is not None for row in rows)]


def without_intervals(columns: Iterable[Column]) -> list[Column]:
    return [replace(column, interval=False) for column in columns]


def shown(rows: Iterable[Row], columns: Iterable[Column], *, intervals: bool) -> tuple[list[Row], list[Column]]:
    """Return the rows and columns of a table, with or without intervals of scores and ranks.

    `Column.sparse` columns are kept only if a row has a value.
    """
    if not intervals:
        rows, columns = (replace(row, model_rank=None) for row in rows), without_intervals(columns)
    rows = list(rows)
    ranked = any(row.model_rank for row in rows)
    columns = (column for column in columns if ranked or column.key != "rank95")
    return rows, [c for c in columns if not c.sparse or any(c.value(row) is not None for row in rows)]


def footnotes(rows: Sequence[Row], columns: Iterable[Column]) -> list[str]:
    """Return the meanings of the marks in these rows; without a licence column also how many are non-commercial."""
    columns = list(columns)
    notes = [
        f"{mark.sign} {mark.meaning}"
        for column in columns
        for mark in column.marks
        if mark.sign and any(map(mark.applies, rows))
    ]
    limited = sum(map(NON_COMMERCIAL_MARK.applies, rows))
    if limited and all(column.key != "licence" for column in columns):
        notes.append(f"{limited} of these {len(rows)} {NON_COMMERCIAL_MARK.meaning}")
    return notes


def random_notice(rows: Sequence[Row]) -> str | None:
    """Return the warning above every table with random weights, None if there are none."""
    marked = [row.result for row in rows if row.result.random_weights]
    if not marked:
        return None
    seeds = sorted(
        {result.weights.get("id", "").removeprefix("seed:") or "unknown" for result in marked if not result.own}
    )
    seeded = f" (seed {', '.join(seeds)})" if seeds else ""
    which = "" if len(marked) == len(rows) else f" in {len(marked)} of {len(rows)} rows"
    return f"RANDOM WEIGHTS{seeded}{which}: not pretrained, for testing only"


def cut(text: str, longest: int) -> str:
    """Return `text`, cut to `longest` characters with "…" at the end."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def cut_middle(text: str, longest: int, mark: str = "…") -> str:
    """Return `text`, cut to `longest` characters with `mark` in the middle: the ends of a model's name matter most.

    >>> cut_middle("vit_base_patch16_224.augreg_in21k", 20)
    'vit_base_p…reg_in21k'
    """
    if len(text) <= longest:
        return text
    kept = max(0, longest - len(mark))
    return text[: kept - kept // 2] + mark + text[len(text) - kept // 2 :]
