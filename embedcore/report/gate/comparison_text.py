"""A comparison and its verdict as text and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from embedcore.compare.comparison import Comparison
from embedcore.compare.judged import SUSPECT, headline, names_of, reasons
from embedcore.compare.scores import Change
from embedcore.compare.timings import Basis
from embedcore.compare.verdict import ALL_MODELS, LEVELS, Finding, Level, Verdict
from embedcore.plain import counted, one_line, wrapped
from embedcore.report.board.columns import NOTHING, cut, figure
from embedcore.report.board.markdown import escape
from embedcore.report.change_text import signed
from embedcore.report.gate.model_table import TableRow, model_table
from embedcore.results.headline import headline_scores
from embedcore.results.result import Result
from embedcore.results.run import Run

_HEADINGS: Mapping[Level, str] = {
    "regression": "REGRESSIONS",
    "undecided": "Undecided: perhaps slower than the limits allow",
    "accepted": "Accepted",
    "improvement": "Better",
    "change": "Worse, but within its limit or without a limit",
}
_SCOPE = {"scores": "scores and embeddings", "speed": "speed and memory", "images_per_s": "speed"}
_MOST_ROWS = 30  # of a section in the terminal
_MOST_NAMES = 5
_VERSIONS = ("timm", "torch", "cuda", "cudnn", "driver", "gpu", "processor", "python")
_MOST_CHANGES = 3
_LONGEST_CHANGE = 60  # characters
_CELLS = ("what", "base", "new", "change (95 %)")


def text(comparison: Comparison, verdict: Verdict, *, width: int = 80) -> str:
    """Return the findings, worst first, at most `width` columns wide (at least 60), below their title; the verdict is
    the last line."""
    blocks = [
        wrapped(title(comparison, verdict), width),
        "\n".join(wrapped(line, width) for line in (*facts(comparison, verdict), limits_line(verdict))),
    ]
    for level in LEVELS:
        found = verdict.of(level)
        if found:
            rest = len(found) - _MOST_ROWS
            more = [f"… {rest} more; --format markdown shows all"] if rest > 0 else []
            table = model_table(_CELLS, _rows(found[:_MOST_ROWS]), width, text=(0,))
            blocks.append("\n".join([heading_of(level, found), table, *more]))
    blocks += [block for block in (_families(comparison, "plain"), _ranks(comparison, width)) if block]
    return "\n\n".join([*blocks, wrapped(summary(comparison, verdict), width)])


def markdown(comparison: Comparison, verdict: Verdict) -> str:
    """Return all findings, for a step summary or a comment."""
    blocks = [
        f"## {escape(title(comparison, verdict))}",
        f"**{summary(comparison, verdict)}**",
        "\n".join(f"- {line}" for line in (*facts(comparison, verdict), limits_line(verdict))),
    ]
    for level in LEVELS:
        found = verdict.of(level)
        if found:
            rows = [
                (f"`{f.model}`", *cells_of(f.change), "; ".join(filter(None, [f.because, *f.causes]))) for f in found
            ]
            escaped = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
            table = tabulate(escaped, headers=("model", *_CELLS, "why"), tablefmt="github", disable_numparse=True)
            blocks.append(f"### {heading_of(level, found)}\n\n{table}")
    return "\n\n".join(filter(None, [*blocks, _families(comparison, "github")])) + "\n"


def title(comparison: Comparison, verdict: Verdict) -> str:
    """Return what changed and its effect: ``timm 1.0.19 → 1.0.31: 3 of 24 models worse``."""
    worse = {finding.model for finding in verdict.of("regression")}
    pairing = comparison.pairing
    last = [pair for pair in pairing.pairs if not pair.measurement]
    gone = (case.model for case in (*pairing.missing, *pairing.unreached))
    models = len({*(pair.model for pair in last), *gone})
    if ALL_MODELS in worse:
        effect = f"all of {counted(models, 'model')} worse"
    elif worse or not verdict.unjudged:
        effect = f"{len(worse) or 'none'} of {counted(models, 'model')} worse"
    else:
        effect = "not judged"
    return f"{changed(comparison.base, comparison.new)}: {effect}"


def changed(base: Run, new: Run) -> str:
    """Return the versions and settings that differ, else the names of the runs."""
    found = [
        f"{key} {one_line(str(old.get(key)))} → {one_line(str(now.get(key)))}"
        for old, now, keys in (
            (base.versions, new.versions, _VERSIONS),
            (
                base.settings,
                new.settings,
                [key for key in {**base.settings, **new.settings} if key != "roster_missing"],
            ),
        )
        for key in keys
        if old.get(key) != now.get(key)
    ]
    more = f" and {len(found) - _MOST_CHANGES} more" if len(found) > _MOST_CHANGES else ""
    short = [cut(one, _LONGEST_CHANGE) for one in found[:_MOST_CHANGES]]
    return ", ".join(short) + more if found else f"{one_line(base.name)} → {one_line(new.name)}"


def summary(comparison: Comparison, verdict: Verdict) -> str:
    """Return the verdict on one line; it says PASSED only about what was judged."""
    words: Mapping[Level, str] = {
        "regression": "worse than the limits allow",
        "accepted": "changed as accepted",
        "improvement": "better",
    }
    counts = ", ".join(
        f"{len({f.model for f in verdict.of(level)})} {word}" for level, word in words.items() if verdict.of(level)
    )
    parts = headline(verdict.judged)
    compared = f"{counted(comparison.compared, 'model')} compared" + (f": {counts}" if counts else "")
    if verdict.failed:
        _, missing, rest = parts.partition("; not judged: ")
        return f"FAILED: {compared}{missing}{rest}"
    if verdict.unjudged:
        return f"CANNOT PASS: judged: {parts}"
    if verdict.undecided:
        return "; ".join(filter(None, [f"PASSED what was judged: {parts}", counts]))
    return f"PASSED: {compared}"


def sentence(finding: Finding) -> str:
    """Return a finding on one line: ``vit_tiny…: acc 0.512 → 0.498 -1.4 pt [-2.0, -0.8] (limit 0.5 pt); crop …``."""
    what, base, new, change = cells_of(finding.change)
    moved = "" if base == new == NOTHING else f" {base} → {new}"
    limit = f" (limit {limit_text(finding)})" if finding.limit else ""
    return "; ".join([f"{finding.model}: {what}{moved} {change}".rstrip() + limit, *finding.causes])


def facts(comparison: Comparison, verdict: Verdict) -> Iterator[str]:
    """Yield lines on the runs, on what was compared, and on what was not compared and why."""
    yield f"base: {_run_text(comparison.base)}"
    yield f"new:  {_run_text(comparison.new)}"
    if comparison.settings:
        yield "differs: " + "; ".join(cut(one_line(line), 100) for line in comparison.settings)
    parts = [f"{counted(len(comparison.pairing.pairs), 'model')} in both"]
    for word, results in unpaired(comparison):
        if results:
            parts.append(f"{len(results)} {word} ({names_of([result.model for result in results], _MOST_NAMES)})")
    yield "; ".join(parts)
    yield from not_compared(comparison, verdict)
    yield from speed_lines(comparison)


def limits_line(verdict: Verdict) -> str:
    """Return ``limits: acc 0.5 pt, status; nothing else is gated``."""
    return f"limits: {verdict.limits}"


def unpaired(comparison: Comparison) -> Iterator[tuple[str, Sequence[Result]]]:
    """Yield the results that only one run has, by the reason."""
    pairing = comparison.pairing
    yield "added", pairing.added
    yield "MISSING", pairing.missing
    yield "NOT REACHED", pairing.unreached
    yield "deselected in the new run", pairing.deselected


def not_compared(comparison: Comparison, verdict: Verdict, most_names: int = _MOST_NAMES) -> Iterator[str]:
    """Yield a line for each quantity that could not be compared, or not be judged, with the reason."""
    for what, why in comparison.barriers.items():
        yield f"{_SCOPE[what]} not compared: {why}"
    found: dict[tuple[str, str], list[str]] = {}
    for model in comparison.models:
        for what, why in model.barriers.items():
            if what not in comparison.barriers:
                found.setdefault((what, why), []).append(model.model)
    for (what, why), of in found.items():
        yield f"{_SCOPE[what]} of {names_of(of, most_names)} not compared: {why}"
    said = {why for _, why in found} | {*comparison.barriers.values()}
    rest = [
        replace(part, open={n: why for n, why in part.open.items() if why not in said and not why.startswith(SUSPECT)})
        for part in verdict.judged
    ]
    yield from (f"not judged: {line}" for line in reasons(rest, most_names))


_BASES: Mapping[Basis, str] = {"pinned": "one pinned thread", "threads": "all threads", "card": "the card"}


def speed_lines(comparison: Comparison) -> Iterator[str]:
    """Yield lines on how speeds were compared: what was timed, the noise, and the machine."""
    for found in comparison.speeds.noise:
        beside = ", each round relative to a matrix product beside it" if found.corrected else ""
        noise = found.noise
        yield (
            f"speed of {counted(found.models, 'model')} by {_BASES[found.basis]}{beside}: processes differ by "
            f"{100 * noise.sd:.1f} % (one standard deviation, from {noise.freedom} degrees of freedom)"
        )
    if comparison.speeds.noise and comparison.speeds.machine:
        yield comparison.speeds.machine


def heading_of(level: Level, found: Sequence[Finding]) -> str:
    return f"{_HEADINGS[level]}: {counted(len({finding.model for finding in found}), 'model')}"


def cells_of(change: Change) -> tuple[str, str, str, str]:
    """Return what, base, new, change."""
    match change.what:
        case "status" | "degraded":
            return change.what, str(change.base), str(change.new), ""
        case "drift":
            return "drift", str(change.base or NOTHING), str(change.new or NOTHING), f"{change.change:.2g}"
        case "images_per_s":
            ratio = _with_interval(change, lambda c: f"{1 - c:.3f}")
            return "images/s", _figure(change.base), _figure(change.new), f"×{ratio}"
        case "memory":
            return "memory MB", _figure(change.base), _figure(change.new), f"×{1 + change.change:.2f}"
        case _:
            base, new = (NOTHING if value is None else f"{value:.3f}" for value in (change.base, change.new))
            return change.what, base, new, _with_interval(change, points) + " pt"


def _with_interval(change: Change, show: Callable[[float], str]) -> str:
    if change.low is None or change.high is None:
        return show(change.change)
    return f"{show(change.change)} [{show(change.high)}, {show(change.low)}]"


def points(worse: float) -> str:
    """Return a change for the worse (a fraction) as percentage points, positive if better."""
    return signed(-100 * worse, 2)


def limit_text(finding: Finding) -> str:
    limit = finding.limit or 0.0
    match finding.change.what:
        case "images_per_s" | "memory":
            return f"{100 * limit:g} %"
        case "drift":
            return f"{limit:g}"
        case _:
            return f"{100 * limit:g} pt"


def family_rows(comparison: Comparison) -> list[tuple[str, int, str, str]]:
    """Return slug, number of models, speed ratio and change of acc of each family."""
    return [
        (
            family.family,
            family.models,
            NOTHING if family.speed_ratio is None else f"×{family.speed_ratio:.3f}",
            NOTHING if family.acc_change is None else f"{points(-family.acc_change)} pt",
        )
        for family in comparison.families
    ]


def rank_lines(comparison: Comparison) -> list[str]:
    """Return a line for each model whose rank changed."""
    return [
        f"{rank.model}: {rank.base[0]} [{rank.base[1]}, {rank.base[2]}] → {rank.new[0]} [{rank.new[1]}, {rank.new[2]}]"
        for rank in comparison.ranks
    ]


def _rows(found: Sequence[Finding]) -> Iterator[TableRow]:
    """Yield a row for each finding: the first of a model has its name, the last its causes."""
    for place, finding in enumerate(found):
        first = place == 0 or found[place - 1].model != finding.model
        last = place + 1 == len(found) or found[place + 1].model != finding.model
        reasons = [f"accepted: {finding.because}"] if finding.because else []
        yield TableRow(
            finding.model if first else "", cells_of(finding.change), [*reasons, *finding.causes] if last else ()
        )


def _families(comparison: Comparison, tablefmt: str) -> str:
    rows = family_rows(comparison)
    first = headline_scores(comparison.new.dataset).first
    heads = ("family", "models", "images/s (geometric mean)", f"{first} (mean)")
    return tabulate(rows, headers=heads, tablefmt=tablefmt, disable_numparse=True) if len(rows) > 1 else ""


def _ranks(comparison: Comparison, width: int) -> str:
    lines = rank_lines(comparison)[:_MOST_ROWS]
    heading = f"Ranks by {headline_scores(comparison.new.dataset).first} outside both 95 % intervals"
    return "\n".join([heading, *(wrapped(f"  {line}", width) for line in lines)]) if lines else ""


def _run_text(run: Run) -> str:
    versions = [f"{name} {run.versions[name]}" for name in ("timm", "torch") if run.versions.get(name)]
    day = [run.datetime[:10]] if run.datetime else []
    return ", ".join([one_line(run.name), *versions, *([one_line(run.processor)] if run.processor else []), *day])


def _figure(value: Any) -> str:
    return figure(value) if isinstance(value, float | int) else NOTHING
