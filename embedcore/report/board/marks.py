"""Marks: what a reader must know about a result beside its numbers. Every output reads them here."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from statistics import median, quantiles
from typing import NamedTuple

from embedcore.results.leaderboard import Row
from embedcore.results.result import CROWDED, Result

SCATTERED = 0.15
"""A speed is doubtful above this interquartile range of its rounds, as a share of their median."""
FASTER = 0.02
"""Share by which speeds may differ by rounding: reading the pixels cannot make a pass faster."""

TIED = "≈"

# Licences whose name excludes commercial use, and Apple's research licence, whose text does.
_NON_COMMERCIAL = re.compile(r"(?:^|[-_ ])nc(?:[-_ ]|$)|non-?commercial|^apple-amlr$", re.IGNORECASE)


class Mark(NamedTuple):
    """A sign after the cells of some rows, explained below the table."""

    sign: str
    """Empty for random weights, which tables show in capitals."""
    applies: Callable[[Row], bool]
    meaning: str
    word: str = ""
    """The mark in plain words, for the CSV and the page."""


def mark_words(row: Row) -> str | None:
    """Return the marks, in the order of their columns, as ``tied for first; own model``; None without marks."""
    return "; ".join(mark.word for mark in _MARKS if mark.applies(row)) or None


def doubts(result: Result) -> list[str]:
    """Return why the speed cannot be trusted: clauses such as ``the machine was busy with other work``."""
    return [doubt.why for doubt in _DOUBTS if doubt.applies(result)]


def scatter(result: Result) -> float:
    """Return the interquartile range of the timing rounds as a share of their median; 0 for fewer than two."""
    return _relative_iqr(result.durations)


@functools.lru_cache(maxsize=4096)  # a report asks some twenty times for each model
def _relative_iqr(durations: tuple[float, ...]) -> float:
    if len(durations) < 2:
        return 0.0
    low, _, high = quantiles(durations, n=4, method="inclusive")
    return (high - low) / median(durations)


def non_commercial(result: Result) -> bool:
    """Whether the licence's name excludes commercial use. (Other licences may do so in their text.)"""
    return result.licence is not None and _NON_COMMERCIAL.search(result.licence) is not None


def _faster_with_reading(result: Result) -> bool:
    forward, whole = (result.images_per_s.get(name) for name in ("forward", "end_to_end"))
    return forward is not None and whole is not None and whole > (1 + FASTER) * forward


def _of(value: Callable[[Result], bool]) -> Callable[[Row], bool]:
    return lambda row: value(row.result)


class _Doubt(NamedTuple):
    sign: str
    why: str
    applies: Callable[[Result], bool]

    @property
    def mark(self) -> Mark:
        return Mark(self.sign, _of(self.applies), f"{self.why}: speed not comparable", f"doubtful speed: {self.why}")


_DOUBTS = (
    _Doubt("*", "smaller batch, for lack of memory", lambda result: result.batch_decayed),
    _Doubt("!", "the machine was busy with other work", lambda result: (result.crowded or 0.0) > CROWDED),
    _Doubt("!", "the hypervisor took the processor away", lambda result: (result.stolen or 0.0) > CROWDED),
    _Doubt("!", f"the rounds vary by more than {100 * SCATTERED:.0f} %", lambda result: scatter(result) > SCATTERED),
    _Doubt("!", "faster with reading the pixels than without", _faster_with_reading),
)

TIED_MARK = Mark(
    TIED,
    lambda row: row.model_rank is not None and row.model_rank.tied_with_leader,
    "tied for first: no model is significantly better",
    "tied for first",
)
MODEL_MARKS = (
    Mark("", _of(lambda result: result.random_weights), "random weights: for testing only", "random weights"),
    Mark("§", _of(lambda result: result.own), "your own model, not timm's", "own model"),
    Mark(
        "¶",
        _of(lambda result: "classifier" in result.weights),
        "classifier of the file left out (only `head` uses it)",
        "classifier left out",
    ),
    Mark(
        "‖",
        _of(lambda result: "resampled" in result.weights),
        "timm resized tensors of the file (resample = true)",
        "tensors resized",
    ),
)
TOKENS_MARK = Mark("†", _of(lambda result: bool(result.token_mean)), "mean of the model's tokens", "mean of tokens")
SPEED_MARKS = tuple(doubt.mark for doubt in _DOUBTS)
NON_COMMERCIAL_MARK = Mark("‡", _of(non_commercial), "not for commercial use", "not for commercial use")

_MARKS = (TIED_MARK, *MODEL_MARKS, TOKENS_MARK, *SPEED_MARKS, NON_COMMERCIAL_MARK)
