"""The result of a case: everything measured for it, or why it could not be measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from embedcore.errors import EmbedcoreError
from embedcore.plain import json_safe, one_line, printable_lines
from embedcore.results.headline import Headline, headline_of
from embedcore.results.process import TimingProcess

Status = Literal[
    "ok", "raced-out", "no-weights", "gated", "too-large", "oom", "unsupported", "nan", "timeout", "crashed", "error"
]
Outcome = Literal["ok", "skip", "fail"]

# Every status, in the order of reports, and the outcome of its test.
STATUSES: Mapping[Status, Outcome] = MappingProxyType(
    {
        "ok": "ok",
        **dict.fromkeys(("raced-out", "no-weights", "gated", "too-large", "oom", "unsupported"), "skip"),
        **dict.fromkeys(("nan", "timeout", "crashed", "error"), "fail"),
    }
)
# Statuses that another try with the same settings cannot change.
_FINAL = frozenset({"ok", "raced-out", "too-large", "unsupported", "nan"})

CROWDED = 0.2
"""A larger share of the timing rounds means a busy machine or host (`Result.crowded`, `Result.stolen`); .11 was seen on
an idle one, .5 beside one busy loop."""

_Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class InvalidResultError(EmbedcoreError):
    """A result has an invalid field; the message names the model, the field and the value."""


class DistractorScores(msgspec.Struct, frozen=True, kw_only=True):
    """acc in galleries with references of no class; see `embedcore.retrieval.gallery_growth`."""

    count: Count
    """Number of distractors."""
    beaten_by: str
    """Number of distractors that are nearer than each query's best positive; packed by `pack_classes`."""
    acc: dict[str, float]
    """Gallery (``10x``, ``100x``, ``all``) → expected acc, a fraction 0 to 1."""
    ci95: dict[str, tuple[float, float]]
    """Gallery → (low, high), the 95 % interval."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One case's result, with the shapes of the saved JSON; None or empty for what was not measured.

    `Result.make` validates and normalises: numpy scalars become Python numbers, text becomes one line, numbers that are
    not finite are dropped, so that ``Result.from_json(result.to_json()) == result``. An ``ok`` result has at least its
    headline scores, such as ``acc`` and ``acc5``.
    """

    model: _Name
    """Full tag, such as ``vit_base_patch16_224.augreg_in21k``."""
    architecture: _Name
    tag: str
    """Part of the name after its first dot; "" if there is none."""
    family: _Name
    """Slug of the family."""
    status: Status
    dataset: str | None = None
    """Fingerprint of the dataset."""
    reason: str = ""
    """Why the case could not be measured, on one line; "" if ok."""
    detail: str = ""
    """Several lines. Of a measured model: notes, such as why it ran in fp32. Else the traceback or the last output of
    the child, in the journal only."""
    unreachable: bool = False
    """Whether the weights are on a hub that was not reachable or refused the token: a later try may succeed."""
    lost_host: tuple[str, str] | None = None
    """(host, reason): the host that became unreachable during the search for the weights."""
    race: dict[str, int | float | str] = {}
    """For a raced-out model: ``classes`` (the number it was measured on), ``acc`` (its acc there), ``against`` (the
    leader that it lost to), ``acc_against`` (that leader's acc there) and ``at_most`` (the upper limit of its acc over
    the leader's, on all classes; 95 % of a race's limits should hold)."""
    pretraining: str | None = None
    licence: str | None = None
    params_m: float | None = None
    """Parameters of the full model as timm defines it, classifier included, in millions."""
    gmacs: float | None = None
    """Multiply-accumulate operations of one image, in units of 10^9."""
    input_size: tuple[Count, Count, Count] | None = None
    """(3, height, width)"""
    dim: Count | None = None
    """Width of the embedding."""
    point: str | None = None
    token_mean: bool | None = None
    """Whether the model returned tokens [n, t, d], which were averaged."""
    precision: str | None = None
    batch_size: Count | None = None
    batch_decayed: bool = False
    """Whether the batch was reduced for lack of memory, so that images_per_s must not be compared."""
    device: str | None = None
    processor: str | None = None
    """The `processor` or card of its machine, with the driver, if the run has several machines."""
    node: str | None = None
    """The node of the cluster on which it was measured."""
    engine: str | None = None
    """How the forward pass ran: eager, compile, compile:MODE, onnxruntime or openvino."""
    compile_s: float | None = None
    """Seconds of compiling or exporting the model for the engine, fewer if it was in the cache; None for eager."""
    weights_mb: float | None = None
    """Size of the model as the engine keeps it, in units of 10^6 bytes."""
    channels_last: bool | None = None
    """Whether 4-D weights and inputs were in channels-last memory format."""
    warmup_rounds: Count | None = None
    """Rounds before the timed ones."""
    weights: dict[str, str] = {}
    """``source`` (hub, folder, wheel:NAME, random, own:FILE, factory:NAME), ``id`` (sha256:…, seed:N), ``address``
    (timm's source), ``file`` (a user's file for one of timm's models), ``classifier`` ("left out (…)"), ``part`` (of a
    training checkpoint, such as model_ema), ``resampled`` (tensors that timm resized, with both shapes), ``entry``
    (hash of an own model's entry and file)."""
    transform: dict[str, Any] = {}
    """Preprocessing: ``crop_pct`` ``crop_mode`` ``interpolation`` ``mean`` ``std``, and ``square`` with square224."""
    default_tag: str | None = None
    """The tag that timm uses if only the architecture is named."""
    scores: dict[str, float] = {}
    """Metric → value, a fraction 0 to 1."""
    ci95: dict[str, tuple[float, float]] = {}
    """Metric → (low, high), the 95 % interval."""
    images_per_s: dict[str, float] = {}
    """``forward`` and ``end_to_end``."""
    latency_ms: dict[str, float] = {}
    """``p50`` and ``p99``: milliseconds of the forward pass of one image; only measured on request."""
    peak_memory_mb: float | None = None
    """In units of 10^6 bytes; see `embedcore.embed.memory`."""
    unlabelled: dict[str, float] = {}
    """For images without labels: ``near_duplicates``, the share of them whose nearest other image has a cosine of .95
    or more, and ``effective_rank`` (see `embedcore.retrieval.unlabelled`)."""
    verdicts: str | None = None
    """See `embedcore.results.verdicts.pack_verdicts`."""
    probe_verdicts: dict[str, str] = {}
    """Score of a probe → the outcome of each query; see `embedcore.results.verdicts.pack_outcomes`."""
    distractors: DistractorScores | None = None
    """None without distractors; the other scores do not depend on them."""
    sketch: str | None = None
    """See `embedcore.results.verdicts.pack_sketch`."""
    embeddings: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")] | None = None
    """Key of its kept embeddings: ``embeddings/KEY.npy`` in the cache folder. None if they are not kept."""
    durations: tuple[float, ...] = ()
    """Seconds of each timing round in the first process."""
    processes: tuple[TimingProcess, ...] = ()
    """The timing in each fresh process, the first included."""
    crowded: float | None = None
    """Contention: seconds that the threads of the timing rounds, summed, waited for a core, per second of the rounds. 0
    on an idle machine; above `CROWDED` speeds do not compare; None if not known, as on a card. See
    `embedcore.embed.contention`."""
    stolen: float | None = None
    """Seconds for which the hypervisor of a virtual machine took this process's cores away, summed, per second of the
    timing rounds; None if not known."""
    download_s: float | None = None
    """Wall seconds of the weights' download; None without one."""
    measured_s: float | None = None
    """Wall seconds of the whole case, without the download."""

    def __repr__(self) -> str:
        if not self.ok:
            return f"Result of {self.model}: {self.status}: {self.reason}"
        scores = [f"{metric} {self.scores[metric]:.3f}" for metric in self.headline]
        speed = self.images_per_s.get("forward")
        return f"Result of {self.model}: {', '.join(scores + ([] if speed is None else [f'{speed:.3g} images/s']))}"

    def __post_init__(self) -> None:
        missing = [metric for metric in self.headline if self.ok and metric not in self.scores]
        if missing:
            raise ValueError(f"an ok result lacks {' and '.join(missing)} - at `$.scores`")
        for metric, pair in self.ci95.items():
            if pair[0] > pair[1]:
                raise ValueError(f"the interval of {metric} ends before it begins - at `$.ci95`")

    @classmethod
    def make(cls, model: str, **fields: Any) -> Result:
        """Return the result of ``model`` with these fields, validated and normalised. Raises InvalidResultError."""
        return cls.from_json(json_safe({"model": model, **fields}))

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Result:
        """Return the result that `to_json`, `extra_info` or `excluded_info` wrote.

        Unknown keys are ignored, so that files of newer versions can be read. Raises InvalidResultError.
        """
        if not isinstance(data, Mapping):
            raise InvalidResultError(f"a result must be an object, not {type(data).__name__}")
        architecture, _, tag = str(data.get("model")).partition(".")
        fields: dict[str, object] = {"architecture": architecture, "tag": tag, **data}
        try:
            return msgspec.convert({name: _plain(name, value) for name, value in fields.items()}, cls)
        except (msgspec.ValidationError, OverflowError) as error:
            message, _, path = str(error).partition(" - at `$")
            field = f"field {path.strip('.`')!r}: " if path else ""
            who = one_line(str(data.get("model")))[:80]
            raise InvalidResultError(f"result of {who}: {field}{one_line(message)[:150]}") from None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as strict JSON values."""
        fields: dict[str, Any] = json_safe(msgspec.to_builtins(self))
        return fields

    def extra_info(self) -> dict[str, Any]:
        """Return pytest-benchmark's ``extra_info``: all fields but those of failures; ``detail`` if there is any."""
        left_out = _OF_FAILURES if self.detail else (*_OF_FAILURES, "detail")
        return {name: value for name, value in self.to_json().items() if name not in left_out}

    def excluded_info(self) -> dict[str, Any]:
        """Return the entry in the saved JSON's ``excluded`` of a result that is not ok."""
        info: dict[str, Any] = {name: getattr(self, name) for name in ("model", "family", "status", "reason")}
        return info | ({"race": self.race} if self.race else {})

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def headline(self) -> Headline:
        """The names of the two scores by which it is ranked."""
        return headline_of(self.scores)

    @property
    def final(self) -> bool:
        """Whether another try with the same settings cannot help; other results are retried on resume."""
        return is_final(self.status, self.unreachable)

    @property
    def outcome(self) -> Outcome:
        """Outcome of the test: ok, skip or fail."""
        return STATUSES[self.status]

    @property
    def disturbed(self) -> bool:
        """Whether the machine or its host was busy with other work, so that the speed must not be compared."""
        return max(self.crowded or 0.0, self.stolen or 0.0) > CROWDED

    @property
    def random_weights(self) -> bool:
        return self.weights.get("source") == "random"

    @property
    def own(self) -> bool:
        """Whether this is a user's own model, not one of timm's."""
        return "entry" in self.weights or self.weights.get("source", "").startswith(("own:", "factory:"))

    @property
    def gallery_scores(self) -> dict[str, tuple[float, float, float]]:
        """acc with its 95 % interval in galleries with distractors: ``acc_10x`` → (acc, low, high)."""
        found = self.distractors
        if found is None:
            return {}
        return {f"acc_{gallery}": (acc, *found.ci95.get(gallery, (acc, acc))) for gallery, acc in found.acc.items()}

    def half_interval(self, metric: str) -> float | None:
        """Return half the width of the metric's 95 % interval; None if it has none."""
        interval = self.ci95.get(metric)
        return None if interval is None else (interval[1] - interval[0]) / 2


def is_final(status: Status, unreachable: bool) -> bool:
    """See `Result.final`."""
    return status in _FINAL or (status == "no-weights" and not unreachable)


_POSITIVE = ("forward", "end_to_end")
"""Fields and keys that are dropped if they are 0 or below, since nothing was measured then."""

_OF_FAILURES = ("reason", "unreachable", "lost_host", "race")


def _plain(name: str, value: object) -> object:
    """Return text on one line (``detail`` keeps its lines), numbers that are not finite as None, and lists and mappings
    without them."""
    match value:
        case str() | dict() if name in ("verdicts", "probe_verdicts", "sketch", "beaten_by"):
            return value  # long, never printed, and checked when unpacked
        case str():
            return printable_lines(value) if name == "detail" else one_line(value)
        case float() | int() if (name in _POSITIVE and value <= 0) or (name == "peak_memory_mb" and value < 0):
            return None
        case float():
            return value if math.isfinite(value) else None
        case dict():
            plain = {one_line(str(key)): _plain(str(key), item) for key, item in value.items()}
            return {key: item for key, item in plain.items() if item is not None or name in ("weights", "transform")}
        case list() | tuple():
            # Most lists are seconds of rounds, of which a run has hundreds of thousands.
            if set(map(type, value)) == {float} and math.isfinite(sum(value)) and min(value) > 0:
                return list(value)
            items = [_plain(name, item) for item in value]
            if name == "durations":
                return [item for item in items if not (item is None or (isinstance(item, int | float) and item <= 0))]
            return None if None in items else items
    return value
