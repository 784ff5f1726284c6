"""Time a case: rounds of all threads and of one pinned thread, each followed by a call of the reference kernel."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import torch

from embedcore.embed.card import card_state
from embedcore.embed.device import device_lock, place, set_arithmetic, use_device
from embedcore.embed.embedder import ForwardSettings, first_batch
from embedcore.embed.engines.forward_pass import ForwardPass
from embedcore.embed.pinned import pinned_thread, rounds_of
from embedcore.embed.reference import Reference, reference_on
from embedcore.embed.timing import Timed, host_seconds, time_forward
from embedcore.measure.case import Case
from embedcore.measure.forward import forward_pass_of
from embedcore.measure.inputs import CaseInputs, fetched_weights
from embedcore.measure.outcome import failure
from embedcore.progress import Stages, StopWork
from embedcore.results.process import Pinned, TimingProcess
from embedcore.results.result import Result
from embedcore.zoo.backbone import load_backbone


def attempt_timing(case: Case, inputs: CaseInputs, stages: Stages | None = None) -> TimingProcess | Result:
    """Time a case that has been measured, in another process; a failure gives a result with a status and a reason.

    The case has the batch size, precision and memory layout of its first process. Raises StopWork.
    """
    begin = time.perf_counter()
    try:
        return _time_case(case, inputs, stages or (lambda stage, done, total: None))
    except StopWork:
        raise
    except Exception as error:  # whatever a model, its weights or its kernels raise ends this case, not the run
        return failure(case, error, measured_s=time.perf_counter() - begin)


def _time_case(case: Case, inputs: CaseInputs, stages: Stages) -> TimingProcess:
    started = time.time()
    located, _ = fetched_weights(case, inputs, stages)
    stages("loading", 0, 0)
    device = use_device(case.where)
    model = case.own_model or case.model
    backbone = load_backbone(model, weights=located or case.weights, point=case.point, seed=case.seed)
    set_arithmetic()  # a factory may have changed it
    settings = ForwardSettings(device, case.precision, bool(case.channels_last), case.engine)
    place(backbone.module, device, channels_last=settings.channels_last)
    assert inputs.pixels is not None
    size = int(case.batch_size)
    batch = first_batch(backbone, inputs.pixels, size, settings)
    forward_pass = forward_pass_of(case, inputs, backbone, settings)
    reference = reference_on(device)
    with device_lock(device):
        with settings.context(backbone):
            timed = time_forward(
                forward_pass, batch, case.rounds, None, functools.partial(stages, "timing"), reference=reference
            )
        pinned = None
        if inputs.pinned_images is not None:
            pinned = time_pinned(forward_pass, batch[: inputs.pinned_images], settings, case.rounds, reference)
        return process_of(started, timed, pinned, device)


def time_pinned(
    forward_pass: ForwardPass, batch: torch.Tensor, settings: ForwardSettings, rounds: int, reference: Reference
) -> Pinned | None:
    """Time rounds of a small ``batch`` [b, 3, h, w] on one pinned thread; None on a card, and where none can be pinned.

    ``rounds``: the number of rounds of all threads, which limits the number of these (see `rounds_of`).
    """
    if settings.device.type != "cpu":
        return None
    with pinned_thread() as core, settings.context(forward_pass.backbone):
        if core is None:
            return None
        host_seconds(forward_pass, batch)
        number = rounds_of(host_seconds(forward_pass, batch), rounds)
        timed = time_forward(forward_pass, batch, number, reference=reference)
    return Pinned(core=core, images=len(batch), **_rounds_of(timed))


def process_of(started: float, timed: Timed, pinned: Pinned | None, device: torch.device) -> TimingProcess:
    """Return the record of a process that began at ``started`` (seconds since the epoch) and has just been timed."""
    card = card_state(device)
    return TimingProcess(started=started, stolen=timed.stolen, pinned=pinned, **card, **_rounds_of(timed))


def _rounds_of(timed: Timed) -> dict[str, Any]:
    """Return the fields of `Rounds`."""
    return {
        "durations": _rounded(timed.durations),
        "reference": _rounded([each.whole for each in timed.reference]),
        "reference_copy": _rounded([each.copy for each in timed.reference]),
        "crowded": timed.contention,
    }


def _rounded(seconds: Sequence[float]) -> tuple[float, ...]:
    """Return seconds with six significant digits, so that a saved run stays small."""
    return tuple(float(f"{each:.6g}") for each in seconds)
