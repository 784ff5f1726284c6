"""The table of a comparison of two sides, and its JSON. B/A is the ratio of speeds: less than 1 where B is slower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embedcore.plain import json_safe, wrapped

if TYPE_CHECKING:
    from embedcore.ab.outcome import Outcome, Row

_LINE = 80
_NAME, _WORD = 24, 24


def as_text(outcome: Outcome) -> str:
    """One row a model, worst first, within 80 columns; what has a cause or a reason says it under its row."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    yield wrapped(f"A {outcome.sides['A']}", _LINE)
    yield wrapped(f"B {outcome.sides['B']}", _LINE)
    yield ""
    yield f"{'model':<{_NAME}} {'B/A':>6} {'95 % of B/A':>14} {'drift':>7}  verdict"
    for row in outcome.rows:
        yield from _row(row)
    yield ""
    for side, models in outcome.alone.items():
        if models:
            yield wrapped(f"on side {side} only: {', '.join(models)}", _LINE)
    found = "measured here by --aa" if outcome.noise_measured else "assumed; `embedcore ab --aa` measures it"
    yield wrapped(f"Noise floor: {outcome.noise:.1%} between two processes in turn ({found}).", _LINE)
    if outcome.noise_found is not None:
        in_turn, in_sequence = outcome.noise_found
        yield wrapped(
            f"Noise floor found now: {in_turn:.2%} between processes in turn, {in_sequence:.2%} between processes one "
            f"after the other, kept for {outcome.machine}.",
            _LINE,
        )
    worse = sum(row.level == "regression" for row in outcome.rows)
    yield f"{len(outcome.rows)} models, {worse} worse than allowed."


def _row(row: Row) -> Iterator[str]:
    """A name that is too long for its column comes on a line of its own."""
    ratio = row.ratio
    speed = "-" if ratio is None else f"{ratio.ratio:.3f}"
    interval = "-" if ratio is None else f"[{ratio.low:.3f}, {ratio.high:.3f}]"
    drift = "-" if row.drift is None else f"{row.drift:.1e}"
    word, notes = row.word, list(row.notes)
    if len(word) > _WORD:
        word, _, rest = word.partition(" ")
        notes.insert(0, rest)
    name = row.model
    if len(name) > _NAME:
        yield name
        name = ""
    yield f"{name:<{_NAME}} {speed:>6} {interval:>14} {drift:>7}  {word}"
    for note in notes:
        yield wrapped(f"    {note}", _LINE)


def as_json(outcome: Outcome) -> Mapping[str, Any]:
    """The same for programs."""
    rows = [
        {
            "model": row.model,
            "level": row.level,
            "findings": [
                {"what": f.change.what, "level": f.level, "base": f.change.base, "new": f.change.new,
                 "change": f.change.change, "limit": f.limit}
                for f in row.findings
            ],
            "speed_ratio": None if row.ratio is None else row.ratio.ratio,
            "interval95": None if row.ratio is None else [row.ratio.low, row.ratio.high],
            "processes": 0 if row.ratio is None else 2 * row.ratio.pairs,
            "drift": row.drift,
            "notes": row.notes,
        }
        for row in outcome.rows
    ]  # fmt: skip
    found: Mapping[str, Any] = json_safe(
        {
            "sides": outcome.sides,
            "models": rows,
            "alone": outcome.alone,
            "noise": outcome.noise,
            "noise_measured": outcome.noise_measured,
            "noise_found": None if outcome.noise_found is None else outcome.noise_found._asdict(),
            "machine": outcome.machine,
            "passed": outcome.passed,
        }
    )
    return found
