"""The engine onnxruntime: a model exported by torch.onnx, run on the CPU."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from embedcore.embed.engines.exported import Embed, EmbeddingModule, EngineInputs, bytes_of, exported
from embedcore.embed.engines.names import INT8, ONNXRUNTIME
from embedcore.zoo.backbone import Backbone

_MODEL, _WHOLE = "model.onnx", "fp32.onnx"
_PIXELS, _EMBEDDINGS = "pixels", "embeddings"


def prepare(backbone: Backbone, batch: torch.Tensor, precision: str, inputs: EngineInputs) -> tuple[Embed, int]:
    """Return the forward pass for batches like ``batch``, with torch's number of threads, and the model's bytes.

    ``precision``: fp32, or int8, whose weights and activations are 8-bit integers.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    facts = {"engine": ONNXRUNTIME, "shape": list(batch.shape), "precision": precision}
    facts["exporter"] = [version("onnxscript"), runtime.__version__]

    def export(folder: Path) -> None:
        path = folder / (_WHOLE if precision == INT8 else _MODEL)
        names: dict[str, Any] = {"input_names": [_PIXELS], "output_names": [_EMBEDDINGS]}
        torch.onnx.export(EmbeddingModule(backbone), (batch.contiguous(),), path, dynamo=True, verbose=False, **names)
        if precision == INT8:
            _quantise(folder, len(batch), inputs)

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    with exported(inputs, facts, export) as folder:
        session = runtime.InferenceSession(str(folder / _MODEL), options, providers=["CPUExecutionProvider"])
        size = bytes_of(folder)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        (embeddings,) = session.run([_EMBEDDINGS], {_PIXELS: pixels.contiguous().numpy()})
        return torch.from_numpy(embeddings)

    return embed, size


def _quantise(folder: Path, batch_size: int, inputs: EngineInputs) -> None:
    """Write the model in 8-bit integers, with ranges from the calibration, and delete the one in fp32."""
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    assert inputs.calibration is not None
    batches = inputs.calibration(batch_size)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            pixels = next(batches, None)
            return None if pixels is None else {_PIXELS: pixels.contiguous().numpy()}

    quantization.quantize_static(
        folder / _WHOLE,
        folder / _MODEL,
        Reader(),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=not torch.cpu.get_capabilities().get("avx512_vnni", False),  # sums of 8-bit products overflow
    )
    for path in folder.glob(f"{_WHOLE}*"):
        path.unlink()
