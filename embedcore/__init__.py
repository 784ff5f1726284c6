"""embedcore: which pretrained backbone embeds my images best, how fast, and did the last upgrade break it?

The harness as a library; nothing heavy is imported before it is used:

    from embedcore import benchmark, compare, embed_dataset, leaderboard, load_dataset, nearest, rank, score
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from embedcore import version

if TYPE_CHECKING:
    from embedcore.embed.embedding_files import SavedEmbeddings as SavedEmbeddings
    from embedcore.embed.embedding_files import load_embeddings as load_embeddings
    from embedcore.embed.embedding_files import save_embeddings as save_embeddings
    from embedcore.embed.library import embed_dataset as embed_dataset
    from embedcore.errors import EmbedcoreError as EmbedcoreError
    from embedcore.errors import FactoryError as FactoryError
    from embedcore.errors import HubUnreachable as HubUnreachable
    from embedcore.errors import UnsupportedModel as UnsupportedModel
    from embedcore.errors import UsageError as UsageError
    from embedcore.errors import WeightsDamaged as WeightsDamaged
    from embedcore.errors import WeightsGated as WeightsGated
    from embedcore.errors import WeightsUnavailable as WeightsUnavailable
    from embedcore.forkserver import StartError as StartError
    from embedcore.images.dataset import Dataset as Dataset
    from embedcore.images.decode import BadImageError as BadImageError
    from embedcore.images.load_dataset import as_dataset as as_dataset
    from embedcore.images.load_dataset import load_dataset as load_dataset
    from embedcore.measure.bench import Bench as Bench
    from embedcore.measure.case import CaseSettings as CaseSettings
    from embedcore.notebook.benchmark import benchmark as benchmark
    from embedcore.notebook.comparing import compare as compare
    from embedcore.notebook.ranking_tables import leaderboard as leaderboard
    from embedcore.notebook.ranking_tables import rank as rank
    from embedcore.notebook.shown_run import Run as Run
    from embedcore.notebook.shown_run import read_run as read_run
    from embedcore.progress import StopWork as StopWork
    from embedcore.results.ranking import NotRanked as NotRanked
    from embedcore.results.result import InvalidResultError as InvalidResultError
    from embedcore.results.result import Result as Result
    from embedcore.retrieval.metrics import Scores as Scores
    from embedcore.retrieval.metrics import score as score
    from embedcore.retrieval.search import Neighbours as Neighbours
    from embedcore.retrieval.search import nearest as nearest
    from embedcore.retrieval.streamed import nearest_streamed as nearest_streamed
    from embedcore.zoo.backbone import Backbone as Backbone
    from embedcore.zoo.backbone import load_backbone as load_backbone
    from embedcore.zoo.own_models import OwnModel as OwnModel
    from embedcore.zoo.roster import own_models as own_models

__version__ = version.VERSION

_NAMES_OF = {
    "embed.embedding_files": "SavedEmbeddings load_embeddings save_embeddings",
    "embed.library": "embed_dataset",
    "errors": "EmbedcoreError FactoryError HubUnreachable UnsupportedModel UsageError "
    "WeightsDamaged WeightsGated WeightsUnavailable",
    "forkserver": "StartError",
    "images.dataset": "Dataset",
    "images.load_dataset": "as_dataset load_dataset",
    "images.decode": "BadImageError",
    "measure.bench": "Bench",
    "measure.case": "CaseSettings",
    "notebook.benchmark": "benchmark",
    "notebook.comparing": "compare",
    "notebook.ranking_tables": "leaderboard rank",
    "notebook.shown_run": "Run read_run",
    "progress": "StopWork",
    "results.ranking": "NotRanked",
    "results.result": "InvalidResultError Result",
    "retrieval.metrics": "Scores score",
    "retrieval.search": "Neighbours nearest",
    "retrieval.streamed": "nearest_streamed",
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


class _Package(types.ModuleType):
    """This package. A folder with the name of a function (`compare`) does not take its place when it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
