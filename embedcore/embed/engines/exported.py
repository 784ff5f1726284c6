"""Models exported for another engine, one for each batch shape, and kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from embedcore.embed.engines.names import FACTS
from embedcore.files import PARTIAL
from embedcore.zoo.backbone import Backbone

Embed = Callable[[torch.Tensor], torch.Tensor]
"""Normalised pixels float32 [b, 3, h, w] to raw embeddings [b, dim]."""

CALIBRATION_IMAGES = 128

# Increase it when the export of a model changes.
_FORMAT = 1


@dataclass(frozen=True)
class EngineInputs:
    """What an engine needs besides the backbone."""

    folder: Path | None = None
    """Where compiled and exported models are kept; None not to keep them."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What determines the embeddings of an image: the key of an exported model."""
    calibration: Callable[[int], Iterator[torch.Tensor]] | None = None
    """Yields normalised images in batches of the given size, whose activations determine the ranges of int8."""


class EmbeddingModule(torch.nn.Module):
    """A backbone's forward pass as a module: normalised pixels [b, 3, h, w] to raw embeddings [b, dim]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.module = backbone.module
        self._embed = backbone.embed
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._embed(pixels)


@contextlib.contextmanager
def exported(inputs: EngineInputs, facts: Mapping[str, Any], export: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a folder with an exported model: the kept one, or what ``export`` writes into a new folder.

    ``facts``: what determines the model besides the facts of ``inputs``. Raises OSError, and what ``export`` raises.
    """
    if inputs.folder is None:
        with tempfile.TemporaryDirectory(prefix="embedcore-") as scratch:
            with _silence():
                export(Path(scratch))
            yield Path(scratch)
        return
    known = json.dumps({"format": _FORMAT, **inputs.facts, **facts}, sort_keys=True)
    folder = inputs.folder / hashlib.sha256(known.encode()).hexdigest()[:32]
    if not folder.is_dir():
        inputs.folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=PARTIAL, dir=inputs.folder))
        try:
            with _silence():
                export(partial)
            (partial / FACTS).write_text(known)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    yield folder


def bytes_of(folder: Path) -> int:
    """Return the size of an exported model."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != FACTS)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop the warnings that exporters log about each model, and undo the level that openvino sets when it fails."""
    before, level = logging.root.manager.disable, logging.root.level
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.setLevel(level)
