"""Compare a loaded model with its checkpoint: resampled tensors, integers, NaN."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embedcore.errors import WeightsDamaged
from embedcore.plain import counted

# Names of tensors that timm resizes if a checkpoint has another input size, patch or window.
_SPATIAL = re.compile(r"pos_|_pos|patch_embed|^embeds\.|relative_position|attention_bias")
_PREFIX_TOKENS = range(9)
_NAMED = 3


@dataclass(frozen=True)
class Resampled:
    """A tensor whose shape in the checkpoint (``file``) differs from the model's."""

    name: str
    file: tuple[int, ...]
    model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.file)} → {list(self.model)}"


def resampled(state: Mapping[str, Tensor], module: nn.Module) -> list[Resampled]:
    """Return the tensors of ``module``, loaded by timm from ``state``, that timm has resized.

    Renaming, reshaping, transposing and cutting off whole rows are not resampling. Raises WeightsDamaged if integers
    were loaded as floats, or a parameter is not finite.
    """
    loaded = module.state_dict()
    unused = {name: value for name, value in state.items() if name not in loaded}
    found = []
    for name, value in loaded.items():
        if not value.is_floating_point():
            continue
        source = state.get(name)
        if source is not None and not source.is_floating_point():
            kind = str(source.dtype).removeprefix("torch.")
            raise WeightsDamaged(f"does not fit: {name} is {kind} in the file, floating point in the model")
        if source is None and _SPATIAL.search(name) and unused:
            if value.any() and not any(_same_values(value, other) for other in unused.values()):
                source = _closest(name, value, unused)
        elif source is not None and _is_as_in(value, source):
            source = None
        if source is not None:
            found.append(Resampled(name, tuple(source.shape), tuple(value.shape)))
    wrong = [name for name, value in module.named_parameters() if not bool(value.isfinite().all())]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WeightsDamaged(f"contains NaN or infinity in {wrong[0]}{more}")
    return found


def _is_as_in(value: Tensor, source: Tensor) -> bool:
    if value.numel() == source.numel():
        one_place = value.numel() == value.shape[-1]  # a class token, to which timm may add its position
        return one_place or _same_values(value, source)
    if value.numel() > source.numel() or value.shape[-1:] != source.shape[-1:] or value.ndim < 2 or source.ndim < 2:
        return False
    rows, known = value.flatten(0, -2), source.to(value.dtype).flatten(0, -2)
    return all(bool((known == row).all(1).any()) for row in (rows[0], rows[len(rows) // 2], rows[-1]))


def _same_values(value: Tensor, source: Tensor) -> bool:
    """Return whether two tensors have the same values in any shape and order."""
    if value.numel() != source.numel() or not source.is_floating_point():
        return False
    ours, theirs = value.flatten(), source.to(value.dtype).flatten()
    return torch.equal(ours, theirs) or torch.equal(ours.sort().values, theirs.sort().values)


def _closest(name: str, value: Tensor, unused: Mapping[str, Tensor]) -> Tensor:
    """Return the tensor of the file from which a renamed one seems to be made: by shared sizes, then by name."""

    def similarity(other: str) -> tuple[int, float]:
        shape = unused[other].shape
        shared = sum(size in shape for size in value.shape if size > 1)
        return shared, difflib.SequenceMatcher(None, name, other).ratio()

    return unused[max(unused, key=similarity)]


def wrong_shapes(state: Mapping[str, Tensor], module: nn.Module) -> list[Resampled]:
    """Return the tensors of wrong shape in a state dict with all of ``module``'s names; none if a name is missing."""
    wanted = module.state_dict()
    if not state.keys() >= wanted.keys():
        return []
    shapes = ((name, tuple(state[name].shape), tuple(value.shape)) for name, value in wanted.items())
    return [Resampled(name, file, model) for name, file, model in shapes if file != model]


def refusal(
    found: list[Resampled],
    size: int | None,
    shapes_at: Callable[[int], Mapping[str, tuple[int, ...]]],
    *,
    resizable: bool = True,
) -> str:
    """Return an error message for tensors that do not fit: their shapes, and a likely remedy.

    size: the side of the model's input, None if it is not square.
    shapes_at: returns the shapes of the model's tensors at another side, empty if the model cannot be built.
    resizable: whether timm would resize the tensors.
    """
    listed = "; ".join(
        f"{each.name} is {list(each.file)} in the file, "
        f"{'the same shape for another grid' if each.file == each.model else list(each.model)} in the model"
        for each in found[:_NAMED]
    )
    more = f"; {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    sides = (side for side in _sides(found[0], size) if _fits(found, shapes_at(side))) if size else iter(())
    side = next(sides, None)
    if side is not None:
        remedy = f"input_size = {side}?"
    else:
        kernel = next((each for each in found if len(each.file) == 4 and len(each.model) == 4), None)
        patches = f"with patches of {kernel.file[2]}×{kernel.file[3]}" if kernel else "of another window or input size"
        remedy = f"an arch {patches}?"
    allowed = " (or resample = true in its entry of a roster file, to let timm resize them)" if resizable else ""
    return f"does not fit: {counted(len(found), 'wrong shape')} ({listed}{more}): {remedy}{allowed}"


def _fits(found: list[Resampled], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return all(_sizes_above_one(shapes.get(each.name, ())) == _sizes_above_one(each.file) for each in found)


def _sizes_above_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size > 1)


def _sides(tensor: Resampled, size: int) -> Iterator[int]:
    """Yield sides of the input at which a tensor may have the file's shape, likely ones first."""
    file, model = _sizes_above_one(tensor.file), _sizes_above_one(tensor.model)
    theirs, ours = next(((a, b) for a, b in zip(file, model, strict=False) if a != b), (0, 0))
    if len(file) != len(model) or not theirs:
        return
    # Tokens of a square grid after some prefix tokens; the (2 w - 1)² and 2 w - 1 entries of a relative position table.
    ratios = [math.sqrt((theirs - tokens) / (ours - tokens)) for tokens in _PREFIX_TOKENS if theirs > tokens < ours]
    ratios += [(math.sqrt(theirs) + 1) / (math.sqrt(ours) + 1), (theirs + 1) / (ours + 1)]
    for ratio in dict.fromkeys(ratios):
        side = round(size * ratio)
        if side != size and abs(side - size * ratio) < 1e-6:
            yield side
