"""embedcore: which pretrained backbone embeds my images best, how fast, and did the last upgrade break it?

The steps of a benchmark case as a library; nothing heavy is imported before it is used:

    from embedcore import embed_dataset, load_backbone, load_dataset, nearest, score
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embedcore import version

if TYPE_CHECKING:
    from embedcore.embed.library import embed_dataset as embed_dataset
    from embedcore.errors import EmbedcoreError as EmbedcoreError
    from embedcore.errors import FactoryError as FactoryError
    from embedcore.errors import UnsupportedModel as UnsupportedModel
    from embedcore.errors import UsageError as UsageError
    from embedcore.errors import WeightsDamaged as WeightsDamaged
    from embedcore.errors import WeightsGated as WeightsGated
    from embedcore.errors import WeightsUnavailable as WeightsUnavailable
    from embedcore.images.dataset import Dataset as Dataset
    from embedcore.images.dataset import as_dataset as as_dataset
    from embedcore.images.dataset import load_dataset as load_dataset
    from embedcore.measure.bench import Bench as Bench
    from embedcore.measure.case import CaseSettings as CaseSettings
    from embedcore.results.reading import read_run as read_run
    from embedcore.results.run import Run as Run
    from embedcore.retrieval.metrics import Scores as Scores
    from embedcore.retrieval.metrics import score as score
    from embedcore.retrieval.search import Neighbours as Neighbours
    from embedcore.retrieval.search import nearest as nearest
    from embedcore.zoo.backbone import Backbone as Backbone
    from embedcore.zoo.backbone import load_backbone as load_backbone
    from embedcore.zoo.own_models import OwnModel as OwnModel
    from embedcore.zoo.roster import own_models as own_models

__version__ = version.VERSION

_NAMES_OF = {
    "embed.library": "embed_dataset",
    "errors": "EmbedcoreError FactoryError UnsupportedModel UsageError WeightsDamaged WeightsGated WeightsUnavailable",
    "images.dataset": "Dataset as_dataset load_dataset",
    "measure.bench": "Bench",
    "measure.case": "CaseSettings",
    "results.reading": "read_run",
    "results.run": "Run",
    "retrieval.metrics": "Scores score",
    "retrieval.search": "Neighbours nearest",
    "zoo.backbone": "Backbone load_backbone",
    "zoo.own_models": "OwnModel",
    "zoo.roster": "own_models",
}
_HOMES = {name: f"embedcore.{home}" for home, names in _NAMES_OF.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
