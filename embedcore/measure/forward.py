"""The forward pass of a case on its engine, and the facts that determine its embeddings."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from embedcore.embed.device import device_name
from embedcore.embed.embedder import ForwardSettings, calibration_batches
from embedcore.embed.engines.exported import EngineInputs
from embedcore.embed.engines.forward_pass import ForwardPass
from embedcore.embed.engines.names import EAGER, INT8
from embedcore.images.geometry import geometry_of
from embedcore.measure.case import Case
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.truth import GroundTruth
from embedcore.version import VERSION
from embedcore.zoo.backbone import Backbone
from embedcore.zoo.registry import code_hash


def forward_pass_of(case: Case, inputs: CaseInputs, backbone: Backbone, settings: ForwardSettings) -> ForwardPass:
    """Return a case's forward pass on its engine; int8 is calibrated on the references."""
    assert inputs.pixels is not None
    facts = facts_of(case, backbone, inputs.truth, settings)
    if settings.precision != INT8:  # the model does not depend on the images
        del facts["dataset"], facts["pixels"]
    images = np.flatnonzero(inputs.truth.is_reference)
    calibration = functools.partial(calibration_batches, backbone, inputs.pixels, settings, images)
    needed = EngineInputs(inputs.engines_folder, facts, calibration)
    return ForwardPass(backbone, settings.engine, settings.precision, needed)


def facts_of(case: Case, backbone: Backbone, truth: GroundTruth, settings: ForwardSettings) -> dict[str, Any]:
    """Return everything that determines a case's embeddings, except for rounding that depends on the batch size."""
    config = backbone.data_config
    geometry = geometry_of(config, case.protocol)
    return {
        "model": backbone.name,
        "weights": backbone.weights.id,
        "dataset": truth.fingerprint,
        "geometry": geometry.key,
        # Another decoder or another version of the resizing library may produce other pixels for the same geometry.
        "pixels": hashlib.sha256(f"{geometry.behaviour()}\n{truth.decoder}".encode()).hexdigest(),
        "mean": list(config.mean),
        "std": list(config.std),
        "point": case.point,
        "precision": settings.precision,
        "device": device_name(settings.device) if settings.device.type == "cuda" else settings.device.type,
        "torch": torch.__version__,
        "timm": version("timm"),
        "code": code_hash(),
        "embedcore": VERSION,
        **({} if settings.engine == EAGER else {"engine": settings.engine}),
        # A factory's code counts too.
        **({"entry": case.own_model.state(case.own_model.content())} if case.own_model else {}),
    }
