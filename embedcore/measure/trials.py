"""Trial passes of a model on this machine: GMACs, precision and memory layout, kept for later cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from embedcore.embed.cost import count_gmacs
from embedcore.embed.device import device_name, place
from embedcore.embed.embedder import ForwardSettings, choose_settings
from embedcore.embed.memory import release_memory
from embedcore.embed.precision import has_bf16
from embedcore.images.ledger import Ledger
from embedcore.measure.case import Case
from embedcore.measure.forward import facts_of
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.outcome import reason_of
from embedcore.zoo.backbone import Backbone


class Trial(NamedTuple):
    """The outcome of a trial, as it is kept in the ledger."""

    gmacs: float | None
    uncounted: str
    """Why the GMACs could not be counted, or ""."""
    precision: str
    channels_last: bool
    why_fp32: str

    @property
    def note(self) -> str:
        """Lines for the detail of the case's result."""
        return "\n".join(filter(None, (self.uncounted, self.why_fp32)))


def tried(
    case: Case, inputs: CaseInputs, backbone: Backbone, device: torch.device, batch_size: int
) -> tuple[Trial, ForwardSettings, int]:
    """Return the trial of a backbone, its settings and the batch size, and place the model on the device.

    The outcome of an earlier case is reused unless something that may affect it has changed. The batch size is reduced
    if the canary batch did not fit in memory.
    """
    assert inputs.pixels is not None
    ledger = inputs.ledger or Ledger(None)
    facts, key = {}, ""
    if ledger.path:
        facts = facts_of(case, backbone, inputs.truth, ForwardSettings(device, case.precision, engine=case.engine))
        key = _key(facts, case, device, batch_size)
    kept = ledger.trial(key)
    if kept is not None:
        trial = Trial(*kept)
        place(backbone.module, device, channels_last=trial.channels_last)
        return trial, ForwardSettings(device, trial.precision, trial.channels_last, case.engine), batch_size
    # First, because after larger batches the heap may be too fragmented for one more image.
    key_of_gmacs = _key_of_gmacs(facts, backbone) if facts and case.own_model is None else ""
    gmacs, uncounted = _gmacs(backbone, device, ledger, key_of_gmacs)
    settings, fitted = choose_settings(
        backbone, inputs.pixels, device, case.precision, batch_size, case.channels_last, case.engine
    )
    trial = Trial(gmacs, uncounted, settings.precision, settings.channels_last, settings.why_fp32)
    if fitted == batch_size and not uncounted:
        ledger.keep_trial(key, list(trial))
    return trial, settings, fitted


def _key(facts: Mapping[str, Any], case: Case, device: torch.device, batch_size: int) -> str:
    facts = {name: value for name, value in facts.items() if name not in ("dataset", "pixels")}
    facts |= {"machine": device_name(device), "bf16": has_bf16(device), "batch_size": batch_size}
    facts |= {"channels_last": case.channels_last, "fields": Trial._fields}
    return f"trial {_digest(facts)}"


def _key_of_gmacs(facts: Mapping[str, Any], backbone: Backbone) -> str:
    """Return the key of an architecture of timm at one input size; its tags may differ in the number of classes."""
    chosen = {name: facts[name] for name in ("point", "torch", "timm", "code", "embedcore")}
    chosen |= {"architecture": backbone.name.partition(".")[0], "input_size": backbone.data_config.input_size}
    return f"gmacs {_digest(chosen | {'params_m': backbone.params_m})}"


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _gmacs(backbone: Backbone, device: torch.device, ledger: Ledger, key: str) -> tuple[float | None, str]:
    """Return the GMACs, or None and why they cannot be counted; a fault of the model shows later.

    They are counted once for each `key` in the ledger; "": always.
    """
    kept = ledger.trial(key) if key else None
    if kept is not None:
        return kept[0], ""
    try:
        gmacs = count_gmacs(backbone)
    except Exception as error:  # from the model, possibly only under the counter
        why = reason_of(error)
    else:
        if key:
            ledger.keep_trial(key, [gmacs])
        return gmacs, ""
    release_memory(device)  # outside of the except block, where the error's frames are freed
    return None, f"GMACs could not be counted: {why}"
