"""Write docs/timm-history.md from the journal of `releases.py` and the changes checked by hand in releases.toml.

    python benchmarks/harness/releases_page.py FOLDER

A change without an entry in releases.toml is not published; the script names it on standard error.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import releases
import tomlkit
from releases import Journal, Move

from embedcore.compare.configurations import compare_configurations
from embedcore.zoo.configurations import read_configurations
from embedcore.zoo.registry import module_of

PAGE = Path(__file__).parents[2] / "docs" / "timm-history.md"
CHECKED = Path(__file__).with_name("releases.toml")
MOST_NAMES = 6
OTHER_CODE = "same settings, other code"

INTRODUCTION = """\
# What releases of timm changed in embeddings

Embeddings of one model with the same weights can differ between two releases of timm: a query embedded by the new
release then does not fit an index built by the old one. This page lists every such change that
`benchmarks/harness/releases.py` found from timm {first} to {last}. Each was checked by hand against the sources of both
releases. "Silent" means that the release notes in the README of the new release do not mention it.

To check your own models and weights: `embedcore ab --baseline timm==OLD --candidate timm==NEW -- -k MODEL`.

The page is written by a script; do not edit it.
"""

METHOD = """\
## How this was found

    python benchmarks/harness/releases.py run FOLDER        # {hours:.1f} hours of one core so far
    python benchmarks/harness/releases.py explain FOLDER
    python benchmarks/harness/releases_page.py FOLDER

Each architecture is built in both releases with weights that depend only on the name and shape of each tensor, and
embeds 8 images at the first of these sizes that it accepts: 96, 112, 128, … 384 pixels. An embedding is the input of
the classifier, `forward_head(forward_features(x), pre_logits=True)`, on the CPU, in fp32, with torch {torch}. It has
moved if the mean distance is above {rounding:g} of its length. An architecture whose executed functions are equal in
the next release is not run again.

| what | number |
|---|---|
"""

LEFT_OUT = """\
Left out:

- architectures above {most:.0f} M parameters, unless their module of timm has no smaller one;
- architectures that timm {last} does not have or has no weights for;
- a change that a later release took back, for what was not yet compared one by one;
- another path through a model than the embedding: the classifier, features of several stages, training;
- what happens only at other image sizes than the one used, in half precision, or on a card;
- the loading and conversion of pretrained weights, and the weights themselves.
"""


@dataclass(frozen=True)
class Coverage:
    """Counts of pairs: two successive releases and an architecture."""

    architectures: tuple[str, ...]
    """Those that ran in two releases or more."""
    compared: int
    """Both releases ran, or have equal code."""
    enclosed: int
    """Not run in both, but the embeddings before and after are equal."""
    missing: int
    """Neither."""
    runs: int
    hours: float
    failed: tuple[str, ...]
    """Architectures that failed in a release."""


def coverage(versions: Sequence[str], journal: Journal) -> Coverage:
    """Count what was tried."""
    compared = enclosed = missing = 0
    runs = {
        model: known
        for model in sorted({model for _, model in journal.lines})
        if len(known := [version for version in versions if journal.measured(version, model)]) > 1
    }
    for model, known in runs.items():
        for old, new in itertools.pairwise(known):
            gap = versions.index(new) - versions.index(old)
            if gap == 1:
                compared += 1
            elif releases.moved(journal.measured(old, model), journal.measured(new, model)):
                missing += gap
            else:
                enclosed += gap
    seconds = [line["seconds"] for line in journal.lines.values() if "seconds" in line]
    failed = {model for (_, model), line in journal.lines.items() if "error" in line}
    hours = sum(seconds) / 3600
    return Coverage(tuple(runs), compared, enclosed, missing, len(seconds), hours, tuple(sorted(failed)))


@dataclass(frozen=True)
class Change:
    """A checked change of code and the moves that it explains."""

    entry: Mapping[str, Any]
    moves: tuple[Move, ...]

    @property
    def releases(self) -> str:
        return f"{self.moves[0].old} → {self.moves[0].new}"

    def row(self, folder: Path) -> str:
        """Return a row of the table."""
        origin = releases.origin_text(self.moves[0], folder).removeprefix("began in ").removesuffix(f": {OTHER_CODE}")
        drifts = [move.drift for move in self.moves]
        return _row(self.releases, _names(self.models), _range(drifts), origin, _noted(self.entry))

    def paragraph(self) -> str:
        """Return what changed, and where in the source."""
        return f"- **{self.releases}, {_names(self.models)}**: {self.entry['what']} Source: {self.entry['source']}."

    @property
    def models(self) -> list[str]:
        return [move.model for move in self.moves]


def changes(moves: Sequence[Move], checked: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """Yield the checked changes; print the moves that none explains."""
    left = list(moves)
    for entry in checked:
        mine = [move for move in left if move.new == entry["release"] and _matches(move.model, entry["models"])]
        left = [move for move in left if move not in mine]
        if mine:
            yield Change(entry, tuple(mine))
    for move in left:
        print(f"not checked: {move}", file=sys.stderr)


def setting_rows(versions: Sequence[str], checked: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    """Yield a row for each change of an image transform."""
    for old, new in itertools.pairwise(versions):
        before, after = (read_configurations(version, folder) for version in (old, new))
        for group in compare_configurations(before, after).of("transform"):
            entries = [
                entry
                for entry in checked
                if entry["release"] == new
                and entry["cause"] == group.cause
                and set(entry["models"]) >= set(group.models)
            ]
            if entries:
                yield _row(
                    f"{old} → {new}", _names(group.models), group.cause, entries[0]["source"], _noted(entries[0])
                )
            else:
                print(f"not checked: {new} {group}", file=sys.stderr)


def _matches(model: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(model, glob) for glob in globs)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _names(models: Iterable[str]) -> str:
    names = [f"`{model}`" for model in models]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _range(drifts: Sequence[float]) -> str:
    if math.inf in drifts:
        return "another width"
    low, high = min(drifts), max(drifts)
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _noted(entry: Mapping[str, Any]) -> str:
    return f'noted: "{entry["noted"]}"' if entry["noted"] else "silent"


def page(folder: Path) -> str:
    """Return the page."""
    import torch

    versions, journal = releases.releases(), Journal(folder / "journal.jsonl")
    checked = tomlkit.parse(CHECKED.read_bytes()).unwrap()
    found = coverage(versions, journal)
    moves = releases.moves(versions, journal)
    known = list(changes(moves, checked["change"]))
    modules = {module_of(model) for model in found.architectures}
    intended = {model for models in releases.size_classes() for model in models}
    counts = {
        "releases": len(versions),
        "pairs of successive releases": len(versions) - 1,
        "architectures to try": len(intended),
        "architectures compared so far, in two releases or more": len(found.architectures),
        "modules of timm that they come from": len(modules),
        "pairs of releases × architectures compared in both releases": found.compared,
        "not yet compared one by one, but equal in an earlier and a later release": found.enclosed,
        "between two releases that differ, not yet narrowed down": found.missing,
        "models built and run": found.runs,
        "moved between two successive releases": len(moves),
        "failed in some release": len(found.failed),
    }
    failed = f"\nFailed in a release, so compared only in the others: {_names(found.failed)}.\n" if found.failed else ""
    parts = [
        INTRODUCTION.format(first=versions[0], last=versions[-1]),
        "## Code\n",
        "Drift is the mean distance by which an embedding moved, over its length, with the weights used here.\n",
        _row("releases", "models", "drift", "began in", "release notes"),
        "|---|---|---|---|---|",
        *(change.row(folder) for change in known),
        "",
        *(change.paragraph() for change in known),
        "",
        "## Image transforms\n",
        "Tags whose default crop, interpolation, mean or std changed.\n",
        _row("releases", "models", "change", "source", "release notes"),
        "|---|---|---|---|---|",
        *setting_rows(versions, checked["setting"], folder),
        "",
        METHOD.format(hours=found.hours, torch=torch.__version__.partition("+")[0], rounding=releases.ROUNDING)
        + "\n".join(_row(name, f"{number:,}") for name, number in counts.items()),
        "",
        LEFT_OUT.format(most=releases.MOST_PARAMS_M, last=versions[-1]) + failed,
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])), encoding="utf-8")
