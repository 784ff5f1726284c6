"""A comparison and its verdict for other programs: JSON, JUnit XML, GitHub."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from embedcore.compare.comparison import Comparison
from embedcore.compare.judged import Judged
from embedcore.compare.verdict import Finding, Verdict
from embedcore.errors import UsageError
from embedcore.plain import json_safe
from embedcore.report.gate.comparison_text import markdown, sentence
from embedcore.results.headline import headline_scores
from embedcore.results.run import Run

SCHEMA = 1


def to_json(comparison: Comparison, verdict: Verdict) -> dict[str, Any]:
    """Return the findings with all their numbers; ``schema`` 1."""
    pairing = comparison.pairing
    of_family = "family", "models", "speed_ratio", f"{headline_scores(comparison.new.dataset).first}_change"
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
        "limits": json_safe(verdict.limits.overall),
        "speed_noise": [
            {**found.noise._asdict(), "basis": found.basis, "models": found.models, "corrected": found.corrected}
            for found in comparison.speeds.noise
        ],
        "machine": comparison.speeds.machine,
        "judged": [
            {"what": part.what, "judged": part.judged, "not_judged": dict(part.open)} for part in verdict.judged
        ],
        "suspects": list(verdict.suspects),
        "findings": [_finding(finding) for finding in verdict.findings],
        "families": [dict(zip(of_family, family, strict=True)) for family in comparison.families],
        "ranks": [rank._asdict() for rank in comparison.ranks],
    }


def _run(run: Run) -> dict[str, Any]:
    return {"file": str(run.path), "name": run.name, "datetime": run.datetime, "machine": json_safe(run.versions)}


def _finding(finding: Finding) -> dict[str, Any]:
    fields = {name: getattr(finding, name) for name in ("level", "model", "family", "limit", "because")}
    plain: dict[str, Any] = json_safe(fields | vars(finding.change) | {"causes": finding.causes})
    return plain


def junit(comparison: Comparison, verdict: Verdict) -> str:
    """Return JUnit XML: a test case for each model, one failure with all its regressions.

    A model with a quantity that could not be judged is skipped, or an error if nothing can pass without the quantity.
    """
    models = dict.fromkeys([*(model.model for model in comparison.models), *(f.model for f in verdict.findings)])
    failed: dict[str, list[str]] = {}
    for finding in verdict.of("regression"):
        failed.setdefault(finding.model, []).append(sentence(finding))
    outcomes = {name: ("failure", lines) for name, lines in failed.items()}
    for kind, parts in (("error", verdict.unjudged), ("skipped", verdict.undecided)):
        for name, lines in _open(parts).items():
            outcomes.setdefault(name, (kind, lines))
    counts: dict[str, str] = {
        total: str(sum(found == kind for found, _ in outcomes.values()))
        for kind, total in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped"))
    }
    suite = ElementTree.Element("testsuite", {"name": "embedcore compare", "tests": str(len(models)), **counts})
    for name in models:
        case = ElementTree.SubElement(suite, "testcase", classname="embedcore.compare", name=name)
        if name in outcomes:
            kind, lines = outcomes[name]
            ElementTree.SubElement(case, kind, message=lines[0]).text = "\n".join(lines)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _open(parts: Sequence[Judged]) -> dict[str, list[str]]:
    """Return for each model a line for each quantity that was not judged."""
    lines: dict[str, list[str]] = {}
    for part in parts:
        for name, why in part.open.items():
            lines.setdefault(name, []).append(f"{part.what} not judged: {why}")
    return lines


def workflow_commands(verdict: Verdict) -> list[str]:
    """Return GitHub's workflow commands: an error for each regression (GitHub shows ten per step)."""
    return [
        f"::error title=embedcore {finding.model}::{_escape(sentence(finding))}" for finding in verdict.of("regression")
    ]


def report_to_github(comparison: Comparison, verdict: Verdict) -> None:
    """Write annotations and the step summary when running in a GitHub workflow. Raises UsageError."""
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
