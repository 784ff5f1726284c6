"""A training checkpoint fitted to its architecture: a wrapper's prefix comes off, a foreign classifier is left out."""

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

# What timm's own conversion of a checkpoint raises where the file is another model's.
UNFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError)

# Where classifiers and other heads of training stand, besides under timm's own name of an architecture's classifier.
_HEADS = {"head", "heads", "fc", "classifier", "last_linear", "projector"}
_NAMED = 4


@dataclass
class LoadLog:
    """The keys that timm's loader went without and those that it passed over, of its own accord."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load_log() -> Iterator[LoadLog]:
    """What timm's loader only logs where it loads leniently."""
    log = LoadLog()

    def note(record: logging.LogRecord) -> bool:
        said = re.match(r"(Missing|Unexpected) keys \((.*)\) (discovered|found)", record.getMessage())
        if said:
            (log.missing if said[1] == "Missing" else log.unexpected).extend(said[2].split(", "))
        return record.levelno >= level and not said

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
"""What takes from timm's configuration of a model all places where it could find other weights than those given."""


@dataclass(frozen=True)
class Fitted:
    """A model of timm with the tensors of a checkpoint.

    classifier begins with "left out" where the model has none though the architecture does; state are the checkpoint's
    tensors that were given to timm, by the names that the model's have.
    """

    module: nn.Module
    classifier: str
    state: Mapping[str, Tensor]


def create(model: str, overlay: Mapping[str, Any], **kwargs: Any) -> nn.Module:
    """Build a model of timm whose configuration ``overlay`` changes; an ``input_size`` in it reaches the structure.

    timm itself lets the size that some architectures (eva02, say) have in their definition go before it.
    """
    if "input_size" in overlay and registry.pretrained_cfg(model).get("fixed_input_size"):
        kwargs["img_size"] = tuple(overlay["input_size"][1:])
    module: nn.Module = timm.create_model(model, pretrained_cfg_overlay=dict(overlay), **kwargs)
    return module


def load_into_timm(
    model: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any], **kwargs: Any
) -> tuple[nn.Module, LoadLog]:
    """Build a model of timm with these tensors and no others: as they are where they fit, else as timm converts them.

    ``overlay`` changes timm's configuration. Raises WeightsDamaged where there are none, since timm would then look for
    its own, and what timm raises.
    """
    if not state:
        raise WeightsDamaged("holds no tensors")
    given = {**overlay, **NOWHERE}
    with load_log() as log, torch.random.fork_rng(devices=[]):
        module = create(model, given, **kwargs)
        wanted = module.state_dict()
        if wanted.keys() == state.keys() and all(state[name].shape == value.shape for name, value in wanted.items()):
            module.load_state_dict(dict(state))  # timm's conversion may resize positions of a grid that is no square
            return module, log
        given["state_dict"] = dict(state)
        module = create(model, given, pretrained=True, **kwargs)
    vars(module)["pretrained_cfg"].pop("state_dict", None)  # a second copy of all weights
    return module, log


def fit_backbone(model: str, state: Mapping[str, Tensor], overlay: Mapping[str, Any] | None = None) -> Fitted | None:
    """Load a checkpoint whose names have a prefix, or whose classifier is not timm's; None if it is another model's.

    The classifier is the checkpoint's, of however many classes, where timm's structure takes it. All other tensors must
    be there and fit. ``overlay`` changes timm's configuration, such as ``input_size``. Raises WeightsDamaged where the
    checkpoint holds the model more than once.
    """
    cfg = registry.pretrained_cfg(model)
    names = cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    heads = _HEADS | {name.partition(".")[0] for name in names}
    with torch.random.fork_rng(devices=[]):
        bare = create(model, overlay or {}, num_classes=0)
    own, others = without_prefix(state, bare.state_dict())
    for classes in dict.fromkeys([_classes(own, names), 0]):
        # Where its number of classes is not the configuration's, timm takes the classifier off and is lenient.
        changed = {**(overlay or {}), "classifier": names, "num_classes": classes or -1, "label_offset": 0}
        try:
            module, log = load_into_timm(model, own, changed, num_classes=classes)
        except UNFIT as error:
            if is_memory(error):
                raise
            continue
        if log.missing or any(key.partition(".")[0] not in heads for key in log.unexpected):
            continue
        known = module.state_dict().keys()
        left = [key for key in own if key.partition(".")[0] in heads and key not in known] + others
        if left:
            return Fitted(module, f"left out ({', '.join(left[:_NAMED])}{', …' if len(left) > _NAMED else ''})", own)
        return Fitted(module, "" if classes or not names else "left out (the file has none)", own)
    return None


def _classes(state: Mapping[str, Tensor], classifiers: tuple[str, ...]) -> int:
    """The number of classes of a checkpoint's classifier, 0 where it has none or several that disagree."""
    rows = {state[key].shape[0] if (key := f"{name}.weight") in state else 0 for name in classifiers}
    return rows.pop() if len(rows) == 1 else 0


def without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under the leading part of a name (``model.``, ``backbone.encoder.``, …) that holds the model, by the
    rest of their names; and the names of all others.

    That is the part under which most of the ``wanted`` keys are, if at least half of them are. Else the tensors are
    taken as they are, for timm knows other names too. Raises WeightsDamaged where two parts hold as many of them.

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
            f'holds the model more than once, under {prefixes}: choose one, such as checkpoint_key = "{chosen}" in its '
            "entry of a roster file"
        )
    prefix = best[0][0]
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]
