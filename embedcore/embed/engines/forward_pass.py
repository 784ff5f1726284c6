"""The forward pass of a backbone on an engine, prepared for each shape of a batch."""

from __future__ import annotations

import os
import time

import torch

from embedcore.embed.engines import onnx_runtime, open_vino
from embedcore.embed.engines.exported import Embed, EngineInputs
from embedcore.embed.engines.names import COMPILE, EAGER, MODES, ONNXRUNTIME, kind_of
from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import EmbedcoreError, UnsupportedModel
from embedcore.plain import one_line
from embedcore.zoo.backbone import Backbone

_LONGEST_REASON = 200


class ForwardPass:
    """Runs a backbone's forward pass on an engine: normalised pixels [b, 3, h, w] to raw embeddings [b, dim].

    ``eager`` calls the backbone. The other engines prepare the model once for each batch shape and number of threads.
    """

    def __init__(
        self, backbone: Backbone, engine: str = EAGER, precision: str = "fp32", inputs: EngineInputs | None = None
    ) -> None:
        self.backbone, self.engine, self.precision = backbone, engine, precision
        self.compile_s: float | None = None
        """Seconds that the engine took to prepare the model and to run a first batch of each shape; None for eager."""
        self._inputs = inputs or EngineInputs()
        self._ready: dict[tuple[object, ...], Embed] = {}
        self._exported_bytes: int | None = None

    @property
    def equal(self) -> bool:
        """Whether all batches should have one shape, since the engine prepares each shape."""
        return self.engine != EAGER

    def weights_mb(self) -> float:
        """Return the size of the model as the engine keeps it, in MB of 10^6 bytes."""
        held = (*self.backbone.module.parameters(), *self.backbone.module.buffers())
        size = sum(tensor.nbytes for tensor in held) if self._exported_bytes is None else self._exported_bytes
        return size / 1e6

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Raises UnsupportedModel if the engine cannot run the model."""
        if self.engine == EAGER:
            return self.backbone.embed(batch)
        key = tuple(batch.shape), torch.get_num_threads()
        if key not in self._ready:
            self._ready[key] = self._prepared(batch)
        return self._ready[key](batch)

    def _prepared(self, batch: torch.Tensor) -> Embed:
        self.backbone.embed(batch)  # a fault of the model itself is not one of the engine
        begin = time.perf_counter()
        try:
            embed = self._compiled() if kind_of(self.engine) == COMPILE else self._exported(batch)
            embed(batch)
        except (EmbedcoreError, OSError):  # a full disk says nothing about the model
            raise
        except Exception as error:  # compilers and exporters raise exceptions of any kind
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {one_line(str(error))[:_LONGEST_REASON]}"
            raise UnsupportedModel(f"{self.backbone.name}: the engine {self.engine} cannot run it: {reason}") from error
        self.compile_s = (self.compile_s or 0.0) + time.perf_counter() - begin
        return embed

    def _compiled(self) -> Embed:
        if self._inputs.folder is not None:  # torch reads it when it first compiles
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self._inputs.folder / "inductor"))
        mode = self.engine.partition(":")[2] or MODES[0]
        compiled: Embed = torch.compile(self.backbone.embed, mode=mode, dynamic=False)
        return compiled

    def _exported(self, batch: torch.Tensor) -> Embed:
        prepare = onnx_runtime.prepare if kind_of(self.engine) == ONNXRUNTIME else open_vino.prepare
        # In fp32 whatever the caller's context: these engines have precisions of their own.
        with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
            embed, self._exported_bytes = prepare(self.backbone, batch, self.precision, self._inputs)
        return embed
