"""The gate's limits: how much of what may get worse, from ``--fail-on`` and from a TOML file, and what was accepted."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from embedcore.errors import UsageError
from embedcore.files import user_path, written_whole
from embedcore.plain import one_line
from embedcore.results.result import InvalidResultError, Result

GATE_FILE = "embedcore-gate.toml"
"""Read from the folder in which the command is started, where it is there."""

MISSING = "missing"
"""Stands for a status in the gate file where a run lacks the model."""

DEFAULT = "acc:0.5pt,acc5:1pt,images_per_s:5%,memory:10%,drift:1e-3,status"

TESTED = ("acc", "acc5", "hit5")
"""The scores that the verdicts of a run allow to test."""
_UNITS = {**dict.fromkeys(TESTED, "pt"), "images_per_s": "%", "memory": "%", "drift": "", "status": None}
_WORDS = {"pt": "percentage points, such as 0.5pt", "%": "a percentage, such as 5%", "": "a number, such as 1e-3"}


@dataclass(frozen=True)
class Accepted:
    """A known change: the state of a model that may stand."""

    state: Result | None
    """As it was in the run that was accepted; None where the run had no such model."""
    because: str


@dataclass(frozen=True)
class Limits:
    """How far each quantity may get worse; a quantity without a limit is only reported."""

    overall: Mapping[str, float]
    special: Sequence[tuple[Sequence[str], Sequence[str], Mapping[str, float]]] = ()
    """(globs of models, slugs of families, limits); later ones go before earlier ones and before `overall`."""
    accepted: Mapping[str, Accepted] = field(default_factory=dict)

    def of(self, model: str, family: str) -> Mapping[str, float]:
        """The limits of one model: fractions of 1 for scores, speed and memory; ``status`` is 0 where it matters."""
        limits = dict(self.overall)
        for models, families, own in self.special:
            if family in families or any(fnmatch.fnmatchcase(model, glob) for glob in models):
                limits |= own
        return limits


def parse_limits(spec: str) -> dict[str, float]:
    """Limits of a text such as ``acc:0.5pt,images_per_s:5%,drift:1e-3,status``; ``status:off`` and the like lift one.

    Raises ValueError that names the part which cannot be.

    >>> parse_limits("acc:0.5pt,images_per_s:5%,status")
    {'acc': 0.005, 'images_per_s': 0.05, 'status': 0.0}
    """
    limits: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        name, colon, text = (piece.strip() for piece in part.partition(":"))
        if name not in _UNITS:
            raise ValueError(f"{one_line(name)!r} is none of {', '.join(_UNITS)}")
        unit = _UNITS[name]
        if text == "off":
            limits[name] = math.inf
        elif unit is None:
            if colon:
                raise ValueError(f"{name} takes no value but off")
            limits[name] = 0.0
        else:
            limits[name] = _number(name, text, unit)
    if not limits:
        raise ValueError(f"it names nothing; the default is {DEFAULT}")
    return limits


def _number(name: str, text: str, unit: str) -> float:
    try:
        value = float(text.removesuffix(unit)) if text.endswith(unit) else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} takes {_WORDS[unit]}, not {one_line(text)!r}")
    return value / 100 if unit else value


def read_limits(spec: str | None, folder: Path) -> Limits:
    """The limits of ``--fail-on``: parts as `parse_limits` takes them, and paths of TOML files, with commas between.

    Without a path `GATE_FILE` of `folder` is read where it is there. Raises UsageError.
    """
    parts = [part.strip() for part in (spec or "").split(",") if part.strip()]
    files = [user_path(part) for part in parts if part.endswith(".toml")]
    plain = ",".join(part for part in parts if not part.endswith(".toml"))
    if not files and (folder / GATE_FILE).is_file():
        files = [folder / GATE_FILE]
    contents = [(path, _read(path)) for path in files]
    try:
        texts = [plain] if plain else [text for _, content in contents if (text := content.fail_on)] or [DEFAULT]
        overall = parse_limits(",".join(texts))
    except ValueError as error:
        raise UsageError(f"--fail-on: {error}") from error
    special = [
        (limit.models, limit.families, _own(path, limit)) for path, content in contents for limit in content.limit
    ]
    accepted = {entry.model: Accepted(entry.state(path), entry.because) for path, c in contents for entry in c.accepted}
    return Limits(overall, special, accepted)


def _own(path: Path, limit: _Limit) -> Mapping[str, float]:
    try:
        return parse_limits(limit.fail_on)
    except ValueError as error:
        raise UsageError(f"{path}: fail_on = {limit.fail_on!r}: {error}") from error


class _Limit(msgspec.Struct, forbid_unknown_fields=True):
    fail_on: str
    models: list[str] = []
    families: list[str] = []


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    because: Annotated[str, msgspec.Meta(min_length=1)]
    run: str = ""
    status: str = "ok"
    weights: dict[str, str] = {}
    scores: dict[str, float] = {}
    images_per_s: float | None = None
    peak_memory_mb: float | None = None
    sketch: str | None = None

    def state(self, path: Path) -> Result | None:
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


def _read(path: Path) -> _File:
    return _checked(path, _parsed(path).unwrap())


def _parsed(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"gate file {path} cannot be read: {error.strerror}") from error
    except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"gate file {path} is not TOML: {one_line(str(error))[:150]}") from error


def _checked(path: Path, data: Mapping[str, Any]) -> _File:
    try:
        return msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"gate file {path}: {one_line(str(error))[:150]}; it holds fail_on, [[limit]] (fail_on, models, families) "
            "and [[accepted]]"
        ) from error


def accept(path: Path, states: Mapping[str, Result | None], because: str, run: str) -> None:
    """Write the states of models into the gate file as known (None: the run lacks the model).

    What stands there of these models is replaced; all else in the file stays as it is, comments too. Raises UsageError.
    """
    document = _parsed(path) if path.exists() else tomlkit.document()
    kept = _checked(path, document.unwrap()).accepted
    tables = document.get("accepted", tomlkit.aot())
    for index in reversed([place for place, entry in enumerate(kept) if entry.model in states]):
        del tables[index]
    for model, state in states.items():
        tables.append(_table(model, state, because, run))
    document["accepted"] = tables
    with written_whole(path) as partial:
        partial.write(tomlkit.dumps(document).encode())


def _table(model: str, state: Result | None, because: str, run: str) -> tomlkit.items.Table:
    fields: dict[str, Any] = {"model": model, "because": because, "run": run, "status": MISSING}
    if state is not None:
        rate = state.images_per_s.get("forward")
        fields |= {
            "status": state.status,
            "images_per_s": None if rate is None else float(f"{rate:.4g}"),
            "peak_memory_mb": state.peak_memory_mb,
            "sketch": state.sketch,
            "weights": state.weights or None,
            "scores": {name: round(value, 6) for name, value in state.scores.items()} or None,
        }
    table = tomlkit.table()
    for name, value in fields.items():
        if value is not None:
            table.add(name, tomlkit.item(value) if not isinstance(value, dict) else _inline(value))
    return table


def _inline(values: Mapping[str, Any]) -> tomlkit.items.InlineTable:
    table = tomlkit.inline_table()
    table.update(values)
    return table
