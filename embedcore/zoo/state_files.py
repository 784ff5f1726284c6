"""Reading a weight file into tensors, without ever running code from it; what is wrong with one, in one line."""

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

# Before it a crafted file could run code in spite of weights_only (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = "2.10"


class _Ignored:
    """Stands for a value beside the tensors of a checkpoint that is not needed; made from anything, holds nothing."""

    def __init__(self, *state: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# A trainer's arguments (plain values, harmless to rebuild), and what stands for numpy's numbers and for paths, of which
# nothing is rebuilt: a crafted numpy.dtype could otherwise make any memory an object.
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
    """The tensors of a weight file by name, and which part of it they are: see `embedcore.zoo.checkpoint.choose_state`.

    Never runs code from the file:
    safetensors, or ``torch.load(weights_only=True)``; with ``trust`` a pickle may hold anything, a whole module too.
    Raises WeightsDamaged where that fails, or where the file holds no weights or useless ones (all zero, all NaN,
    integers); WeightsUnavailable for a pickle where torch is too old to be safe. ``remedy`` is for the message on a
    pickle that holds more than tensors.
    """
    if is_safetensors(path):
        check_safetensors(path)
        content: Any = dict(safetensors.torch.load_file(str(path)))
    else:
        content = _unpickle(path, trust, remedy)
    try:
        part, state = choose_state(content, key)
        _check_values(state)
    except WeightsDamaged as error:
        raise WeightsDamaged(f"{path} {error}") from error
    return state, part


def is_safetensors(path: Path) -> bool:
    """Whether a file's name says that it is one of safetensors."""
    return path.name.lower().endswith(".safetensors")


def _check_values(state: Mapping[str, Tensor]) -> None:
    integers = [
        name
        for name, value in state.items()
        if not value.is_floating_point() and name.rpartition(".")[2] in ("weight", "bias")
    ]
    if integers:
        name = integers[0]
        raise WeightsDamaged(
            f"holds {len(integers)} weights that are not floating-point numbers ({name}: {_dtype(state[name])}): "
            "quantized weights cannot be loaded, save the model in floating point"
        )
    kernels = [value for value in state.values() if value.is_floating_point() and value.ndim > 1]
    if kernels and not any(value.count_nonzero() for value in map(_wide, kernels)):
        raise WeightsDamaged("holds zeros only: all weights of more than one dimension are 0")
    if kernels and not any(value.isfinite().any() for value in map(_wide, kernels)):
        raise WeightsDamaged("holds no finite weight: all weights of more than one dimension are NaN or infinite")


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


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
        what = "cannot be unpickled" if trust else "is no file of plain tensors"
        why = f"{path} {what} ({_refused(path, error)})"
        raise WeightsDamaged(f"{why}; {remedy}, or save its state dict as .safetensors") from error


def _refused(path: Path, error: Exception) -> str:
    """Why the unpickler has refused a file, in a few words; not torch's advice, which is to run what is in it."""
    said = str(error).strip()
    called = re.search(r"GLOBAL (\S+)", said)
    if called:
        names = [called[1]]
        with contextlib.suppress(Exception), torch.serialization.safe_globals(_HARMLESS):  # of zip files only
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or names
        listed = textwrap.shorten(", ".join(names), 200, placeholder=" …")
        return f"it holds {listed}, which is code and is never run"
    unpickler = re.search(r"WeightsUnpickler error:\s*([^\n]+)", said)
    first = unpickler[1] if unpickler else said.partition("\n")[0].partition(". ")[0]
    return textwrap.shorten(first, 120, placeholder=" …") or type(error).__name__


def is_memory(error: Exception) -> bool:
    """Whether there was no memory: then the file is not to blame."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def check_safetensors(path: Path) -> None:
    """Raise WeightsDamaged where a file is no whole safetensors file or holds no tensors, from its header and
    length."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            empty = not file.keys()
    except safetensors.SafetensorError as error:
        raise WeightsDamaged(f"{path} is no whole safetensors file ({error}); fetch it again") from error
    if empty:
        raise WeightsDamaged(f"{path} holds no tensors")


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
