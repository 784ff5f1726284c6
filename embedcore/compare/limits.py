"""The gate's limits from ``--fail-on`` and a TOML file, and the accepted changes in that file."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from embedcore.errors import UsageError
from embedcore.files import user_path, writing
from embedcore.plain import one_line
from embedcore.results.headline import LABELLED, UNLABELLED, headline_scores
from embedcore.results.result import InvalidResultError, Result
from embedcore.retrieval.outcomes import PROBES

GATE_FILE = "embedcore-gate.toml"
"""Read from the working directory if it exists."""

MISSING = "missing"
"""Status in the gate file of a model that the accepted run lacks."""

DEFAULT = "acc:0.5pt,acc5:1pt,view_recall:0.5pt,view_recall5:1pt,images_per_s:5%,memory:10%,drift:1e-3,status"

TESTED = (*LABELLED, "hit5")
"""Scores of a labelled run that have a paired test, besides those of probes; those of a run without labels are
`UNLABELLED`."""

_UNITS = {
    **dict.fromkeys((*TESTED, *UNLABELLED, *PROBES), "pt"),
    "images_per_s": "%",
    "memory": "%",
    "drift": "",
    "status": None,
}
_ALL_DEFAULTS = "default"
_VALUES = {"pt": "percentage points, such as 0.5pt", "%": "a percentage, such as 5%", "": "a number, such as 1e-3"}


@dataclass(frozen=True)
class Accepted:
    """A known change of a model."""

    state: Result | None
    """The accepted state; None if the accepted run has no such model."""
    because: str


@dataclass(frozen=True)
class Limits:
    """How far each quantity may get worse; a quantity without a limit is reported only."""

    overall: Mapping[str, float]
    special: Sequence[tuple[Sequence[str], Sequence[str], Mapping[str, float]]] = ()
    """(globs of models, slugs of families, limits); later entries override earlier ones and `overall`."""
    accepted: Mapping[str, Accepted] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the limits in words: ``acc 0.5 pt, status; nothing else is gated``."""
        limited = {name: limit for name, limit in self.overall.items() if limit < math.inf}
        missing = parse_limits(DEFAULT).keys() - limited.keys()
        rest = [] if missing <= {*LABELLED} or missing <= {*UNLABELLED} else ["nothing else is gated"]
        rest += ["the gate file has others for some models or families"] if self.special else []
        return "; ".join([", ".join(_in_words(name, limited[name]) for name in _UNITS if name in limited), *rest])

    def on(self, datasets: Iterable[Mapping[str, Any]]) -> Limits:
        """Return the limits without those of headline scores that runs on these datasets do not have.

        Raises UsageError if none is left.
        """
        known = {name for dataset in datasets for name in headline_scores(dataset)}
        kept = {n: limit for n, limit in self.overall.items() if n in known or n not in (*LABELLED, *UNLABELLED)}
        if self.overall and not kept:
            raise UsageError(f"no limit is of a score of these runs: theirs are {', '.join(sorted(known))}")
        return replace(self, overall=kept)

    def of(self, model: str, family: str) -> Mapping[str, float]:
        """Return the limits of one case as fractions of 1; ``status`` is 0 if it has a limit.

        `model`: its name, such as ``MODEL`` or, with several datasets, ``MODEL on DATASET``; a glob of a model applies
        to every dataset.
        """
        limits = dict(self.overall)
        for models, families, own in self.special:
            globs = (each for glob in models for each in (glob, f"{glob} on *"))
            if family in families or any(fnmatch.fnmatchcase(model, glob) for glob in globs):
                limits |= own
        return limits

    def of_speed(self, model: str, family: str) -> float:
        """Return the limit of speed, which is also the required precision of a ratio; 5 % if there is none."""
        limit = self.of(model, family).get("images_per_s", 0.0)
        return limit if 0 < limit < 1 else 0.05


def parse_limits(spec: str) -> dict[str, float]:
    """Parse limits such as ``acc:0.5pt,images_per_s:5%,drift:1e-3,status``; ``acc:off`` removes a limit.

    A quantity that is not named has no limit or, with ``default`` among the parts, its default one. Raises ValueError,
    which names the wrong part.

    >>> parse_limits("acc:0.5pt,images_per_s:5%,status")
    {'acc': 0.005, 'images_per_s': 0.05, 'status': 0.0}
    >>> parse_limits("default,acc:1pt") == {**parse_limits(DEFAULT), "acc": 0.01}
    True
    """
    limits: dict[str, float] = {}
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if _ALL_DEFAULTS in parts:
        limits |= parse_limits(DEFAULT)
    for part in parts:
        if part == _ALL_DEFAULTS:
            continue
        name, colon, text = (piece.strip() for piece in part.partition(":"))
        if name not in _UNITS:
            raise ValueError(f"{one_line(name)!r} is not one of {', '.join((*_UNITS, _ALL_DEFAULTS))}")
        unit = _UNITS[name]
        if text == "off":
            limits[name] = math.inf
        elif unit is not None:
            limits[name] = _number(name, text, unit)
        elif colon:
            raise ValueError(f"{name} takes no value but off")
        else:
            limits[name] = 0.0
    if not limits:
        raise ValueError(f"it names no limit; the default is {DEFAULT}")
    return limits


def _in_words(name: str, limit: float) -> str:
    unit = _UNITS[name]
    return name if unit is None else f"{name} {100 * limit if unit else limit:g} {unit}".rstrip()


def _number(name: str, text: str, unit: str) -> float:
    try:
        value = float(text.removesuffix(unit)) if text.endswith(unit) else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} takes {_VALUES[unit]}, not {one_line(text)!r}")
    return value / 100 if unit else value


def read_limits(spec: str | None, folder: Path) -> Limits:
    """Read the limits of ``--fail-on``: what `parse_limits` takes, and paths of TOML files, separated by commas.

    Without a path the `GATE_FILE` of `folder` is read if it exists. Raises UsageError.
    """
    parts = [part.strip() for part in (spec or "").split(",") if part.strip()]
    files = [user_path(part) for part in parts if part.endswith(".toml")]
    if not files and (folder / GATE_FILE).is_file():
        files = [folder / GATE_FILE]
    contents = {path: _checked(path, _parsed(path)) for path in files}
    texts = [part for part in parts if not part.endswith(".toml")]
    texts = texts or [content.fail_on for content in contents.values() if content.fail_on] or [DEFAULT]
    return Limits(
        _limits("--fail-on", ",".join(texts)),
        [
            (limit.models, limit.families, _limits(f"{path}: fail_on = {limit.fail_on!r}", limit.fail_on))
            for path, content in contents.items()
            for limit in content.limit
        ],
        {
            entry.model: Accepted(entry.state(path), entry.because)
            for path, content in contents.items()
            for entry in content.accepted
        },
    )


def _limits(where: str, spec: str) -> dict[str, float]:
    try:
        return parse_limits(spec)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


class _Limit(msgspec.Struct, forbid_unknown_fields=True):
    fail_on: str
    models: list[str] = []
    families: list[str] = []


class _Entry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An ``[[accepted]]`` table."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    because: Annotated[str, msgspec.Meta(min_length=1)]
    run: str = ""
    status: str = "ok"
    images_per_s: float | None = None
    peak_memory_mb: float | None = None
    sketch: str | None = None
    weights: dict[str, str] = {}
    scores: dict[str, float] = {}

    def state(self, path: Path) -> Result | None:
        """Return the accepted result. Raises UsageError, which names `path`."""
        if self.status == MISSING:
            return None
        rates = {} if self.images_per_s is None else {"forward": self.images_per_s}
        fields = {name: getattr(self, name) for name in ("status", "weights", "scores", "peak_memory_mb", "sketch")}
        try:
            return Result.from_json({"model": self.model, "family": "accepted", "images_per_s": rates, **fields})
        except InvalidResultError as error:
            raise UsageError(f"{path}: [[accepted]]: {error}") from error


class _File(msgspec.Struct, forbid_unknown_fields=True):
    fail_on: str = ""
    limit: list[_Limit] = []
    accepted: list[_Entry] = []


def _parsed(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"gate file {path} cannot be read: {error.strerror}") from error
    except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"gate file {path} is not TOML: {one_line(str(error))[:150]}") from error


def _checked(path: Path, document: tomlkit.TOMLDocument) -> _File:
    try:
        return msgspec.convert(document.unwrap(), _File)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"gate file {path}: {one_line(str(error))[:150]}; it may contain fail_on, [[limit]] (fail_on, models, "
            "families) and [[accepted]]"
        ) from error


def accept(path: Path, states: Mapping[str, Result | None], because: str, run: str) -> None:
    """Write the states of models into the gate file as accepted; None means that the run lacks the model.

    Replaces earlier entries of these models and keeps the rest of the file, comments included. Raises UsageError.
    """
    document = _parsed(path) if path.exists() else tomlkit.document()
    kept = _checked(path, document).accepted
    tables = document.get("accepted", tomlkit.aot())
    for index in reversed([place for place, entry in enumerate(kept) if entry.model in states]):
        del tables[index]
    for model, state in states.items():
        tables.append(_table(_entry(model, state, because, run)))
    document["accepted"] = tables
    with writing(path) as file:
        file.write(tomlkit.dumps(document).encode())


def _entry(model: str, state: Result | None, because: str, run: str) -> _Entry:
    if state is None:
        return _Entry(model, because, run, MISSING)
    rate = state.images_per_s.get("forward")
    speed = None if rate is None else float(f"{rate:.4g}")
    scores = {name: round(value, 6) for name, value in state.scores.items()}
    memory = state.peak_memory_mb
    return _Entry(model, because, run, state.status, speed, memory, state.sketch, state.weights, scores)


def _table(entry: _Entry) -> tomlkit.items.Table:
    """Return the TOML table of an entry, with mappings on one line."""
    table = tomlkit.table()
    fields: dict[str, Any] = msgspec.to_builtins(entry)
    for name, value in {**fields, "status": entry.status}.items():
        if isinstance(value, dict):
            table.add(name, tomlkit.inline_table())
            table[name].update(value)
        else:
            table.add(name, value)
    return table
