"""embedcore: which pretrained backbone embeds my images best, how fast, and did the last upgrade break it?

The steps of a benchmark case as a library; nothing heavy is imported before it is used:

    from embedcore import embed_dataset, load_backbone, load_dataset, nearest, score
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcore.embed.dataset import embed_dataset
    from embedcore.errors import (
        EmbedcoreError,
        UnsupportedModel,
        UsageError,
        WeightsDamaged,
        WeightsGated,
        WeightsUnavailable,
    )
    from embedcore.images.dataset import Dataset, load_dataset
    from embedcore.retrieval.metrics import Scores, score
    from embedcore.retrieval.search import Neighbours, nearest
    from embedcore.zoo.backbone import Backbone, load_backbone

_HOMES = {
    "Backbone": "embedcore.zoo.backbone",
    "Dataset": "embedcore.images.dataset",
    "EmbedcoreError": "embedcore.errors",
    "Neighbours": "embedcore.retrieval.search",
    "Scores": "embedcore.retrieval.metrics",
    "UnsupportedModel": "embedcore.errors",
    "UsageError": "embedcore.errors",
    "WeightsDamaged": "embedcore.errors",
    "WeightsGated": "embedcore.errors",
    "WeightsUnavailable": "embedcore.errors",
    "embed_dataset": "embedcore.embed.dataset",
    "load_backbone": "embedcore.zoo.backbone",
    "load_dataset": "embedcore.images.dataset",
    "nearest": "embedcore.retrieval.search",
    "score": "embedcore.retrieval.metrics",
}

__all__ = [
    "Backbone",
    "Dataset",
    "EmbedcoreError",
    "Neighbours",
    "Scores",
    "UnsupportedModel",
    "UsageError",
    "WeightsDamaged",
    "WeightsGated",
    "WeightsUnavailable",
    "embed_dataset",
    "load_backbone",
    "load_dataset",
    "nearest",
    "score",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
