"""Fit a training checkpoint to its architecture: remove a wrapper's prefix, leave out a foreign classifier."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

from embedcore.errors import WeightsDamaged
from embedcore.zoo import registry
from embedcore.zoo.state_files import is_memory

# Raised by timm's conversion of a checkpoint if the file is another model's.
UNFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError)

# Names of classifiers and other training heads, besides timm's own name of an architecture's classifier.
_HEADS = {"head", "heads", "fc", "classifier", "last_linear", "projector"}
_NAMED = 4


@dataclass
class LoadLog:
    """The keys that timm's lenient loader found missing and unexpected."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load_log() -> Iterator[LoadLog]:
    """Collect what timm's loader only logs when it loads leniently."""
    log = LoadLog()

    def note(record: logging.LogRecord) -> bool:
        found = re.match(r"(Missing|Unexpected) keys \((.*)\) (discovered|found)", record.getMessage())
        if found:
            (log.missing if found[1] == "Missing" else log.unexpected).extend(found[2].split(", "))
        return record.levelno >= level and not found

    logger = logging.getLogger("timm.models._builder")
    level, own_level = logger.getEffectiveLevel(), logger.level
    logger.addFilter(note)
    logger.setLevel(min(level, logging.INFO))
    try:
        yield log
    finally:
        logger.setLevel(own_level)
        logger.removeFilter(note)


NOWHERE: Mapping[str, Any] = {
    **dict.fromkeys(("url", "file", "hf_hub_id", "hf_hub_filename", "source")),
    "custom_load": False,
}
"""Overlay that removes all places of weights from timm's configuration of a model."""


@dataclass(frozen=True)
class Fitted:
    """A model of timm with the tensors of a checkpoint."""

    module: nn.Module
    classifier: str
    """Begins with "left out" if the model has none though the architecture does, else ""."""
    state: Mapping[str, Tensor]
    """The tensors of the checkpoint that were given to timm, by the model's names."""


def create(model: str, overlay: Mapping[str, Any], **kwargs: Any) -> nn.Module:
    """Build a model of timm whose configuration ``overlay`` changes; an ``input_size`` in it changes the structure too.

    timm itself prefers the size in the definition of some architectures, such as eva02.
    """
    if "input_size" in overlay and registry.pretrained_cfg(model).get("fixed_input_size"):
        kwargs["img_size"] = tuple(overlay["input_size"][1:])
    module: nn.Module = timm.create_model(model, pretrained_cfg_overlay=dict(overlay), **kwargs)
    return module


def load_into_timm(
    model: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any], **kwargs: Any
) -> tuple[nn.Module, LoadLog]:
    """Build a model of timm with these tensors and no others: as they are if they fit, else as timm converts them.

    ``overlay`` changes timm's configuration. Raises WeightsDamaged if there are no tensors, since timm would then load
    its own; and what timm raises.
    """
    if not state:
        raise WeightsDamaged("contains no tensors")
    given = {**overlay, **NOWHERE}
    with load_log() as log, torch.random.fork_rng(devices=[]):
        module = create(model, given, **kwargs)
        wanted = module.state_dict()
        if wanted.keys() == state.keys() and all(state[name].shape == value.shape for name, value in wanted.items()):
            module.load_state_dict(dict(state))  # timm's conversion may resize positions of a grid that is not square
            return module, log
        given["state_dict"] = dict(state)
        module = create(model, given, pretrained=True, **kwargs)
    vars(module)["pretrained_cfg"].pop("state_dict", None)  # a second copy of all weights
    return module, log


def fit_backbone(model: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any]) -> Fitted | None:
    """Load a checkpoint whose names have a prefix, or whose classifier is not timm's; None if it is another model's.

    The checkpoint's classifier is kept, with any number of classes, if it fits timm's structure. All other tensors must
    be present and fit. ``overlay`` changes timm's configuration, such as ``input_size``. Raises WeightsDamaged if the
    checkpoint contains the model more than once.
    """
    cfg = registry.pretrained_cfg(model)
    names = cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    heads = _HEADS | {name.partition(".")[0] for name in names}
    with torch.random.fork_rng(devices=[]):
        bare = create(model, overlay, num_classes=0)
    tensors, others = without_prefix(state, bare.state_dict())
    for classes in dict.fromkeys([_classes(tensors, names), 0]):
        # If the number of classes is not the configuration's, timm drops the classifier and loads leniently.
        changed = {**overlay, "classifier": names, "num_classes": classes or -1, "label_offset": 0}
        try:
            module, log = load_into_timm(model, tensors, changed, num_classes=classes)
        except UNFIT as error:
            if is_memory(error):
                raise
            continue
        if log.missing or any(key.partition(".")[0] not in heads for key in log.unexpected):
            continue
        known = module.state_dict().keys()
        left = [key for key in tensors if key.partition(".")[0] in heads and key not in known] + others
        if left:
            listed = ", ".join(left[:_NAMED]) + (", …" if len(left) > _NAMED else "")
            return Fitted(module, f"left out ({listed})", tensors)
        return Fitted(module, "" if classes or not names else "left out (the file has none)", tensors)
    return None


def _classes(state: Mapping[str, Tensor], classifiers: tuple[str, ...]) -> int:
    """Return the number of classes of a checkpoint's classifier, 0 if it has none or several that disagree."""
    rows = {state[key].shape[0] if (key := f"{name}.weight") in state else 0 for name in classifiers}
    return rows.pop() if len(rows) == 1 else 0


def without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under the prefix (``model.``, ``backbone.encoder.``, …) that contains the model, by the rest
    of their names; and the names of all others.

    The prefix is the one of most ``wanted`` keys, if at least half of them have it. Otherwise all tensors are returned
    as they are, since timm knows other names too. Raises WeightsDamaged if two prefixes have equally many of them.

    >>> tensors, others = without_prefix({"net.a.weight": 1, "net.b": 2, "loss.w": 3}, {"a.weight": 0, "b": 0})
    >>> tensors, others
    ({'a.weight': 1, 'b': 2}, ['loss.w'])
    """
    found = Counter(
        key[:start]
        for key in state
        for start in (0, *(match.end() for match in re.finditer(r"\.", key)))
        if key[start:] in wanted
    )
    best = found.most_common(2)
    if not best or 2 * best[0][1] < len(wanted):
        return dict(state), []
    if len(best) == 2 and best[1][1] == best[0][1]:
        prefixes = " and ".join(repr(prefix) for prefix, _ in best)
        chosen = best[0][0].rstrip(".") or "…"
        raise WeightsDamaged(
            f"contains the model more than once, under {prefixes}: choose one, such as "
            f'checkpoint_key = "{chosen}" in its entry of a roster file'
        )
    prefix = best[0][0]
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]
