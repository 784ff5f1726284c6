"""A comparison and its verdict for people and for other programs: text, Markdown, JSON, JUnit XML, GitHub."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from embedcore.compare.comparison import Change, Comparison
from embedcore.compare.verdict import LEVELS, Finding, Level, Verdict
from embedcore.errors import UsageError
from embedcore.plain import json_safe, one_line, wrapped
from embedcore.report.board.columns import NOTHING, cut, figure
from embedcore.results.result import Result
from embedcore.results.run import Run

SCHEMA = 1

_HEADINGS: Mapping[Level, str] = {
    "regression": "REGRESSIONS",
    "accepted": "Accepted",
    "improvement": "Better",
    "change": "Worse, within the limits or without one",
}
_MOST_ROWS = 30  # of a section in the terminal
_MOST_NAMES = 5
_HEAD = ("model", "what", "base", "new", "change (95 %)")


def text(comparison: Comparison, verdict: Verdict, *, width: int = 80) -> str:
    """The worst first, at most `width` columns wide (below 60 a table is wider); the verdict is the last line."""
    blocks = ["\n".join(wrapped(line, width) for line in facts(comparison))]
    for level in LEVELS:
        found = verdict.of(level)
        if found:
            rest = len(found) - _MOST_ROWS
            more = [f"… {rest} more; --format markdown shows all"] if rest > 0 else []
            blocks.append("\n".join([heading_of(level, found), _table(found[:_MOST_ROWS], width), *more]))
    blocks += [block for block in (_families(comparison, "plain"), _ranks(comparison, width)) if block]
    return "\n\n".join([*blocks, wrapped(summary(comparison, verdict), width)])


def markdown(comparison: Comparison, verdict: Verdict) -> str:
    """Everything, for a step summary or a comment."""
    blocks = [f"**{summary(comparison, verdict)}**", "\n".join(f"- {line}" for line in facts(comparison))]
    for level in LEVELS:
        found = verdict.of(level)
        if found:
            rows = [
                (f"`{f.model}`", *cells_of(f.change), "; ".join(filter(None, [f.because, *f.causes]))) for f in found
            ]
            table = tabulate(_escaped(rows), headers=(*_HEAD, "why"), tablefmt="github", disable_numparse=True)
            blocks.append(f"### {heading_of(level, found)}\n\n{table}")
    families = _families(comparison, "github")
    return "\n\n".join([*blocks, *([families] if families else [])]) + "\n"


def to_json(comparison: Comparison, verdict: Verdict) -> dict[str, Any]:
    """Findings with all their numbers; ``schema`` 1."""
    pairing = comparison.pairing
    return {
        "schema": SCHEMA,
        "passed": verdict.passed,
        "base": _run(comparison.base),
        "new": _run(comparison.new),
        "compared": comparison.compared,
        "not_compared": {
            "runs": dict(comparison.barriers),
            "models": {model.model: dict(model.barriers) for model in comparison.models if model.barriers},
        },
        "added": [result.model for result in pairing.added],
        "missing": [result.model for result in pairing.missing],
        "not_reached": [result.model for result in pairing.unreached],
        "deselected": [result.model for result in pairing.deselected],
        "differences": list(comparison.settings),
        "speed_noise": {"sd": comparison.noise, "source": comparison.noise_source},
        "findings": [_finding(finding) for finding in verdict.findings],
        "families": [family._asdict() for family in comparison.families],
        "ranks": [rank._asdict() for rank in comparison.ranks],
    }


def junit(comparison: Comparison, verdict: Verdict) -> str:
    """JUnit XML: a test case a model, a failure for each regression."""
    everyone = dict.fromkeys([*(model.model for model in comparison.models), *(f.model for f in verdict.findings)])
    failed = {model: list(found) for model, found in groupby(sorted(verdict.of("regression"), key=_model), _model)}
    suite = ElementTree.Element(
        "testsuite", name="embedcore compare", tests=str(len(everyone)), failures=str(len(failed)), errors="0"
    )
    for name in everyone:
        case = ElementTree.SubElement(suite, "testcase", classname="embedcore.compare", name=name)
        lines = [sentence(finding) for finding in failed.get(name, [])]
        if lines:
            ElementTree.SubElement(case, "failure", message=lines[0]).text = "\n".join(lines)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def workflow_commands(verdict: Verdict) -> list[str]:
    """GitHub's workflow commands: an error for each regression, of which GitHub shows ten a step."""
    return [
        f"::error title=embedcore {finding.model}::{_escape(sentence(finding))}" for finding in verdict.of("regression")
    ]


def tell_github(comparison: Comparison, verdict: Verdict) -> None:
    """Annotations and the step summary, where this runs in a workflow of GitHub. Raises UsageError."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    print(*workflow_commands(verdict), sep="\n", file=sys.stderr)
    summary_file = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary_file:
        try:
            with Path(summary_file).open("a", encoding="utf-8") as file:
                file.write(markdown(comparison, verdict))
        except OSError as error:
            raise UsageError(f"GITHUB_STEP_SUMMARY: {summary_file} cannot be written: {error.strerror}") from error


def _escape(line: str) -> str:
    return line.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def summary(comparison: Comparison, verdict: Verdict) -> str:
    """One line: what the gate says."""
    words: Mapping[Level, str] = {
        "regression": "worse than the limits allow",
        "accepted": "changed as accepted",
        "improvement": "better",
    }
    counts = [
        f"{len({f.model for f in verdict.of(level)})} {word}" for level, word in words.items() if verdict.of(level)
    ]
    said = f": {', '.join(counts)}" if counts else ""
    return f"{'PASSED' if verdict.passed else 'FAILED'}: {_models(comparison.compared)} compared{said}"


def sentence(finding: Finding) -> str:
    """A finding on one line, such as ``vit_tiny…: acc 0.512 → 0.498, -1.4 pt [-2.0, -0.8] (limit 0.5 pt); crop …``."""
    what, base, new, change = cells_of(finding.change)
    moved = "" if base == new == NOTHING else f" {base} → {new}"
    limit = f" (limit {limit_words(finding)})" if finding.limit else ""
    return "; ".join([f"{finding.model}: {what}{moved} {change}".rstrip() + limit, *finding.causes])


def facts(comparison: Comparison) -> Iterator[str]:
    """What was compared with what, and what was not and why."""
    base, new, pairing = comparison.base, comparison.new, comparison.pairing
    yield f"base: {_run_words(base)}"
    yield f"new:  {_run_words(new)}"
    if comparison.settings:
        yield "differs: " + "; ".join(cut(one_line(line), 100) for line in comparison.settings)
    parts = [f"{_models(len(pairing.pairs))} in both"]
    for word, results in unpaired(comparison):
        if results:
            parts.append(f"{len(results)} {word} ({names(result.model for result in results)})")
    yield "; ".join(parts)
    yield from not_compared(comparison)
    if "speed" not in comparison.barriers:
        yield noise_words(comparison)


def unpaired(comparison: Comparison) -> Iterator[tuple[str, Sequence[Result]]]:
    """The results of one side only, and in a word what they are."""
    pairing = comparison.pairing
    yield "added", pairing.added
    yield "MISSING", pairing.missing
    yield "NOT REACHED", pairing.unreached
    yield "not asked for in the new run", pairing.deselected


def not_compared(comparison: Comparison, most_names: int = _MOST_NAMES) -> Iterator[str]:
    """What could not be compared, and why."""
    for what, why in comparison.barriers.items():
        yield f"{_SCOPE[what]} not compared: {why}"
    reasons: dict[tuple[str, str], list[str]] = {}
    for model in comparison.models:
        for what, why in model.barriers.items():
            if what not in comparison.barriers:
                reasons.setdefault((what, why), []).append(model.model)
    for (what, why), of in reasons.items():
        yield f"{_SCOPE[what]} of {names(of, most_names)} not compared: {why}"


def noise_words(comparison: Comparison) -> str:
    """How far the speeds of two sessions differ by chance."""
    source = {
        "assumed": "assumed; `embedcore ab --aa` measures it",
        "ab --aa": "measured by ab --aa",
        "models": "as these models differ among one another",
    }[comparison.noise_source]
    return f"speed of two sessions differs by chance by {comparison.noise:.1%} (one standard deviation, {source})"


_SCOPE = {"scores": "scores and embeddings", "speed": "speed and memory", "images_per_s": "speed"}


def _run(run: Run) -> dict[str, Any]:
    return {"file": str(run.path), "name": run.name, "datetime": run.datetime, "machine": json_safe(run.versions)}


def _run_words(run: Run) -> str:
    versions = [f"{name} {run.versions[name]}" for name in ("timm", "torch") if run.versions.get(name)]
    day = [run.datetime[:10]] if run.datetime else []
    return ", ".join([one_line(run.name), *versions, *([one_line(run.processor)] if run.processor else []), *day])


def _finding(finding: Finding) -> dict[str, Any]:
    fields = {name: getattr(finding, name) for name in ("level", "model", "family", "limit", "because")}
    plain: dict[str, Any] = json_safe(fields | vars(finding.change) | {"causes": finding.causes})
    return plain


def heading_of(level: Level, found: Sequence[Finding]) -> str:
    return f"{_HEADINGS[level]}: {_models(len({finding.model for finding in found}))}"


def _table(found: Sequence[Finding], width: int) -> str:
    """Rows of one level. Below a model's last row stand its causes; a long name has a line of its own."""
    cells = [cells_of(finding.change) for finding in found]
    heads = _HEAD[1:]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    room = max(20, width - sum(widths) - 2 * len(widths))
    lines = [_row("model", heads, room, widths)]
    for place, (finding, row) in enumerate(zip(found, cells, strict=True)):
        first = place == 0 or found[place - 1].model != finding.model
        name = finding.model if first else ""
        if len(name) > room:
            lines.append(cut(name, width))
            name = ""
        lines.append(_row(name, row, room, widths))
        if place + 1 == len(found) or found[place + 1].model != finding.model:
            reasons = [f"accepted: {finding.because}"] if finding.because else []
            for reason in (*reasons, *finding.causes):
                lines.append(wrapped(f"  {one_line(reason)}", width))
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str], room: int, widths: Sequence[int]) -> str:
    what, *figures = (
        f"{cell:<{size}}" if at == 0 else f"{cell:>{size}}"
        for at, (cell, size) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([f"{name:<{room}}", what, *figures]).rstrip()


def cells_of(change: Change) -> tuple[str, str, str, str]:
    """what, base, new, change."""
    match change.what:
        case "status":
            return "status", str(change.base), str(change.new), ""
        case "drift":
            return "drift", str(change.base or NOTHING), str(change.new or NOTHING), f"{change.change:.2g}"
        case "images_per_s":
            return (
                "images/s",
                _figure(change.base),
                _figure(change.new),
                _interval(change, lambda c: f"{1 - c:.3f}", "×"),
            )
        case "memory":
            return "memory MB", _figure(change.base), _figure(change.new), f"×{1 + change.change:.2f}"
        case _:
            score = [NOTHING if value is None else f"{value:.3f}" for value in (change.base, change.new)]
            return change.what, *score, _interval(change, points, "") + " pt"  # type: ignore[return-value]


def _interval(change: Change, show: Callable[[float], str], sign: str) -> str:
    if change.low is None or change.high is None:
        return f"{sign}{show(change.change)}"
    return f"{sign}{show(change.change)} [{show(change.high)}, {show(change.low)}]"


def points(worse: float) -> str:
    return f"{-100 * worse:+.2f}".replace("-0.00", "+0.00")


def _figure(value: Any) -> str:
    return figure(value) if isinstance(value, float | int) else NOTHING


def limit_words(finding: Finding) -> str:
    limit = finding.limit or 0.0
    match finding.change.what:
        case "images_per_s" | "memory":
            return f"{100 * limit:g} %"
        case "drift":
            return f"{limit:g}"
        case _:
            return f"{100 * limit:g} pt"


def family_rows(comparison: Comparison) -> list[tuple[str, int, str, str]]:
    """Slug, models, speed and acc of each family."""
    return [
        (
            family.family,
            family.models,
            NOTHING if family.speed_ratio is None else f"×{family.speed_ratio:.3f}",
            NOTHING if family.acc_change is None else f"{points(-family.acc_change)} pt",
        )
        for family in comparison.families
    ]


def _families(comparison: Comparison, tablefmt: str) -> str:
    rows = family_rows(comparison)
    heads = ("family", "models", "images/s (geometric mean)", "acc (mean)")
    return tabulate(rows, headers=heads, tablefmt=tablefmt, disable_numparse=True) if len(rows) > 1 else ""


def rank_lines(comparison: Comparison) -> list[str]:
    """A line for each model whose rank moved."""
    return [
        f"{rank.model}: {rank.base[0]} [{rank.base[1]}, {rank.base[2]}] → {rank.new[0]} [{rank.new[1]}, {rank.new[2]}]"
        for rank in comparison.ranks
    ]


def _ranks(comparison: Comparison, width: int) -> str:
    lines = rank_lines(comparison)[:_MOST_ROWS]
    if not lines:
        return ""
    heading = "Ranks by acc that left both 95 % intervals"
    return "\n".join([heading, *(wrapped(f"  {line}", width) for line in lines)])


def names(of: Iterable[str], most: int = _MOST_NAMES) -> str:
    """The first ones, and how many more."""
    everyone = list(of)
    more = len(everyone) - most
    return ", ".join(everyone[:most]) + (f" and {more} more" if more > 0 else "")


def _models(count: int) -> str:
    return f"{count:,} model{'' if count == 1 else 's'}"


def _model(finding: Finding) -> str:
    return finding.model


def _escaped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    return [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
