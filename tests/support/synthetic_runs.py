"""Synthetic saved runs, as a session would write them, without measuring anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.results.run import Run, run_of
from embedcore.results.verdicts import pack_classes, pack_outcomes, pack_sketch, pack_verdicts
from embedcore.retrieval.outcomes import Outcomes

MACHINE = {
    "timm": "1.0.20",
    "torch": "2.14.1",
    "cuda": None,
    "gpu": None,
    "processor": "a CPU, 2 threads",
    "python": "3.11.2",
}


def hits_of(model: str, classes: np.ndarray, acc: float, seed: int = 0) -> np.ndarray:
    """Hits among the five nearest, uint8 [n_queries]: easy and hard classes, the same for the same model and seed."""
    rng = np.random.default_rng([seed, *model.encode()])
    ease = np.clip(rng.normal(acc, 0.1, classes.max() + 1), 0, 1)[classes]
    return rng.binomial(5, ease).astype(np.uint8)


def result(model: str, classes: np.ndarray, hits: np.ndarray, **changes: Any) -> dict[str, Any]:
    """``extra_info`` of a measured model; `changes` replace fields."""
    rng = np.random.default_rng([1, *model.encode()])
    first = rng.random(len(hits)) < hits / 5
    architecture, _, tag = model.partition(".")
    fields = {
        "model": model,
        "architecture": architecture,
        "tag": tag,
        "family": architecture.split("_")[0],
        "status": "ok",
        "params_m": 5.0,
        "gmacs": 1.0,
        "input_size": [3, 224, 224],
        "dim": 192,
        "point": "pre_logits",
        "precision": "fp32",
        "batch_size": 16,
        "device": "cpu",
        "transform": {"crop_pct": 0.875, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
        "default_tag": tag,
        "weights": {"source": "hub", "id": f"sha256:{model}", "address": f"hub:timm/{model}"},
        "scores": {"acc": float(first.mean()), "acc5": float(hits.mean() / 5), "hit5": float((hits > 0).mean())},
        "images_per_s": {"forward": 16.0},
        "peak_memory_mb": 500.0,
        "verdicts": pack_verdicts(hits, first),
        "sketch": pack_sketch(rng.standard_normal((8, 64)) / 8),
        "durations": [float(s) for s in 1.0 + 0.01 * np.random.default_rng(2).standard_normal(10)],
    }
    fields |= changes
    return {"processes": processes(fields["durations"], seed=[3, *model.encode()]), **fields}


def by_views(model: str, images: int, recall: float, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """``extra_info`` of a model that was measured on images without labels: a class for each image."""
    rng = np.random.default_rng([seed, *model.encode()])
    ease = np.random.default_rng(seed).normal(recall, 0.2, images)
    first, more = rng.random(images) < ease, rng.random(images) < 0.3
    five = first | more
    fields = {
        "scores": {"view_recall": float(first.mean()), "view_recall5": float(five.mean())},
        "ci95": {"view_recall": (float(first.mean()) - 0.02, float(first.mean()) + 0.02)},
        "unlabelled": {"near_duplicates": 0.125, "effective_rank": 31.4},
        "verdicts": pack_verdicts(five.astype(np.uint8), first),
    }
    return result(model, np.arange(images), five.astype(np.uint8), **(fields | changes))


def saved_by_views(results: list[dict[str, Any]], images: int, **more: Any) -> dict[str, Any]:
    """The JSON of a run on images without labels."""
    dataset = {"unlabelled": True, "references": images, **more.pop("dataset", {})}
    return saved(results, np.arange(images), settings={"unlabelled": True}, dataset=dataset, **more)


def probed(info: dict[str, Any], name: str, right: np.ndarray, tries: int = 1, judged: Any = None) -> dict[str, Any]:
    """`info` with the score of a probe: `right` of `tries` [n_queries] on the `judged` queries, all by default."""
    judged = np.ones(len(right), dtype=bool) if judged is None else judged
    outcomes = Outcomes(np.where(judged, right, 0).astype(np.uint8), tries, judged)
    verdicts = {**info.get("probe_verdicts", {}), name: pack_outcomes(outcomes)}
    return info | {"probe_verdicts": verdicts, "scores": {**info["scores"], name: float(outcomes.per_query().mean())}}


def processes(
    seconds: Sequence[float],
    count: int = 2,
    *,
    seed: Any = 0,
    scatter: float = 0.004,
    pinned: bool = True,
    product: float = 1.0,
    copy: float = 1.0,
) -> list[dict[str, Any]]:
    """Timings of fresh processes around the median of `seconds`, which differ by `scatter` (on the log scale).

    `pinned`: also one pinned thread; `product`, `copy`: factors of the reference kernel's parts.
    """
    if not seconds:
        return []
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        rounds = np.exp(np.log(np.median(seconds)) + rng.normal(0, scatter) + rng.normal(0, scatter, 10))
        copies = 0.001 * copy * np.exp(rng.normal(0, scatter, 10))
        whole = copies + 0.004 * product * np.exp(rng.normal(0, scatter, 10))
        beside = {"reference": whole.tolist(), "reference_copy": copies.tolist(), "crowded": 0.0}
        one = {"core": 1, "images": 1, "durations": (rounds / 10).tolist(), **beside}
        timed = {"started": 1e9 + 600 * number, "durations": rounds.tolist(), **beside}
        found.append({**timed, "pinned": one} if pinned else timed)
    return found


def saved(
    results: list[dict[str, Any]],
    classes: np.ndarray,
    *,
    excluded: list[dict[str, Any]] | None = None,
    machine: Mapping[str, Any] = MACHINE,
    settings: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    **block: Any,
) -> dict[str, Any]:
    """The JSON of a run; `block` adds to its ``embedcore`` block."""
    return {
        "machine_info": {"embedcore": dict(machine)},
        "commit_info": {"id": "0" * 40},
        "datetime": "2026-11-24T12:00:00+00:00",
        "version": "5.1.0",
        "benchmarks": [{"name": f"test_model[{info['model']}]", "extra_info": info} for info in results],
        "embedcore": {
            "schema": 1,
            "settings": {"protocol": "native", "weights": "auto", **(settings or {})},
            "dataset": {
                "name": "photos",
                "fingerprint": "f00d",
                "classes": int(classes.max()) + 1,
                "queries": len(classes),
                "query_classes": pack_classes(classes),
                **(dataset or {}),
            },
            "excluded": excluded or [],
            **block,
        },
    }


def as_run(data: dict[str, Any], name: str = "run.json") -> Run:
    """Return the run that is read back from a saved JSON."""
    return run_of(json.loads(json.dumps(data)), Path(name))
