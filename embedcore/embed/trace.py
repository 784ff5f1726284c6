"""Trace a forward pass: what each module of a backbone receives and returns, so that two sides can be compared."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from embedcore.zoo.backbone import Backbone

BUCKETS = 32
_SIGNS = 1 << 20

Setting = bool | int | float | str | None


class Summary(msgspec.Struct, frozen=True):
    """Tensors in a few numbers: equal for equal tensors, and nearly so after rounding."""

    shapes: tuple[tuple[int, ...], ...]
    norm: float
    """Euclidean, over all tensors."""
    sketch: tuple[float, ...]
    """Sum of the values with fixed random signs in each of 32 buckets: its distances are those of the tensors, within
    about a quarter (a count sketch; Charikar, Chen and Farach-Colton, ICALP 2002)."""


class Call(msgspec.Struct, frozen=True):
    """One call of a module."""

    name: str
    """Path of the module, "" for the model itself."""
    kind: str
    """Class."""
    settings: Mapping[str, Setting]
    """Its plain attributes, such as ``eps``."""
    weights: Summary
    """Its parameters and buffers, without those of modules inside."""
    inputs: Summary
    outputs: Summary


class Trace(msgspec.Struct, frozen=True):
    """The forward pass of some images."""

    transform: Mapping[str, Any]
    """The settings that made the pixels."""
    pixels: Summary
    calls: tuple[Call, ...]
    """In order of completion: the modules inside come before the one around them; the model itself is last."""


def trace(backbone: Backbone, x: Tensor, transform: Mapping[str, Any]) -> Trace:
    """Embed normalised pixels [b, 3, h, w] on the backbone's device, and record the calls of all its modules.

    Modules inside of TorchScript and torch.compile are not seen.
    """
    calls: list[Call] = []
    # A stack for each module, since one may be called again inside of itself.
    waiting: dict[str, list[Summary]] = {}

    def before(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        waiting.setdefault(name, []).append(summary_of((args, kwargs)))

    def after(name: str, module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        calls.append(_call(name, module, waiting[name].pop(), outputs))

    root, handles = backbone.module, []
    try:
        for name, module in root.named_modules():
            if module is not root and callable(getattr(module, "register_forward_hook", None)):
                pre, post = functools.partial(before, name), functools.partial(after, name)
                handles.append(module.register_forward_pre_hook(pre, with_kwargs=True))
                handles.append(module.register_forward_hook(post, with_kwargs=True))
        pixels = summary_of(x)
        calls.append(_call("", root, pixels, backbone.embed(x)))
    finally:
        for handle in handles:
            handle.remove()
    return Trace(transform, pixels, tuple(calls))


def _call(name: str, module: nn.Module, inputs: Summary, outputs: Any) -> Call:
    held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    kind = str(getattr(module, "original_name", type(module).__name__))  # a TorchScript module's own class
    return Call(name, kind, settings_of(module), summary_of(held), inputs, summary_of(outputs))


def summary_of(values: Any) -> Summary:
    """Return the summary of all floating-point tensors in nested lists, tuples and dicts."""
    import torch

    shapes, squares, sketch = [], 0.0, torch.zeros(BUCKETS, dtype=torch.float64)
    for place, tensor in enumerate(_tensors(values), 1):
        flat = tensor.detach().flatten()
        signs = _signs(flat.device)
        # Infinities (as in attention masks) and NaN count as distinct small numbers.
        finite = torch.nan_to_num(flat.float(), nan=1.0, posinf=2.0, neginf=-2.0)
        padded = torch.nn.functional.pad(finite, (0, -len(finite) % BUCKETS))
        rows = [padded[start : start + _SIGNS] for start in range(0, len(padded), _SIGNS)]
        # Another sign for each block, so that equal blocks do not add up.
        parts = [(row * signs[: len(row)]).view(-1, BUCKETS).double().sum(0) * _sign(k) for k, row in enumerate(rows)]
        sketch += place * sum(parts, torch.zeros(BUCKETS, dtype=torch.float64, device=flat.device)).cpu()
        squares += float(padded.double().square().sum())
        shapes.append(tuple(tensor.shape))
    return Summary(tuple(shapes), squares**0.5, tuple(sketch.tolist()))


def _tensors(values: Any) -> Iterator[Tensor]:
    import torch

    if isinstance(values, torch.Tensor):
        if values.is_floating_point() and values.numel() and not values.is_quantized:
            yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


@functools.cache
def _signs(device: Any) -> Any:
    import numpy as np
    import torch

    bits = np.unpackbits(np.frombuffer(np.random.Generator(np.random.PCG64(0)).bytes(_SIGNS // 8), dtype=np.uint8))
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1).to(device)


def _sign(number: int) -> int:
    """Return +1 or -1, alternating irregularly (the Thue-Morse sequence)."""
    return 1 - 2 * (number.bit_count() % 2)


def settings_of(module: nn.Module) -> dict[str, Setting]:
    """Return a module's public attributes that are numbers, text, flags, functions, or short tuples of these.

    >>> import torch
    >>> settings_of(torch.nn.LayerNorm(2, eps=1e-6))
    {'normalized_shape': '(2,)', 'eps': 1e-06, 'elementwise_affine': True}
    """
    found: dict[str, Setting] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if value is None or isinstance(value, bool | int | float | str):
            found[name] = value
        elif isinstance(value, tuple) and len(value) < 8:
            found[name] = str(value)
        elif callable(value) and hasattr(value, "__name__"):
            found[name] = str(value.__name__)
    return found
