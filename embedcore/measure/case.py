"""A case: one model tag under one set of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedcore.zoo.own_models import OwnModel


@dataclass(frozen=True)
class Case:
    """What to measure. Everything that changes a number is here or in the dataset."""

    model: str
    """Full tag, such as ``vit_base_patch16_224.augreg_in21k``, or the name of ``own``."""
    family: str  # slug
    own: OwnModel | None = None
    """A model of the user's, with weights of its own; ``weights`` then says nothing."""
    weights: str = "auto"
    """``auto``, ``random`` or a folder."""
    protocol: str = "native"
    point: str = "pre_logits"
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | str = "auto"
    channels_last: bool | None = None
    """Whether the model computes in channels-last memory; None: as is faster."""
    rounds: int = 10
    """Timing rounds, each one forward pass of a batch."""
    seed: int = 0
    """Seeds random weights and the resampling of the intervals."""
    max_params: float | None = None
    """Models with more parameters (millions) are ``too-large``."""
    memory_limit: float | None = None
    """Memory that a measuring process may allocate on the CPU besides what it starts with, in units of 2^30 bytes; see
    ``embed/memory.py``. Exhausting it halves the batch, then the case is ``oom``."""
    fifos: tuple[str, str] | None = None
    """FIFOs of this process and of one that alternates timing rounds with it; see ``embed/interleaving.py``."""
