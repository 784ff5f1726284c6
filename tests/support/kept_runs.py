"""Saved runs with kept embeddings, as a session would leave them, from given rows instead of images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_runs as made

from embedcore.embed.kept import FOLDER, KeptEmbeddings, key_of
from embedcore.results.verdicts import pack_classes, pack_verdicts
from embedcore.retrieval.metrics import score


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def save(
    path: Path,
    models: Mapping[str, np.ndarray],
    labels: np.ndarray,
    is_query: np.ndarray | None = None,
    *,
    cache: Path,
    **fields: Any,
) -> str:
    """Save a run of models with these L2-normalised embeddings [n, d]; return its path.

    `labels` [n]: class of each image; `is_query` [n]: whether it is a query, else a reference; None: leave-one-out.
    `fields`: of all results.
    """
    kept = KeptEmbeddings(cache / FOLDER)
    is_query = np.ones(len(labels), dtype=bool) if is_query is None else is_query
    alone = bool(is_query.all())
    results = []
    for name, rows in models.items():
        facts = {"model": name, "rows": float(np.abs(rows).sum())}
        kept.save(facts, rows)
        sides = (rows, labels) if alone else (rows[is_query], labels[is_query], rows[~is_query], labels[~is_query])
        scores = score(*sides, resamples=1)
        values = {metric: scores.values[metric] for metric in ("acc", "acc5", "hit5")}
        verdicts = pack_verdicts(scores.hits5, scores.rank1)
        own = {"scores": values, "verdicts": verdicts, "embeddings": key_of(facts), "dim": rows.shape[1]}
        results.append(made.result(name, labels[is_query], scores.hits5, **own | fields))
    block: dict[str, Any] = {"references": len(labels) if alone else int((~is_query).sum())}
    if not alone:
        block["reference_classes"] = pack_classes(labels[~is_query])
        block["roles"] = pack_classes(np.where(is_query, 1, 2))
    path.write_text(json.dumps(made.saved(results, labels[is_query], dataset=block)))
    return str(path)
