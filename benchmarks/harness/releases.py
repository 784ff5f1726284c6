"""Find which timm releases changed the embeddings of equal weights, and where the change began.

    python benchmarks/harness/releases.py run FOLDER      # hours; continues when it is run again
    python benchmarks/harness/releases.py explain FOLDER  # traces what moved, for `releases_page.py`

FOLDER gets the releases and the journal, a JSON line for each release and architecture. One process a release embeds
8 images with all architectures of a size class; an architecture whose executed code is the same as in the release
before is not run again (`release_side.py`).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedcore.compare.causes import rounding
from embedcore.compare.origin import origin_of
from embedcore.compare.statistics import embedding_drift
from embedcore.embed.sketch import SKETCH_DIM
from embedcore.embed.trace import Trace
from embedcore.packages import installed
from embedcore.zoo.registry import default_tag, known_params_m, module_of, pretrained_tags, split_tag

OLDEST = (0, 9, 16)
MOST_PARAMS_M = 60.0
CLASSES_M = (12.0, 30.0, MOST_PARAMS_M)
"""Size classes: all releases finish one before the next, so that an interrupted run has covered all releases."""
ROUNDS = (2, 3, 5, 9, 17)
"""Number of releases, spread evenly, that each round covers with the larger architectures; a last round covers all."""
SECONDS = 3600.0
ROUNDING = rounding("fp32")
SIDE = Path(__file__).with_name("release_side.py")


def releases() -> list[str]:
    """Return the releases on the package index, oldest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", "timm"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Available versions: (.*)", text)
    versions = found[1].split(", ") if found else []
    return [v for v in reversed(versions) if tuple(map(int, v.split("."))) >= OLDEST]


def size_classes() -> list[list[str]]:
    """Return the architectures with weights: the smallest of each module first, then the others by size.

    Modules whose smallest is larger than `MOST_PARAMS_M` come last.
    """
    sizes = {a: known_params_m(a) or float("inf") for a in {split_tag(tag)[0] for tag in pretrained_tags()}}
    by_size = sorted((a for a in sizes if default_tag(a)), key=lambda a: (sizes[a], a))
    first: dict[str, str] = {}
    for architecture in by_size:
        first.setdefault(module_of(architecture), architecture)
    smallest = list(first.values())
    classes, low = [[a for a in smallest if sizes[a] <= MOST_PARAMS_M]], 0.0
    for high in CLASSES_M:
        classes.append([a for a in by_size if low < sizes[a] <= high and a not in smallest])
        low = high
    return [*classes, [a for a in smallest if sizes[a] > MOST_PARAMS_M]]


class Journal:
    """The lines of the journal: for each release and architecture what was found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[str, str], dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read the lines from the file; the last one, if it is incomplete, is ignored."""
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            self.lines[line["release"], line["model"]] = line

    def add(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def measured(self, release: str, model: str) -> dict[str, Any]:
        """Return the line that holds the embeddings; empty if there are none."""
        line = self.lines.get((release, model), {})
        line = self.lines.get((line["same"], model), {}) if "same" in line else line
        return line if "sketch" in line else {}


def spread(count: int) -> list[int]:
    """Return the numbers below `count` so that each lies in the middle of the longest gap left by those before it.

    >>> spread(6)
    [0, 5, 3, 2, 1, 4]
    """
    order = [0, count - 1] if count > 1 else [0]
    while len(order) < count:
        known = sorted(order)
        low, high = max(itertools.pairwise(known), key=lambda gap: (gap[1] - gap[0], -gap[0]))
        order.append((low + high + 1) // 2)
    return order


def embed_in(version: str, models: Sequence[str], versions: Sequence[str], folder: Path, journal: Journal) -> None:
    """Embed with those of the architectures that have no line for this release."""
    missing = [model for model in models if (version, model) not in journal.lines]
    earlier = list(reversed(versions[: versions.index(version)]))
    while missing:
        begin = time.monotonic()
        before = {
            model: line
            for model in missing
            if (line := next(filter(None, (journal.measured(other, model) for other in earlier)), None))
        }
        _work_off(missing, before, version, folder, journal)
        journal.read()
        left = [model for model in missing if (version, model) not in journal.lines]
        if left:
            journal.add({"release": version, "model": left[0], "error": "its process ended"})
            journal.read()
        done = sum("seconds" in journal.lines[version, model] for model in missing if model not in left)
        print(f"timm {version}: {len(missing)} architectures, {done} run, {time.monotonic() - begin:.0f} s", flush=True)
        missing = left[1:]


def narrow(models: Sequence[str], versions: Sequence[str], folder: Path, journal: Journal) -> None:
    """Halve the gaps between releases across which an architecture moved, until they are neighbours."""
    while True:
        wanted: dict[str, list[str]] = {}
        for model in models:
            known = [v for v in versions if (v, model) in journal.lines and not journal.lines[v, model].get("absent")]
            for old, now in itertools.pairwise(known):
                gap = versions[versions.index(old) + 1 : versions.index(now)]
                if gap and moved(journal.measured(old, model), journal.measured(now, model)):
                    wanted.setdefault(gap[len(gap) // 2], []).append(model)
        if not wanted:
            return
        for version in wanted:
            embed_in(version, wanted[version], versions, folder, journal)


def moved(old: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether embeddings moved beyond rounding, or can be computed on one side only."""
    if not old or not now:
        return bool(old) != bool(now)
    return drift(old, now) > ROUNDING


def drift(old: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Return how far embeddings moved; infinite if their number of dimensions differs."""
    if old is now or old["sketch"] == now["sketch"]:
        return 0.0
    if (old["dim"], old["size"]) != (now["dim"], now["size"]):
        return float("inf")
    before, after = (np.frombuffer(base64.b64decode(line["sketch"]), dtype=np.float32) for line in (old, now))
    return embedding_drift(before.reshape(-1, SKETCH_DIM), after.reshape(-1, SKETCH_DIM))


def _work_off(
    models: Sequence[str],
    before: Mapping[str, Mapping[str, Any]],
    version: str,
    folder: Path,
    journal: Journal,
    traces: Mapping[str, Any] | None = None,
) -> None:
    jobs = folder / f"jobs-{os.getpid()}.json"
    jobs.write_text(json.dumps({"models": models, "before": before, "traces": traces or {}}))
    subprocess.run(
        [sys.executable, "-W", "ignore", str(SIDE), str(jobs), str(journal.path)],
        env=environment(release_folder(version, folder)),
        timeout=SECONDS,
    )


def release_folder(version: str, folder: Path) -> Path:
    return installed([f"timm=={version}"], folder / "timm" / version, only_wheels=True)


def environment(packages: Path) -> dict[str, str]:
    """Return the environment variables of a process with this timm."""
    paths = [str(packages), str(Path(__file__).parents[2])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def run(folder: Path) -> None:
    """Embed with all architectures in all releases."""
    folder.mkdir(parents=True, exist_ok=True)
    versions, journal = releases(), Journal(folder / "journal.jsonl")
    first, *others = size_classes()
    for version in versions:
        embed_in(version, first, versions, folder, journal)
    places = spread(len(versions))
    for count in (*ROUNDS, len(versions)):
        for models in others:
            for place in places[:count]:
                embed_in(versions[place], models, versions, folder, journal)
            narrow(models, versions, folder, journal)


@dataclass(frozen=True)
class Move:
    """An architecture whose embeddings of equal weights differ between two successive releases."""

    old: str
    new: str
    model: str
    drift: float
    """Infinite if the number of dimensions differs."""
    size: int
    by_name: bool
    """Whether both releases name the weights equally."""

    def trace(self, release: str, folder: Path) -> Path:
        return folder / "traces" / f"{release}-{self.model}.json"


def moves(versions: Sequence[str], journal: Journal) -> list[Move]:
    """Return what moved beyond rounding, oldest first."""
    found = []
    for old, new in itertools.pairwise(versions):
        for model in sorted({model for _, model in journal.lines}):
            before, after = journal.measured(old, model), journal.measured(new, model)
            if before and after and moved(before, after):
                equal = before["keys"] == after["keys"]
                found.append(Move(old, new, model, drift(before, after), after["size"], equal))
    return found


def explain(folder: Path) -> None:
    """Trace what moved, in both releases."""
    versions, journal = releases(), Journal(folder / "journal.jsonl")
    found = moves(versions, journal)
    for version in versions:
        sides = [move for move in found if version in (move.old, move.new)]
        traces = {move.model: [move.size, move.by_name] for move in sides if not move.trace(version, folder).is_file()}
        if traces:
            _work_off([], {}, version, folder, journal, traces)
    for move in found:
        print(move.old, move.new, move.model, f"{move.drift:.2g}", origin_text(move, folder), sep="\t", flush=True)


def origin_text(move: Move, folder: Path) -> str:
    """Return where a move began, in words."""
    paths = [move.trace(release, folder) for release in (move.old, move.new)]
    if not all(path.is_file() for path in paths):
        return "not traced"
    origin = origin_of(*(msgspec.json.decode(path.read_bytes(), type=Trace) for path in paths))
    return "not found by the trace" if origin is None else origin.text()


def main(arguments: Iterable[str]) -> None:
    match list(arguments):
        case ["run", folder]:
            run(Path(folder))
        case ["explain", folder]:
            explain(Path(folder))
        case _:
            print(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
