"""Read a weight file into tensors without running code from it, and describe in one line why it does not fit."""

from __future__ import annotations

import argparse
import contextlib
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from embedcore.errors import WeightsDamaged, WeightsUnavailable
from embedcore.zoo.checkpoint import choose_state

# In older versions a crafted file could run code in spite of weights_only (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = "2.10"
_NAMED = 3


class _Ignored:
    """Placeholder for a value in a checkpoint that is not needed; takes any arguments and holds nothing."""

    def __init__(self, *state: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# A trainer's arguments are plain values, harmless to rebuild. numpy's numbers and paths are replaced by placeholders:
# a crafted numpy.dtype could otherwise turn any memory into an object.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *(
        (_Ignored, f"{module}.{name}")
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")  # the name since numpy 2, and before
        for name in ("scalar", "_reconstruct")
    ),
    *((_Ignored, f"numpy.{name}") for name in ("dtype", "ndarray")),
    *(
        (_Ignored, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
]


def read_state(
    path: Path, *, trust: bool = False, remedy: str = "fetch it again", key: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a weight file by name, and which part of it they are: see `checkpoint.choose_state`.

    Never runs code from the file: it is read by safetensors or ``torch.load(weights_only=True)``. With ``trust`` a
    pickle may contain anything, such as a whole module. ``remedy`` is what to do about a pickle with more than tensors.
    Raises WeightsDamaged if that fails, or if the weights are missing or useless (all zero, all NaN, integers);
    WeightsUnavailable for a pickle if torch is too old to read it safely.
    """
    if path.name.lower().endswith(".safetensors"):
        try:
            content: Any = safetensors.torch.load_file(str(path))
        except safetensors.SafetensorError as error:
            raise WeightsDamaged(f"{path} is not a complete safetensors file ({error}); fetch it again") from error
    else:
        content = _unpickle(path, trust, remedy)
    try:
        part, state = choose_state(content, key)
        _check_values(state)
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{path} {error}") from error
    return state, part


def _check_values(state: Mapping[str, Tensor]) -> None:
    integers = [
        name
        for name, value in state.items()
        if not value.is_floating_point() and name.rpartition(".")[2] in ("weight", "bias")
    ]
    if integers:
        kind = str(state[integers[0]].dtype).removeprefix("torch.")
        raise WeightsDamaged(
            f"contains {len(integers)} weights that are not floating-point numbers ({integers[0]}: {kind}): "
            "quantized weights cannot be loaded, save the model in floating point"
        )
    kernels = [value for value in state.values() if value.is_floating_point() and value.ndim > 1]
    if kernels and not any(value.count_nonzero() for value in map(_wide, kernels)):
        raise WeightsDamaged("contains only zeros: all weights of more than one dimension are 0")
    if kernels and not any(value.isfinite().any() for value in map(_wide, kernels)):
        raise WeightsDamaged("contains no finite weight: all weights of more than one dimension are NaN or infinite")


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def _unpickle(path: Path, trust: bool, remedy: str) -> Any:
    if not trust and TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise WeightsUnavailable(
            f"{path} is a pickle, which torch {torch.__version__} cannot read safely: "
            f"upgrade to torch {_SAFE_TORCH}, or save its state dict as .safetensors"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:  # on damaged bytes the unpickler trips over whatever comes next
        if is_memory(error):
            raise
        fault = "cannot be unpickled" if trust else "is not a file of plain tensors"
        fault += f" ({_refused(path, error)}); {remedy}, or save its state dict as .safetensors"
        raise WeightsDamaged(f"{path} {fault}") from error


def _refused(path: Path, error: Exception) -> str:
    """Return in a few words why the unpickler refused a file, without torch's advice to run what is in it."""
    message = str(error).strip()
    called = re.search(r"GLOBAL (\S+)", message)
    if called:
        names = [called[1]]
        with contextlib.suppress(Exception), torch.serialization.safe_globals(_HARMLESS):  # of zip files only
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or names
        listed = textwrap.shorten(", ".join(names), 200, placeholder=" …")
        return f"it contains {listed}, which is code and is never run"
    unpickler = re.search(r"WeightsUnpickler error:\s*([^\n]+)", message)
    first = unpickler[1] if unpickler else message.partition("\n")[0].partition(". ")[0]
    return textwrap.shorten(first, 120, placeholder=" …") or type(error).__name__


def is_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out, which is no fault of the file."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def differences(state: Iterable[str], wanted: Iterable[str]) -> str:
    """Return one line on the missing and unexpected keys of a state dict; "" if there are none."""
    have, want = dict.fromkeys(state), dict.fromkeys(wanted)
    missing = [key for key in want if key not in have]
    return misfit({"missing keys": missing, "unexpected keys": [key for key in have if key not in want]})


def mismatch(message: str) -> str:
    r"""Return torch's report of a state dict that does not fit as one line: counts and the first few keys of each kind.

    >>> mismatch('Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: "a", "b". ')
    'does not fit: 2 missing keys (a, b)'
    """
    kinds = {}
    for title in ("missing", "unexpected"):
        found = re.search(rf'{title.title()} key\(s\) in state_dict: ("[^\n]*")\.', message)
        kinds[f"{title} keys"] = re.findall(r'"([^"]+)"', found[1]) if found else []
    return misfit({**kinds, "wrong shapes": re.findall(r"size mismatch for ([^:\s]+):", message)})


def misfit(kinds: Mapping[str, list[str]]) -> str:
    """Return a text such as ``does not fit: 12 missing keys (fc.weight, fc.bias, …)``; "" if there are no keys."""
    parts = (
        f"{len(keys)} {kind} ({', '.join(keys[:_NAMED])}{', …' if len(keys) > _NAMED else ''})"
        for kind, keys in kinds.items()
        if keys
    )
    listed = "; ".join(parts)
    return f"does not fit: {listed}" if listed else ""
