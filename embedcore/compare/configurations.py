"""Two releases of timm compared by what they say of their models, without running one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.compare.causes import TRANSFORM, change_text
from embedcore.zoo.configurations import Configurations, address_of, read_configurations

KINDS: Mapping[str, str] = {
    "removed": "tags that are gone, or have no weights any more",
    "default": "what a bare name leads to",
    "transform": "what is done to images",
    "weights": "where the weights are",
    "renamed": "by timm's own table of names",
    "structure": "classifier, first layer and the sizes that a model takes",
    "test size": "for timm's own validation only; nothing here uses it",
    "licence": "of the weights",
    "added": "new tags",
}
"""Kinds of change, the worst first."""

_FIELDS = {
    "structure": ("num_classes", "first_conv", "classifier", "pool_size", "fixed_input_size", "min_input_size"),
    "test size": ("test_input_size", "test_crop_pct", "test_pool_size"),
}


class Group(NamedTuple):
    """One change and the models that have it."""

    kind: str
    cause: str
    """Such as ``crop 1.0 → 0.875``."""
    models: Mapping[str, str]
    """Each tag, for kind ``default`` each architecture, to what is to be said of it alone, "" where nothing is."""


@dataclass(frozen=True)
class ConfigurationChanges:
    """What differs between two timm; the worst kind first, in it what concerns most models."""

    base: str
    new: str
    """Versions."""
    base_tags: int
    new_tags: int
    groups: tuple[Group, ...]

    def of(self, kind: str) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.kind == kind)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"groups": [group._asdict() for group in self.groups]}

    def text(self, width: int = 80) -> str:
        """A line a change, and under it as many names as fit on two lines."""
        lines = [f"timm {self.base} → {self.new}: {self.base_tags} pretrained tags, now {self.new_tags}"]
        if not self.groups:
            lines.append("no configuration differs")
        for group in self.groups:
            counted = f"{len(group.models):>5}  {group.cause}"
            lines += textwrap.wrap(counted, width, subsequent_indent=" " * 7, drop_whitespace=True)
            lines += _names(group.models, width)
        return "\n".join(lines)


def _names(models: Mapping[str, str], width: int) -> list[str]:
    names, (first, detail) = list(models), next(iter(models.items()))
    wrapper = textwrap.TextWrapper(
        width, initial_indent=" " * 7, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False
    )
    if detail and len(names) == 1:
        return wrapper.wrap(f"{first}: {detail}")
    for shown in range(len(names), 0, -1):
        rest = f", and {len(names) - shown} more" if shown < len(names) else ""
        lines = wrapper.wrap(", ".join(names[:shown]) + rest)
        if len(lines) <= 2:
            break
    return lines + (wrapper.wrap(f"such as {first}: {detail}") if detail else [])


def compare_timm(base: str, new: str, cache_folder: Path) -> ConfigurationChanges:
    """Compare the timm that `base` and `new` mean: versions, folders, environments; see `read_configurations`."""
    with ThreadPoolExecutor(2) as pool:
        return compare_configurations(*pool.map(lambda spec: read_configurations(spec, cache_folder), (base, new)))


def compare_configurations(base: Configurations, new: Configurations) -> ConfigurationChanges:
    """Every difference of two registries, models with the same one together."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for kind, cause, model, detail in (*_of_tags(base, new), *_of_defaults(base, new)):
        groups.setdefault((kind, cause), {})[model] = detail
    order = sorted(groups, key=lambda key: ([*KINDS].index(key[0]), -len(groups[key]), key[1]))
    return ConfigurationChanges(
        base=base.timm,
        new=new.timm,
        base_tags=len(base.models),
        new_tags=len(new.models),
        groups=tuple(Group(*key, groups[key]) for key in order),
    )


_Found = Iterator[tuple[str, str, str, str]]
"""Kind, cause, model, detail."""


def _of_tags(base: Configurations, new: Configurations) -> _Found:
    for tag, old in base.models.items():
        successor = new.renamed.get(tag)
        if tag in new.models:
            yield from _of_pair(tag, old, new.models[tag])
        elif successor in new.models:
            yield "renamed", "renamed by timm", tag, f"now {successor}"
            yield from _of_pair(tag, old, new.models[successor])
        else:
            yield "removed", "removed, and not in timm's table of renamed models", tag, ""
    successors = set(new.renamed.values())
    for tag in new.models:
        if tag not in base.models and tag not in successors:
            yield "added", "added", tag, ""


def _of_pair(tag: str, old: Mapping[str, Any], now: Mapping[str, Any]) -> _Found:
    for name in TRANSFORM:
        if old.get(name) != now.get(name):
            yield "transform", change_text(name, old.get(name), now.get(name)), tag, ""
    before, after = address_of(old), address_of(now)
    if before != after:
        yield "weights", "other weights file", tag, f"{before or 'nowhere'} → {after or 'nowhere'}"
    for kind, names in _FIELDS.items():
        for name in names:
            if old.get(name) != now.get(name):
                yield kind, change_text(name, old.get(name), now.get(name)), tag, ""
    licences = old.get("license"), now.get("license")
    if licences[0] is None and licences[1]:
        yield "licence", "licence now recorded", tag, str(licences[1])
    elif licences[0] != licences[1]:
        yield "licence", change_text("licence", *licences), tag, ""


def _of_defaults(base: Configurations, new: Configurations) -> _Found:
    for architecture, old in base.defaults.items():
        now = new.defaults.get(architecture) or new.renamed.get(architecture) or ""
        if old == now or (old and new.renamed.get(old) == now):
            continue
        before, after = (name.partition(".")[2] or "the one without a tag" for name in (old, now))
        if not now:
            yield "default", f"no default tag any more, was {before}", architecture, ""
        elif not old:
            yield "added", "architectures which had no weights now have a default tag", architecture, after
        else:
            yield "default", f"the default tag is now {after}, was {before}: another model", architecture, ""
