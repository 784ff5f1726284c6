from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcore.results.result import STATUSES, InvalidResultError, Result

Make = Callable[..., Result]

# DESIGN section 7, with what has been added to it since.
EXTRA_INFO_KEYS = {
    *("model", "architecture", "tag", "family", "status", "params_m", "gmacs", "input_size", "dim", "point"),
    *("precision", "batch_size", "batch_decayed", "device", "weights", "scores", "ci95", "images_per_s"),
    *("peak_memory_mb", "verdicts", "sketch", "channels_last", "warmup_rounds", "dataset"),
    *("token_mean", "pretraining", "licence", "durations", "download_s", "measured_s", "transform", "default_tag"),
    *("processor", "node", "crowded", "stolen", "processes", "embeddings"),
    *("engine", "compile_s", "weights_mb", "latency_ms", "probe_verdicts", "unlabelled", "distractors"),
}


def test_statuses_and_their_outcomes() -> None:
    by_outcome: dict[str, list[str]] = {}
    for status, outcome in STATUSES.items():
        by_outcome.setdefault(outcome, []).append(status)
    assert by_outcome == {
        "ok": ["ok"],
        "skip": ["raced-out", "no-weights", "gated", "too-large", "oom", "unsupported"],
        "fail": ["nan", "timeout", "crashed", "error"],
    }


@pytest.mark.parametrize("key", ["../../etc/passwd", "f" * 31, "F" * 32, 7])
def test_the_key_of_embeddings_is_no_path(result_of: Make, key: object) -> None:
    with pytest.raises(InvalidResultError, match="embeddings"):
        result_of(embeddings=key)


def test_extra_info_is_the_contract(result_of: Make) -> None:
    result = result_of()
    info = result.extra_info()
    assert set(info) == EXTRA_INFO_KEYS
    assert info["input_size"] == [3, 224, 224]
    assert info["weights"] == {"source": "hub", "id": "sha256:0123456789abcdef"}
    assert info["ci95"] == {"acc": [0.47, 0.53]}
    assert info["images_per_s"] == {"forward": 101.5, "end_to_end": 97.0}
    assert Result.from_json(json.loads(json.dumps(info, allow_nan=False))) == result


def test_distractors_are_read_back(result_of: Make) -> None:
    found = {"count": 90, "beaten_by": "eJwDAAAAAAE=", "acc": {"10x": 0.4, "all": 0.4}, "ci95": {"10x": [0.3, 0.5]}}
    result = result_of(distractors=found)
    assert result.extra_info()["distractors"] == found
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert result.gallery_scores == {"acc_10x": (0.4, 0.3, 0.5), "acc_all": (0.4, 0.4, 0.4)}
    assert result_of().gallery_scores == {}
    with pytest.raises(InvalidResultError, match="distractors"):
        result_of(distractors={"count": 0, "beaten_by": "", "acc": {}, "ci95": {}})


def test_excluded_info_is_the_contract() -> None:
    result = Result.make("vgg11.tv_in1k", family="vgg", status="oom", reason="out of\nmemory", detail="a\nb")
    assert result.excluded_info() == {
        "model": "vgg11.tv_in1k",
        "family": "vgg",
        "status": "oom",
        "reason": "out of memory",
    }
    assert (result.architecture, result.tag, result.outcome, result.ok) == ("vgg11", "tv_in1k", "skip", False)
    assert Result.from_json(result.to_json()) == result
    assert Result.from_json(result.excluded_info()) == msgspec.structs.replace(result, detail="")


def test_the_timing_of_each_process_survives_the_json(result_of: Make) -> None:
    pinned = {"core": 1, "images": 2, "durations": [0.2, 0.21], "reference": [0.01] * 2, "reference_copy": [0.004] * 2}
    processes = [
        {"started": 1.5, "durations": [0.1, math.nan, 0.0, -1.0], "pinned": pinned, "crowded": None},
        {"started": 90.0, "durations": [0.1], "clock_mhz": 1980.0, "throttled": ["power cap"], "reference": [math.inf]},
    ]
    result = result_of(processes=processes)
    first, second = result.processes
    assert first.durations == (0.1,) and first.pinned is not None and first.pinned.durations == (0.2, 0.21)
    assert second.throttled == ("power cap",) and second.reference == ()
    assert Result.from_json(json.loads(json.dumps(result.extra_info(), allow_nan=False))) == result


_NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers()


@given(
    params=_NUMBERS | st.none(),
    extra=st.dictionaries(st.text(max_size=8), _NUMBERS, max_size=5),
    durations=st.lists(_NUMBERS, max_size=5),
    pair=st.tuples(_NUMBERS, _NUMBERS).filter(lambda p: not p[0] > p[1]),
    reason=st.text(),
    detail=st.text(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_round_trip_never_holds_nan(
    result_of: Make, params: Any, extra: Any, durations: Any, pair: Any, reason: str, detail: str
) -> None:
    result = result_of(
        params_m=params,
        scores={**extra, "acc": 0.5, "acc5": 0.25},
        images_per_s=extra,
        durations=durations,
        ci95={"acc": pair},
        reason=reason,
        detail=detail,
    )
    text = json.dumps(result.to_json(), allow_nan=False)
    assert Result.from_json(json.loads(text)) == result
    assert pickle.loads(pickle.dumps(result)) == result


def test_numbers_that_are_not_finite_are_dropped(result_of: Make) -> None:
    result = result_of(
        gmacs=math.nan,
        scores={"acc": 0.5, "acc5": 0.3, "knn20": math.nan},
        ci95={"acc": (math.nan, 0.6), "acc5": (0.2, 0.4)},
        durations=[0.1, math.inf],
    )
    assert result.gmacs is None
    assert result.scores == {"acc": 0.5, "acc5": 0.3}
    assert result.ci95 == {"acc5": (0.2, 0.4)}
    assert result.durations == (0.1,)


def test_numpy_scalars_become_python_numbers(result_of: Make) -> None:
    result = result_of(
        dim=np.int64(768), params_m=np.float32(1.5), scores={"acc": np.float32(0.5), "acc5": np.float64(0)}
    )
    assert type(result.dim) is int
    assert type(result.params_m) is float
    assert {type(value) for value in result.scores.values()} == {float}


def test_unknown_keys_are_ignored(result_of: Make) -> None:
    result = result_of()
    assert Result.from_json(result.to_json() | {"from_the_future": [1]}) == result


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", 7),
        ("family", None),
        ("status", "fine"),
        ("status", ["ok"]),
        ("reason", None),
        ("params_m", "85"),
        ("params_m", True),
        ("input_size", [224, 224]),
        ("input_size", [3, 0, 224]),
        ("input_size", "224"),
        ("dim", 0),
        ("dim", 7.5),
        ("batch_size", "auto"),
        ("batch_decayed", 1),
        ("token_mean", "yes"),
        ("weights", "hub"),
        ("weights", {"source": None}),
        ("unreachable", "no"),
        ("lost_host", "huggingface.co"),
        ("scores", [0.5]),
        ("scores", {"acc": "0.5", "acc5": 0.1}),
        ("ci95", {"acc": 0.5}),
        ("ci95", {"acc": [0.4, 0.5, 0.6]}),
        ("ci95", {"acc": [0.6, 0.4]}),
        ("images_per_s", 5),
        ("durations", 0.5),
        ("durations", ["0.5"]),
        ("verdicts", b"abc"),
    ],
)
def test_wrong_value_is_an_error_that_names_the_field(result_of: Make, field: str, value: object) -> None:
    data = result_of().to_json() | {field: value}
    with pytest.raises(InvalidResultError, match=rf"^result of .*: field '{field}(\[.*)?': ") as caught:
        Result.from_json(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("field", ["model", "family", "status"])
def test_missing_field_is_named(result_of: Make, field: str) -> None:
    data = result_of().to_json()
    del data[field]
    with pytest.raises(InvalidResultError, match=rf"(required|field) .*{field}"):
        Result.from_json(data)


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_not_an_object(data: Any) -> None:
    with pytest.raises(InvalidResultError, match="must be an object"):
        Result.from_json(data)


@pytest.mark.parametrize("scores", [{}, {"acc": 0.5}, {"acc": 0.5, "acc5": math.nan}])
def test_ok_result_needs_the_scores_it_is_ranked_by(result_of: Make, scores: dict[str, float]) -> None:
    with pytest.raises(InvalidResultError, match=r"lacks .*acc5"):
        result_of(scores=scores)


@pytest.mark.parametrize(("crowded", "disturbed"), [(None, False), (0, False), (0.2, False), (0.21, True), (3.5, True)])
def test_disturbed(result_of: Make, crowded: float | None, disturbed: bool) -> None:
    assert result_of(crowded=crowded).disturbed == result_of(crowded=0.0, stolen=crowded).disturbed == disturbed


def test_half_interval_and_random_weights(result_of: Make) -> None:
    result = result_of(weights={"source": "random", "id": "seed:0"}, ci95={"acc": (0.2, 0.5)})
    assert result.half_interval("acc") == pytest.approx(0.15)
    assert result.half_interval("acc5") is None
    assert result.random_weights
    assert not result_of().random_weights
