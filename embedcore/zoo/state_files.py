"""Reading a weight file into tensors, without ever running code from it; what is wrong with one, in one line."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor

from embedcore.errors import WeightsDamaged, WeightsUnavailable

# Before it a crafted file could run code in spite of weights_only (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_CHECKPOINT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a weight file by name; of a training checkpoint its EMA or model weights, as timm takes them.

    Never runs code from the file: safetensors, or ``torch.load(weights_only=True)``. Raises WeightsDamaged where that
    fails or there is something else in it, and WeightsUnavailable for a pickle where torch is too old to be safe.
    """
    if path.suffix == ".safetensors":
        check_safetensors(path)
        return dict(safetensors.torch.load_file(str(path)))
    content = _unpickle(path)
    if isinstance(content, dict):
        inner = (content[key] for key in _CHECKPOINT_KEYS if isinstance(content.get(key), dict))
        content = next(inner, content)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsDamaged(f"{path} holds a {type(content).__name__}, not a state dict with names for keys")
    return dict(clean_state_dict(content))


def _unpickle(path: Path) -> Any:
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        needed = ".".join(map(str, _SAFE_TORCH))
        raise WeightsUnavailable(
            f"{path} is a pickle, which torch {torch.__version__} cannot read safely: "
            f"upgrade to torch {needed}, or save its state dict as .safetensors"
        )
    # timm's own training checkpoints carry their arguments: a Namespace of plain values, harmless to rebuild.
    allow = getattr(torch.serialization, "safe_globals", None)
    try:
        with allow([argparse.Namespace]) if allow else contextlib.nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler trips over whatever comes next
        if is_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise WeightsDamaged(
            f"{path} is no file of plain tensors ({first}); fetch it again, or save its state dict as .safetensors"
        ) from error


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
    """One line on the keys that a state dict lacks and has too many; "" where they are the same.

    >>> differences(["a", "old.b"], ["a", "b"])
    'does not fit: 1 missing keys (b); 1 unexpected keys (old.b)'
    """
    have, want = dict.fromkeys(state), dict.fromkeys(wanted)
    missing = [key for key in want if key not in have]
    unexpected = [key for key in have if key not in want]
    sides = (missing, "missing keys"), (unexpected, "unexpected keys")
    parts = [listing(keys, title) for keys, title in sides if keys]
    return f"does not fit: {'; '.join(parts)}" if parts else ""


def mismatch(message: str, shown: int = 3) -> str:
    r"""One line from torch's report of a state dict that does not fit: counts and the first few keys of each kind.

    >>> mismatch('Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: "a", "b". ', shown=1)
    'does not fit: 2 missing keys (a, …)'
    """
    parts = []
    for title in ("missing", "unexpected"):
        found = re.search(rf'{title.title()} key\(s\) in state_dict: ("[^\n]*")\.', message)
        if found:
            parts.append(listing(re.findall(r'"([^"]+)"', found.group(1)), f"{title} keys", shown))
    sizes = re.findall(r"size mismatch for ([^:\s]+):", message)
    if sizes:
        parts.append(listing(sizes, "wrong shapes", shown))
    return f"does not fit: {'; '.join(parts)}" if parts else ""


def listing(keys: list[str], title: str, shown: int = 3) -> str:
    """Such as ``12 missing keys (fc.weight, fc.bias, …)``."""
    return f"{len(keys)} {title} ({', '.join(keys[:shown])}{', …' if len(keys) > shown else ''})"
