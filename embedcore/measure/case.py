"""A case: one model under one set of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcore.embed.engines.names import EAGER, check_engine, device_for
from embedcore.errors import UsageError
from embedcore.plain import short_repr

if TYPE_CHECKING:
    from embedcore.zoo.own_models import OwnModel


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """Everything that changes a number, besides the model and the dataset."""

    weights: str = "auto"
    """``auto``, ``random`` or a folder; unused for an own model, which names its weights."""
    protocol: str = "native"
    point: str = "pre_logits"
    device: str = "auto"
    precision: str = "auto"
    engine: str = EAGER
    """How the forward pass runs; see ``embed/engines/names.py``."""
    batch_size: int | str = "auto"
    channels_last: bool | None = None
    """Whether the model computes in channels-last memory; None chooses the faster layout."""
    throughput: bool = True
    """Whether the forward pass is timed; False for scores only."""
    rounds: int = 10
    """Timing rounds, each one forward pass of a batch."""
    processes: int = 1
    """Fresh processes in which a session times the case. With 1 the rounds of a pinned thread are left out, and the
    speed is not compared with that of another run."""
    latency: bool = False
    """Whether the forward pass of single images is timed as well."""
    probe: bool = False
    """Whether probes of the embeddings are scored as well; see `embedcore.retrieval.probes`."""
    seed: int = 0
    """Seeds random weights, the resampling of the intervals, and the draws and folds of probes."""
    max_params: float | None = None
    """Models with more parameters (millions) are ``too-large``."""
    memory_limit: float | None = None
    """Memory that a measuring process may allocate on the CPU besides its initial memory, in units of 2^30 bytes (see
    ``embed/memory.py``). Exhausting it halves the batch; with one image the case is ``oom``."""
    fifos: tuple[str, str] | None = None
    """FIFOs of this process and of one that alternates timing rounds with it; see ``embed/interleaving.py``."""

    def __repr__(self) -> str:
        return short_repr(self)

    def __post_init__(self) -> None:
        for name in ("rounds", "processes"):
            if not _is_count(value := getattr(self, name)):
                raise UsageError(f"{name} is {value!r}: it must be a whole number above 0")
        if not (_is_count(self.batch_size) or self.batch_size == "auto"):
            raise UsageError(f"batch_size is {self.batch_size!r}: it must be 'auto' or a whole number above 0")
        if self.channels_last not in (None, True, False):
            raise UsageError(f"channels_last is {self.channels_last!r}: it must be True, False or None")
        check_engine(self.engine, self.precision, self.channels_last, self.device)

    @property
    def where(self) -> str:
        """The device, or ``auto`` to choose one."""
        return device_for(self.engine, self.device)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value > 0


@dataclass(frozen=True, kw_only=True)
class Case(CaseSettings):
    """One model under these settings, to be measured on a dataset."""

    model: str
    """Full tag, such as ``vit_base_patch16_224.augreg_in21k``, or the name of ``own_model``."""
    family: str
    """Slug."""
    own_model: OwnModel | None = None

    __repr__ = CaseSettings.__repr__
