"""Trace the forward pass of a case in a fresh process; see `embedcore.embed.trace`."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedcore.embed.device import place, set_arithmetic, untuned, use_device
from embedcore.embed.normalise import Normaliser, as_tensor
from embedcore.embed.trace import Trace, trace
from embedcore.errors import EmbedcoreError
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.images.workers import hidden_main
from embedcore.measure.case import Case
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import transform_of
from embedcore.measure.outcome import reason_of
from embedcore.zoo.backbone import load_backbone

IMAGES = 4
"""Images in a traced pass: enough to see a change, few enough for any memory."""


class TraceFailed(EmbedcoreError):
    """A model could not be traced."""


def traced(case: Case, inputs: CaseInputs) -> Trace:
    """Return the trace of a case in fp32, from images evenly spread over its dataset. Raises TraceFailed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with hidden_main():
            process = start_surely(functools.partial(_started, case, inputs, path))
            process.join()
        if not path.is_file():
            raise TraceFailed(f"{case.model} cannot be traced: its process ended with code {process.exitcode}")
        found = msgspec.json.decode(path.read_bytes(), type=Trace | str)
    if isinstance(found, str):
        raise TraceFailed(f"{case.model} cannot be traced: {found}")
    return found


def _started(case: Case, inputs: CaseInputs, path: Path) -> Any:
    process = forkserver_context().Process(target=_write, args=(case, inputs, path))
    process.start()
    return process


def _write(case: Case, inputs: CaseInputs, path: Path) -> None:
    """Write the trace, or the reason why there is none; runs in a process of its own."""
    found: Trace | str
    try:
        found = trace_case(case, inputs)
    except Exception as error:  # whatever a model raises is the reason
        found = reason_of(error)
    path.write_bytes(msgspec.json.encode(found))


def trace_case(case: Case, inputs: CaseInputs) -> Trace:
    """Return the trace of a case, computed in this process."""
    pixels, device = inputs.pixels, use_device(case.device)
    assert pixels is not None
    located = inputs.located or case.weights
    backbone = load_backbone(case.own_model or case.model, weights=located, point=case.point, seed=case.seed)
    set_arithmetic()
    place(backbone.module, device)
    config = backbone.data_config
    chosen = np.linspace(0, len(pixels) - 1, min(IMAGES, len(pixels))).round().astype(int).tolist()
    batch = as_tensor(np.concatenate([pixels.read(index, index + 1) for index in chosen])).to(device)
    with untuned():
        x = Normaliser(config.mean, config.std, device)(batch)
        return trace(backbone, x, {"input_size": config.input_size, **transform_of(config, case.protocol)})
