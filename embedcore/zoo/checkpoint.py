"""Choose the state dict of a training checkpoint: EMA weights first, or the part that ``checkpoint_key`` names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from embedcore.errors import WeightsDamaged

EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema", "teacher")
MODEL_KEYS = ("state_dict", "model", "model_state_dict", "params", "net", "network", "module", "weights", "student")
ORDER = (*EMA_KEYS, *MODEL_KEYS)
"""Keys under which checkpoints contain a model; the first one present is taken."""

# Other parts of a checkpoint, such as the optimizer's state.
_BESIDE = re.compile(r"optim|sched|scaler|^opt$|^lr$|^loss$|criterion", re.IGNORECASE)
# Added to names by torch.compile, FSDP and activation checkpointing, at any depth.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_ADAPTER = re.compile(r"(^|[._])lora_")
_LISTED = 6


def choose_state(content: Any, key: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """Return the chosen part of a checkpoint ("" for all of it, else a dotted path), and its tensors by clean names.

    Without ``key``, the first of `ORDER` that contains tensors is chosen, else the only mapping of names to tensors.
    ``key`` is a dotted path of keys; what follows the last key is a prefix of the tensors' names. Raises WeightsDamaged
    if there are no tensors, if several parts could be meant, or if ``key`` names none; the message starts with a verb,
    to follow the file's name.
    """
    content = _plain(content)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise WeightsDamaged(f"contains a {type(content).__name__}, not a state dict with names for keys")
    part, state = _first(content) if key is None else _named(content, key)
    adapter = next(filter(_ADAPTER.search, state), None)
    if adapter is not None:
        raise WeightsDamaged(
            f"contains the weights of a LoRA adapter ({adapter}): merge the adapter first "
            "(merge_and_unload() of peft), then save the model's state dict"
        )
    return part, state


def _plain(content: Any) -> Any:
    return content.state_dict() if isinstance(content, nn.Module) else content


def _first(content: dict[str, Any]) -> tuple[str, dict[str, Tensor]]:
    path: list[str] = []
    while True:
        parts = _parts(content)
        known = [name for name in ORDER if name in parts]
        direct = sum(_is_tensor(value) for value in content.values())
        if known:
            taken = known[0]
        elif not parts or direct > max(_tensors(part) for part in parts.values()):
            break
        elif len(parts) == 1:
            taken = next(iter(parts))
        else:
            raise WeightsDamaged(
                f"contains several sets of weights: {_listed(path, parts)}; choose one, such as "
                f'checkpoint_key = "{".".join([*path, next(iter(parts))])}" in its entry of a roster file'
            )
        path.append(taken)
        content = parts[taken]
    state = clean(content)
    if not state:
        keys = ", ".join(list(content)[:_LISTED])
        raise WeightsDamaged("contains no tensors" + (f": its keys are {keys}" if keys else ""))
    return ".".join(path), state


def _named(content: dict[str, Any], key: str) -> tuple[str, dict[str, Tensor]]:
    path, inner, rest = [], content, key
    while rest:
        parts = _parts(inner)
        taken = next((name for name in sorted(parts, key=len, reverse=True) if f"{rest}.".startswith(f"{name}.")), None)
        if taken is None:
            break
        path.append(taken)
        inner, rest = parts[taken], rest[len(taken) + 1 :]
    if path:
        part, state = _first(inner)
    else:  # a prefix of names in the part that is chosen without a key
        part, state = _first(content)
    path += [part] * bool(part)
    if rest:
        prefix = clean_name(f"{rest}.")
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        path.append(rest)
        if not state:
            others = ", ".join(_parts(content)) or "none"
            raise WeightsDamaged(f"contains no tensors under checkpoint_key = {key!r}; its sets of weights: {others}")
    return ".".join(path), state


def _parts(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of a checkpoint that contain tensors by name, at any depth, without those of an optimizer."""
    plain = {name: _plain(value) for name, value in content.items() if not _BESIDE.search(name)}
    return {name: value for name, value in plain.items() if isinstance(value, dict) and _tensors(value)}


def _tensors(content: Mapping[Any, Any]) -> int:
    """Return the number of tensors under names, at any depth."""
    if not all(isinstance(name, str) for name in content):
        return 0
    return sum(
        _tensors(value) if isinstance(value, dict) else _is_tensor(value) for value in map(_plain, content.values())
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 0  # FSDP leaves empty ones if another rank has the values


def _listed(path: list[str], parts: Mapping[str, Any]) -> str:
    names = [".".join([*path, name]) for name in parts]
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def clean(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict by their names without wrappers, and without the counter of averaged weights.

    Raises WeightsDamaged if two tensors would then have one name.
    """
    found = {name: value for name, value in state.items() if _is_tensor(value) and name != "n_averaged"}
    names = {name: clean_name(name) for name in found}
    if len({*names.values()}) < len(names):
        seen: dict[str, str] = {}
        twice = next((seen[new], old) for old, new in names.items() if seen.setdefault(new, old) != old)
        raise WeightsDamaged(f"contains one tensor twice: {twice[0]} and {twice[1]}")
    return {names[name]: value for name, value in found.items()}


def clean_name(name: str) -> str:
    """Return a tensor's name without the parts that torch.compile, FSDP and data parallelism add.

    >>> clean_name("module._orig_mod.stages._orig_mod.0.weight")
    'stages.0.weight'
    """
    return _WRAPPERS.sub("", name).removeprefix("module.")
