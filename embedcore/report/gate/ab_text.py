"""The outcome of `embedcore ab` as text and JSON. B/A is the ratio of speeds, below 1 if B is slower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedcore.plain import counted, json_safe, wrapped
from embedcore.report.gate.model_table import TableRow, model_table
from embedcore.report.gate.stored_text import answers_json, answers_text

if TYPE_CHECKING:
    from embedcore.ab.outcome import Outcome, Row

_WIDTH = 80
_LONGEST_VERDICT = 24


def as_text(outcome: Outcome) -> str:
    """Return a table of 80 columns with a row for each model, worst first, and its causes below."""
    above = [f"{side} {name}" for side, name in outcome.sides.items()]
    headings = ("B/A", "95 % of B/A", "drift", "verdict")
    table = model_table(headings, map(_row, outcome.rows), _WIDTH, text=(3,))
    below = [f"on side {side} only: {', '.join(models)}" for side, models in outcome.alone.items() if models]
    source = "measured here by --aa" if outcome.noise_measured else "assumed; `embedcore ab --aa` measures it"
    below.append(f"Noise floor: {outcome.noise:.1%} between interleaved processes ({source}).")
    if outcome.noise_found is not None:
        interleaved, in_sequence = outcome.noise_found
        below.append(
            f"Noise floor measured now: {interleaved:.2%} between interleaved processes, {in_sequence:.2%} between "
            f"processes in sequence; saved for {outcome.machine}."
        )
    below += [f"Limits: {outcome.limits}.", _headline(outcome)]
    blocks = ["\n".join(wrapped(line, _WIDTH) for line in lines) for lines in (above, below)]
    stored = f"\n\nStored embeddings of side A, searched by side B\n\n{answers_text(outcome.stored, _WIDTH)}"
    return f"{blocks[0]}\n\n{table}\n\n{blocks[1]}{stored if outcome.stored else ''}"


def _headline(outcome: Outcome) -> str:
    """Return the verdict, which names what was not judged."""
    worse = sum(row.level == "regression" for row in outcome.rows)
    whys = ", ".join(dict.fromkeys(outcome.undecided.values()))
    left = f"speed of {len(outcome.undecided)} ({whys})" if outcome.undecided else ""
    models = counted(len(outcome.rows), "model")
    if worse:
        return f"FAILED: {models}, {worse} worse than allowed{f'; not judged: {left}' if left else ''}."
    if not outcome.passed:
        return f"NOT JUDGED: {left or models}."
    if not left:
        return f"PASSED: {models}."
    judged = len(outcome.rows) - len(outcome.undecided), sum(row.drift is not None for row in outcome.rows)
    kinds = ", ".join(f"{what} of {n}" for what, n in zip(("speed", "drift"), judged, strict=True) if n)
    return f"PASSED what was judged: {kinds}; not judged: {left}."


def _row(row: Row) -> TableRow:
    ratio, notes, verdict = row.ratio, list(row.notes), row.word
    if len(verdict) > _LONGEST_VERDICT:
        verdict, _, rest = verdict.partition(" ")
        notes.insert(0, rest)
    speed = ("-", "-") if ratio is None else (f"{ratio.ratio:.3f}", f"[{ratio.low:.3f}, {ratio.high:.3f}]")
    drift = "-" if row.drift is None else f"{row.drift:.1e}"
    return TableRow(row.model, (*speed, drift, verdict), notes)


def as_json(outcome: Outcome) -> Mapping[str, Any]:
    """Return the outcome for other programs."""
    rows = [
        {
            "model": row.model,
            "level": row.level,
            "findings": [
                {key: getattr(found.change, key) for key in ("what", "base", "new", "change")}
                | {"level": found.level, "limit": found.limit}
                for found in row.findings
            ],
            "speed_ratio": None if row.ratio is None else row.ratio.ratio,
            "interval95": None if row.ratio is None else [row.ratio.low, row.ratio.high],
            "processes": 0 if row.ratio is None else 2 * row.ratio.pairs,
            "drift": row.drift,
            "origin": None if row.origin is None else row.origin.to_json(),
            "notes": row.notes,
        }
        for row in outcome.rows
    ]
    found: Mapping[str, Any] = json_safe(
        {
            "sides": outcome.sides,
            "models": rows,
            "alone": outcome.alone,
            "noise": outcome.noise,
            "noise_measured": outcome.noise_measured,
            "noise_found": None if outcome.noise_found is None else outcome.noise_found._asdict(),
            "machine": outcome.machine,
            "limits": outcome.limits.overall,
            "undecided": outcome.undecided,
            "passed": outcome.passed,
            "stored": answers_json(outcome.stored),
        }
    )
    return found
