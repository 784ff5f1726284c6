"""The engine openvino: a model traced by torch and converted, run on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from embedcore.embed.engines.exported import Embed, EmbeddingModule, EngineInputs, bytes_of, exported
from embedcore.embed.engines.names import INT8, OPENVINO
from embedcore.zoo.backbone import Backbone

_MODEL = "model.xml"
_HINTS = {"fp32": "f32", "bf16": "bf16", INT8: "f32"}
"""The precision of what is not in 8-bit integers."""


def prepare(backbone: Backbone, batch: torch.Tensor, precision: str, inputs: EngineInputs) -> tuple[Embed, int]:
    """Return the forward pass for batches like ``batch``, with torch's number of threads, and the model's bytes.

    ``precision``: fp32, bf16, or int8, whose weights and activations are 8-bit integers.
    """
    openvino: Any = importlib.import_module("openvino")
    facts = {"engine": OPENVINO, "shape": list(batch.shape), "quantised": precision == INT8}
    facts["exporter"] = openvino.__version__

    def export(folder: Path) -> None:
        example = batch.contiguous()
        model = openvino.convert_model(EmbeddingModule(backbone), example_input=example, input=[tuple(batch.shape)])
        if precision == INT8:
            model = _quantised(model, len(batch), inputs)
        openvino.save_model(model, folder / _MODEL, compress_to_fp16=False)

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # the process may have pinned its threads itself
    }
    with exported(inputs, facts, export) as folder:
        model = openvino.Core().compile_model(folder / _MODEL, "CPU", settings)
        size = bytes_of(folder)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model(pixels.contiguous().numpy())[0])

    return embed, size


def _quantised(model: Any, batch_size: int, inputs: EngineInputs) -> Any:
    """Return the model in 8-bit integers, with ranges from the calibration."""
    nncf: Any = importlib.import_module("nncf")
    assert inputs.calibration is not None
    batches = [pixels.contiguous().numpy() for pixels in inputs.calibration(batch_size)]
    return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
