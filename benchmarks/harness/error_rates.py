"""Measure the error rates of the gate: false alarms of A/A comparisons, and detection of known slowdowns.

    python benchmarks/harness/error_rates.py --folder rates ab --alike 200 --slower 100
    python benchmarks/harness/error_rates.py --folder rates sessions --alike 200 --slower 100
    python benchmarks/harness/error_rates.py --folder rates path --alike 200 --slower 100

`ab`: each model alone. `sessions`: two saved sessions of all models, compared. `path`: then the suspects are confirmed,
as by `embedcore compare --confirm`; it prints the rates of the sessions alone too. Run it on an otherwise idle machine.
Each outcome is a line in a journal of the folder; the same command continues it.
`--core N` uses one core with one thread, so that one command per core can run at the same time, each with a folder of
its own. The slower side spins after each forward pass, so that its speed is lower by `--size`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from scipy import stats

from embedcore.ab.compare_sides import CommonWeights
from embedcore.ab.environments import Environment
from embedcore.ab.noise import stored_noise
from embedcore.ab.schedule import measure_models
from embedcore.ab.sides import Side, measure_interleaved
from embedcore.compare.interleaved import NOISE
from embedcore.compare.verdict import Verdict
from embedcore.results.reading import read_run
from embedcore.results.result import Result
from embedcore.results.run import Run

MODELS = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet")

LIMIT = 0.05  # the gate's default

# Every model calls this method of embedcore. The extra time is a share of each pass's own, so that the slowdown is
# exact on any machine. Extra work would cost more or less beside other work, and count as the model's operations.
PATCH = """
import os

if os.environ.get("EMBEDCORE_SLOWER"):
    import importlib.abc
    import sys
    import time

    NAME = "embedcore.zoo.backbone"

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != NAME:
                return None
            sys.meta_path.remove(self)
            import importlib.util

            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                slow(module, float(os.environ["EMBEDCORE_SLOWER"]))

            spec.loader.exec_module = exec_module
            return spec

    def slow(module, share):
        usual = module.Backbone.embed

        def embed(self, x):
            begin = time.perf_counter()
            output = usual(self, x)
            end = begin + (time.perf_counter() - begin) / (1 - share)
            while time.perf_counter() < end:
                pass
            return output

        module.Backbone.embed = embed

    sys.meta_path.insert(0, Finder())
"""


def slow_interpreter(folder: Path, share: float) -> Path:
    """Return an interpreter whose embedcore embeds at a speed lower by `share`."""
    patch = folder / "patch"
    patch.mkdir(parents=True, exist_ok=True)
    (patch / "sitecustomize.py").write_text(PATCH)
    script = folder / "python-slow"
    script.write_text(
        "#!/bin/sh\n"
        f"export EMBEDCORE_SLOWER={share}\n"
        f'export PYTHONPATH="{patch}:$PYTHONPATH"\n'
        f'exec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def sides_of(folder: Path, models: Sequence[str], *, slower: bool) -> Iterator[dict[str, Side]]:
    arguments = ["--embed-roster", ",".join(f"{model}.*" for model in models), "--embed-weights", "random"]
    arguments += [f"--embed-cache={folder / 'cache'}"]
    interpreters = {"A": Path(sys.executable), "B": folder / "python-slow" if slower else Path(sys.executable)}
    with contextlib.ExitStack() as stack:
        yield {key: stack.enter_context(Side(Environment(key, path), arguments)) for key, path in interpreters.items()}


class Measure(CommonWeights):
    """Measures on both sides, without keeping results or sharing weights."""

    # A model's settings are the same in all comparisons, so they are found once.
    _alone: ClassVar[dict[tuple[str, str], Result]] = {}

    def __init__(self, sides: Mapping[str, Side]) -> None:
        super().__init__(sides, {key: side.opened() for key, side in sides.items()})

    def alone(self, side: str, model: str) -> Result:
        if (side, model) not in self._alone:
            self._alone[side, model] = self._sides[side].measure(model)
        return self._alone[side, model]

    def interleaved(self, model: str, number: int, equal: Mapping[str, Any]) -> Mapping[str, Result]:
        return measure_interleaved(self.sides_of(number), model, equal)


Outcomes = Iterator[tuple[str, dict[str, str]]]
"""A model, and its outcome by kind of comparison: ``ab``, ``sessions`` or ``path``, each ``alike`` or ``slower``."""


def by_ab(folder: Path, models: Iterable[str], *, slower: bool) -> Outcomes:
    """Yield whether `ab` of a model alone finds it slower than allowed: ``regression`` or ``clear``."""
    with sides_of(folder, MODELS, slower=slower) as sides:
        facts = [side.opened() for side in sides.values()]
        found = stored_noise(folder / "cache", facts[0]["machine_in_use"])
        noise = found.in_turn if found else NOISE
        tags = {tag.split(".")[0]: tag for tag in facts[0]["models"]}
        measure = Measure(sides)
        for model in models:
            (track,) = measure_models([tags[model]], measure, lambda _: LIMIT, noise=noise)
            if track.ratio is None:
                raise SystemExit(f"{track.model}: {track.why}")
            outcome = "regression" if track.alarm else "undecided" if track.why else "clear"
            yield model, {f"ab {_kind(slower)}": outcome}


def by_sessions(
    folder: Path, models: Iterable[str], *, slower: bool, confirms: bool = False, both: bool = True
) -> Outcomes:
    """Yield ``clear``, ``suspect`` or ``regression`` of two sessions over all models, saved in sequence.

    `confirms`: also the outcome after the suspects were confirmed, ``clear``, ``undecided`` or ``regression``. With
    `slower` each slower session lies between two usual ones, which with `both` are compared as well.
    """
    base, left = _session(folder, slower=False), {}
    for model in models:
        if model not in left:
            sessions = {True: _session(folder, slower=True)} if slower else {}
            sessions[False] = _session(folder, slower=False)
            for is_slower, new in sessions.items() if both or not slower else [(True, sessions[True])]:
                for kind, words in _compared(folder, base, new, slower=is_slower, confirms=confirms).items():
                    for name, outcome in words.items():
                        left.setdefault(name, {})[kind] = outcome
            base = sessions[False]
        yield model, left.pop(model)


def _compared(folder: Path, base: Run, new: Run, *, slower: bool, confirms: bool) -> Mapping[str, Mapping[str, str]]:
    """Return the outcome of each architecture by kind of comparison."""
    from embedcore.ab import confirm
    from embedcore.compare.comparison import compare
    from embedcore.compare.limits import read_limits
    from embedcore.compare.verdict import judge

    # Both sessions have one environment, so that the slower side must be named.
    python = {"the baseline": Path(sys.executable), "the new run": folder / "python-slow"}
    usual = confirm.rebuilt
    if slower:
        confirm.rebuilt = lambda run, name, cache: Environment(name, python[name])
    try:
        comparison = compare(base, new)
        verdict = judge(comparison, read_limits(f"images_per_s:{LIMIT:.0%}", folder))
        found = {f"sessions {_kind(slower)}": _speeds(verdict, new, "suspect")}
        if confirms:
            after = confirm.settle(comparison, verdict, cache=folder / "cache")
            found[f"path {_kind(slower)}"] = _speeds(after, new, "undecided")
    finally:
        confirm.rebuilt = usual
    return found


def _kind(slower: bool) -> str:
    return "slower" if slower else "alike"


def _speeds(verdict: Verdict, run: Run, unsure: str) -> dict[str, str]:
    """Return the outcome of each architecture's speed."""
    worse = {f.model for f in verdict.of("regression") if f.change.what == "images_per_s"}
    left = {name: why for part in verdict.judged if part.what == "speed" for name, why in part.open.items()}
    words = {name: f"{unsure}: {why}" for name, why in left.items()} | dict.fromkeys(worse, "regression")
    return {result.architecture: words.get(result.model, "clear") for result in run.results}


def _session(folder: Path, *, slower: bool) -> Run:
    path = folder / f"session-{os.getpid()}.json"
    command = [str(folder / "python-slow" if slower else sys.executable), "-m", "pytest", "benchmarks", "-q"]
    command += ["--embed-roster", ",".join(f"{model}.*" for model in MODELS), "--embed-weights", "random"]
    command += ["--embed-max-classes", "8", f"--embed-cache={folder / 'cache'}", f"--benchmark-json={path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:])
    return read_run(path)


def outcomes(path: Path, kind: str) -> list[Mapping[str, Any]]:
    """Return the journal's entries of a kind, without a torn last line."""
    return [entry for entry in _lines(path) if entry["kind"] == kind]


def missing(path: Path, kind: str, wanted: int) -> Iterator[str]:
    """Yield the model of the next comparison until the journal is complete; other commands may add to it."""
    while (done := len(outcomes(path, kind))) < wanted:
        yield MODELS[done % len(MODELS)]


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def main() -> None:
    """Run the missing comparisons, then print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ab", "sessions", "path"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--alike", type=int, default=200, help="A/A comparisons")
    parser.add_argument("--slower", type=int, default=100, help="comparisons with a slower side")
    parser.add_argument("--core", type=int, help="use only this core, with one thread")
    parser.add_argument("--size", type=float, default=0.05, help="share of the speed that the slower side loses")
    parsed = parser.parse_args()
    folder = parsed.folder.absolute()
    if parsed.core is not None:
        os.sched_setaffinity(0, {parsed.core})
        os.environ["OMP_NUM_THREADS"] = "1"
    slow_interpreter(folder, parsed.size)
    compared = {"ab": by_ab, "sessions": by_sessions, "path": functools.partial(by_sessions, confirms=True)}
    journal = folder / "outcomes.jsonl"
    for kind, wanted in (("slower", parsed.slower), ("alike", parsed.alike)):
        begin = time.monotonic()
        left = missing(journal, f"{parsed.what} {kind}", wanted)
        options = {} if parsed.what == "ab" else {"both": len(outcomes(journal, f"{parsed.what} alike")) < parsed.alike}
        for model, found in compared[parsed.what](folder, left, slower=kind == "slower", **options):
            seconds = round(time.monotonic() - begin, 1)
            with journal.open("a") as file:
                for what, outcome in found.items():
                    entry = {"kind": what, "model": model, "outcome": outcome, "seconds": seconds}
                    file.write(json.dumps(entry) + "\n")
            words = ", ".join(f"{what}: {outcome}" for what, outcome in found.items())
            print(f"{model}: {words} after {seconds} s", flush=True)
            begin = time.monotonic()
    for name in dict.fromkeys(entry["kind"] for entry in _lines(journal)):
        print_rates(name, outcomes(journal, name))


def print_rates(name: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Print how often each outcome was seen, with its exact 95 % interval, and the mean seconds of a comparison."""
    for outcome, count in sorted(Counter(entry["outcome"].partition(":")[0] for entry in found).items()):
        interval = stats.binomtest(count, len(found)).proportion_ci(method="exact")
        print(f"{name}: {outcome} {count} of {len(found)}, {count / len(found):.1%}", end=" ")
        print(f"[{interval.low:.1%}, {interval.high:.1%}]")
    if found:
        print(f"{name}: {statistics.mean(entry['seconds'] for entry in found):.0f} s for a model")


if __name__ == "__main__":
    main()
