"""Reading a weight file into tensors, without ever running code from it; what is wrong with one, in one line."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from embedcore.errors import WeightsDamaged, WeightsUnavailable

# Before it a crafted file could run code in spite of weights_only (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = "2.10"
_CHECKPOINT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_state(path: Path, *, trust: bool = False, remedy: str = "fetch it again") -> Mapping[str, Tensor]:
    """The tensors of a weight file by name; of a training checkpoint its EMA or model weights, as timm takes them.

    Never runs code from the file: safetensors, or ``torch.load(weights_only=True)``; with ``trust`` a pickle may hold
    whatever it likes, a whole module too. Raises WeightsDamaged where that fails or there is something else in it, and
    WeightsUnavailable for a pickle where torch is too old to be safe. ``remedy`` is for the message on such a pickle.
    """
    if path.suffix == ".safetensors":
        check_safetensors(path)
        return dict(safetensors.torch.load_file(str(path)))
    content = _unpickle(path, trust, remedy)
    if isinstance(content, dict):
        inner = (content[key] for key in _CHECKPOINT_KEYS if isinstance(content.get(key), dict | nn.Module))
        content = next(inner, content)
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsDamaged(f"{path} holds a {type(content).__name__}, not a state dict with names for keys")
    return dict(clean_state_dict(content))


def _unpickle(path: Path, trust: bool, remedy: str) -> Any:
    if not trust and TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise WeightsUnavailable(
            f"{path} is a pickle, which torch {torch.__version__} cannot read safely: "
            f"upgrade to torch {_SAFE_TORCH}, or save its state dict as .safetensors"
        )
    try:
        # timm's own training checkpoints carry their arguments: a Namespace of plain values, harmless to rebuild.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:  # on damaged bytes the unpickler trips over whatever comes next
        if is_memory(error):
            raise
        what = "cannot be unpickled" if trust else "is no file of plain tensors"
        why = f"{path} {what} ({_refused(error)})"
        raise WeightsDamaged(f"{why}; {remedy}, or save its state dict as .safetensors") from error


def _refused(error: Exception) -> str:
    """Why the unpickler has refused a file, in a few words; not torch's advice, which is to run what is in it."""
    said = str(error).strip()
    called = re.search(r"GLOBAL (\S+)", said)
    if called:
        return f"it holds {called[1]}, which is code and is never run"
    unpickler = re.search(r"WeightsUnpickler error:\s*([^\n]+)", said)
    first = unpickler[1] if unpickler else said.partition("\n")[0].partition(". ")[0]
    return textwrap.shorten(first, 120, placeholder=" …") or type(error).__name__


def is_memory(error: Exception) -> bool:
    """Whether there was no memory: then the file is not to blame."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def check_safetensors(path: Path) -> None:
    """Raise WeightsDamaged where a file is no whole safetensors file, from its header and length."""
    try:
        with safetensors.safe_open(str(path), framework="pt"):
            pass
    except safetensors.SafetensorError as error:
        raise WeightsDamaged(f"{path} is no whole safetensors file ({error}); fetch it again") from error


def differences(state: Iterable[str], wanted: Iterable[str]) -> str:
    """One line on the keys that a state dict lacks and has too many; "" where they are the same."""
    have, want = dict.fromkeys(state), dict.fromkeys(wanted)
    missing = [key for key in want if key not in have]
    return misfit({"missing keys": missing, "unexpected keys": [key for key in have if key not in want]})


def mismatch(message: str, shown: int = 3) -> str:
    r"""One line from torch's report of a state dict that does not fit: counts and the first few keys of each kind.

    >>> mismatch('Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: "a", "b". ', shown=1)
    'does not fit: 2 missing keys (a, …)'
    """
    kinds = {}
    for title in ("missing", "unexpected"):
        found = re.search(rf'{title.title()} key\(s\) in state_dict: ("[^\n]*")\.', message)
        kinds[f"{title} keys"] = re.findall(r'"([^"]+)"', found[1]) if found else []
    return misfit({**kinds, "wrong shapes": re.findall(r"size mismatch for ([^:\s]+):", message)}, shown)


def misfit(kinds: Mapping[str, list[str]], shown: int = 3) -> str:
    """Such as ``does not fit: 12 missing keys (fc.weight, fc.bias, …)``; "" where no kind has a key."""
    parts = (
        f"{len(keys)} {kind} ({', '.join(keys[:shown])}{', …' if len(keys) > shown else ''})"
        for kind, keys in kinds.items()
        if keys
    )
    listed = "; ".join(parts)
    return f"does not fit: {listed}" if listed else ""
