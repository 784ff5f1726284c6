"""Confirm suspect speeds: measure both runs' environments again, interleaved, on the machine of the baseline.

The environment of each run is built from its recorded requirements: those that differ from this environment's are
installed into a folder that comes first on the path, as for the sides of `ab`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedcore.ab.compare_sides import CommonWeights
from embedcore.ab.environments import Environment, environment_for
from embedcore.ab.noise import stored_noise
from embedcore.ab.schedule import OUT_OF_TIME, Progress, Track, measure_models
from embedcore.ab.sides import Side, measure_interleaved
from embedcore.compare.comparison import Comparison
from embedcore.compare.interleaved import LOOKS, NOISE, Interleaved
from embedcore.compare.limits import Limits
from embedcore.compare.pairs import Pair
from embedcore.compare.verdict import Verdict, judge
from embedcore.durations import show_duration
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.plain import counted
from embedcore.requirements import installed_requirements, local_requirement, name_of, shadowing
from embedcore.results.result import Result
from embedcore.results.run import Run

SETTINGS = (
    "dataset", "split", "seed", "protocol", "weights", "point", "device", "precision", "max_params", "memory_limit",
    "bad_images", "max_megapixels", "engine", "columns",
)  # fmt: skip
"""The settings of a run that its sides get as pytest options."""

_FEW_IMAGES = ("--embed-max-classes=8", "--embed-max-per-class=4")

_LIBRARIES = ("timm", "torch", "torchvision")
"""Distributions that decide how fast a model is, with all that they require."""

_PARTS_OF_TORCH = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")

_MACHINE = {"processor": "processor", "gpu": "card", "driver": "driver"}


class ConfirmationLines:
    """Report the progress of a confirmation: one line at the start, then at most one a minute."""

    def __init__(self, write_line: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write_line, self._clock = write_line, clock
        self._begun: float | None = None
        self._due = 0.0

    def __call__(self, model: str, done: int, models: int) -> None:
        now = self._clock()
        if self._begun is None:
            self._begun = now
            again = f"measuring {counted(models, 'suspect speed')} again, interleaved"
            self._write_line(f"embedcore: {again}, in {LOOKS[0]} to {LOOKS[-1]} pairs of processes each")
        elif now < self._due:
            return
        else:
            waited = show_duration(now - self._begun)
            self._write_line(f"embedcore: after {waited}: {done} of {models} known, now {model}")
        self._due = now + 60


def settle(
    comparison: Comparison,
    verdict: Verdict,
    *,
    cache: Path,
    seconds: float = float("inf"),
    progress: Progress | None = None,
) -> Verdict:
    """Return the verdict after `confirm` has measured the suspects and the models whose speed is a regression.

    A regression that cannot be confirmed stays one. `seconds`: the budget.
    """
    slower = [found.model for found in verdict.of("regression") if found.change.what == "images_per_s"]
    names = list(dict.fromkeys([*slower, *verdict.suspects]))
    if not names:
        return verdict
    answers = confirm(comparison, names, verdict.limits, cache=cache, seconds=seconds, progress=progress)
    known = {name: answer for name, answer in answers.items() if not (name in slower and isinstance(answer, str))}
    return judge(comparison, verdict.limits, known)


def confirm(
    comparison: Comparison,
    names: Sequence[str],
    limits: Limits,
    *,
    cache: Path,
    seconds: float = float("inf"),
    progress: Progress | None = None,
) -> dict[str, Interleaved | str]:
    """Return the interleaved speed ratio of each named case of a comparison, or why there is none.

    The measurements have the settings of the runs, and the batch size, precision and memory layout that they used.
    """
    pairs = {model.model: model.pair for model in comparison.models}
    answers: dict[str, Interleaved | str] = {name: why for name in names if (why := _obstacle(pairs.get(name)))}
    wanted = {name: pairs[name] for name in names if name not in answers}

    def limit(name: str) -> float:
        return limits.of_speed(name, wanted[name].new.family)

    if not wanted:
        return answers
    if seconds <= 0:
        return answers | dict.fromkeys(wanted, OUT_OF_TIME)
    if progress is not None:
        progress(next(iter(wanted)), 0, len(wanted))  # building an environment may take minutes
    try:
        with _measuring(comparison, wanted, cache, seconds) as (measure, noise):
            tracks = measure_models([*wanted], measure, limit, noise=noise, seconds=seconds, progress=progress)
    except EmbedcoreError as error:  # of an environment, or a side whose process ended
        return answers | dict.fromkeys(wanted, str(error))
    return answers | {track.model: _answer(track, limit(track.model)) for track in tracks}


def _obstacle(pair: Pair | None) -> str:
    """Return why a case cannot be measured again; "" if it can."""
    if pair is None or not (pair.base.ok and pair.new.ok):
        return "it was not measured in both runs"
    if pair.base.model != pair.new.model:
        return f"it was renamed, from {pair.base.model}"
    if not (pair.base.durations and pair.new.durations):
        return "its durations were not saved"
    return ""


def _answer(track: Track, limit: float) -> Interleaved | str:
    """Return the ratio of a track that decides whether the model is slower by the limit, or why none does.

    `measure_models` stops early only at a narrow interval. At the last look the usual one decides: a speed is clear if
    the 99 % interval of its fall excludes the limit.
    """
    ratio = track.ratio
    if ratio is None:
        return track.why
    at_the_end = not track.settled and not track.alarmed_after and ratio.lowest > 1 - limit
    return ratio if track.alarm or not track.why or at_the_end else track.why


@contextlib.contextmanager
def _measuring(
    comparison: Comparison, wanted: Mapping[str, Pair], cache: Path, seconds: float
) -> Iterator[tuple[_Measure, float]]:
    """Start both sides; yield what measures on them, and the noise of this machine. Raises UsageError."""
    base, new = comparison.base, comparison.new
    _check_machines(base, new)
    options = [*_arguments(new, [pair.new.model for pair in wanted.values()]), f"--embed-cache={cache}"]
    if seconds < float("inf"):
        options.append(f"--embed-timeout={max(1.0, seconds):.0f}")
    with contextlib.ExitStack() as stack:
        environments = {"A": rebuilt(base, "the baseline", cache), "B": rebuilt(new, "the new run", cache)}
        sides = {key: stack.enter_context(Side(each, options)) for key, each in environments.items()}
        facts = {key: side.opened() for key, side in sides.items()}
        for run in (base, new):
            _check_machine(run.versions, facts["B"]["machine"])
        noise = stored_noise(cache, facts["A"]["machine_in_use"])
        yield _Measure(sides, facts, wanted), noise.in_turn if noise else NOISE


class _Measure(CommonWeights):
    """Measures cases on both sides, with the settings that the saved results have in common."""

    def __init__(self, sides: Mapping[str, Side], facts: Mapping[str, Any], pairs: Mapping[str, Pair]) -> None:
        super().__init__(sides, facts)
        self._pairs = pairs

    def alone(self, side: str, model: str) -> Result:
        return self._pairs[model].base if side == "A" else self._pairs[model].new

    def interleaved(self, model: str, number: int, equal: Mapping[str, Any]) -> Mapping[str, Result]:
        tag = self._pairs[model].new.model
        return measure_interleaved(self.sides_of(number), tag, {**equal, **self.weights_of(tag)})


def _arguments(run: Run, models: Sequence[str]) -> list[str]:
    """Return pytest's arguments for a run's settings, with few images, since only speed is measured."""
    found = [
        f"--embed-{name.replace('_', '-')}={run.settings[name]}"
        for name in SETTINGS
        if run.settings.get(name) not in (None, "")
    ]
    roster = str(run.settings.get("roster", ""))
    found += ["--embed-unlabelled"] if run.settings.get("unlabelled") is True else []
    return [*found, *_FEW_IMAGES, f"--embed-roster={roster if _has_own_models(run) else ','.join(models)}"]


def _has_own_models(run: Run) -> bool:
    return any(part.strip().endswith(".toml") for part in str(run.settings.get("roster", "")).split(","))


def _check_machines(base: Run, new: Run) -> None:
    """Raise UsageError if the runs are of two machines, or of a Python or an embedcore that is not here."""
    _check_machine(base.versions, new.versions)
    here = ".".join(platform.python_version_tuple()[:2])
    for run in (base, new):
        python = str(run.versions.get("python"))
        if python.split(".")[:2] != here.split("."):
            raise UsageError(f"{run.path} was measured with Python {python}, and this one is {here}")
    ours = [[each for each in run.requirements if name_of(each) == "embedcore"] for run in (base, new)]
    if all(ours) and ours[0] != ours[1]:
        raise UsageError("the runs were measured by two versions of embedcore")


def _check_machine(old: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, word in _MACHINE.items():
        if old.get(key) != now.get(key):
            raise UsageError(f"another {word}: {old.get(key) or 'none'}, now {now.get(key) or 'none'}")


def rebuilt(
    run: Run, name: str, cache: Path, *, here: Callable[[], Sequence[str]] = installed_requirements
) -> Environment:
    """Return the environment in which a run was measured. Raises UsageError if it cannot be built.

    Packages that timm and torch require are replaced where they differ; with the user's own models all are, since their
    code may import any. Test tools and embedcore itself stay as they are.
    """
    if not run.requirements:
        raise UsageError(f"{run.path} does not contain the requirements of its environment")
    recorded, current = ({name_of(each): each for each in found} for found in (run.requirements, here()))
    names = recorded.keys() - _TOOLS if _has_own_models(run) else recorded.keys() & _needed(recorded)
    changed = [_installable(recorded[each]) for each in sorted(names) if recorded[each] != current.get(each)]
    shadow = shadowing("timm")
    path = os.pathsep.join(filter(None, [str(shadow or ""), os.environ.get("PYTHONPATH", "")]))
    if not changed:
        return Environment(name, Path(sys.executable), pythonpath=path)
    return environment_for(changed, cache, pythonpath=path, exact=True)._replace(name=name)


_TOOLS = frozenset(
    ("embedcore", "pip", "setuptools", "wheel", "uv", "pytest", "pluggy", "iniconfig", "pytest-benchmark")
)


def _needed(recorded: Mapping[str, str]) -> set[str]:
    """Return the names of the distributions that `_LIBRARIES` require here, and of torch's parts among the recorded."""
    found: set[str] = set()
    left = list(_LIBRARIES)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            with contextlib.suppress(PackageNotFoundError):
                left += [name_of(each) for each in requires(name) or () if "extra ==" not in each]
    return found | {name for name in recorded if _PARTS_OF_TORCH.match(name)}


def _installable(requirement: str) -> str:
    """Return a requirement for pip. Raises UsageError for a local one whose code has changed or was not recorded."""
    name, _, url = requirement.partition(" @ ")
    if not url.startswith("file://"):
        return requirement
    url, _, digest = url.partition("#sha256=")
    folder = unquote(url.removeprefix("file://"))
    if not digest:
        raise UsageError(f"{name} was installed from {folder}, and its code was not recorded")
    if local_requirement(name, Path(folder)) != requirement:
        raise UsageError(f"the code of {name} in {folder} has changed since")
    return f"{name} @ {url}"
