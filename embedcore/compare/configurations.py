"""Compare the model configurations of two timm releases without running a model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.compare.causes import TRANSFORM, change_text, changes
from embedcore.zoo.configurations import Configurations, address_of, read_configurations

KINDS = ("removed", "default", "transform", "weights", "renamed", "structure", "test size", "licence", "added")
"""Kinds of change, worst first. ``test size`` is for timm's own validation; embedcore does not use it."""

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "transform": TRANSFORM,
    "structure": ("num_classes", "first_conv", "classifier", "pool_size", "fixed_input_size", "min_input_size"),
    "test size": ("test_input_size", "test_crop_pct", "test_pool_size"),
}


class Group(NamedTuple):
    """One change and the models that have it."""

    kind: str
    cause: str
    """A phrase such as ``crop 1.0 → 0.875``."""
    models: Mapping[str, str]
    """Tag (for kind ``default`` the architecture) → detail that concerns it alone, or ""."""


@dataclass(frozen=True)
class ConfigurationChanges:
    """All differences between two timm registries, by kind, then by number of models."""

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
        """Return a line per change with the number of models, followed by at most two lines of their names."""
        lines = [f"timm {self.base} → {self.new}: {self.base_tags} pretrained tags, now {self.new_tags}"]
        if not self.groups:
            lines.append("no configuration differs")
        names = textwrap.TextWrapper(width - 7, break_on_hyphens=False, max_lines=2, placeholder=" …")
        details = textwrap.TextWrapper(width - 7, break_on_hyphens=False)
        for group in self.groups:
            lines += textwrap.wrap(f"{len(group.models):>5}  {group.cause}", width, subsequent_indent=" " * 7)
            first, detail = next(iter(group.models.items()))
            example = f"{first}: {detail}" if len(group.models) == 1 else f"such as {first}: {detail}"
            below = [] if detail and len(group.models) == 1 else names.wrap(", ".join(group.models))
            lines += [" " * 7 + line for line in (*below, *(details.wrap(example) if detail else ()))]
        return "\n".join(lines)


def compare_timm(base: str, new: str, cache_folder: Path) -> ConfigurationChanges:
    """Compare two versions, folders or environments of timm; see `read_configurations` for `base` and `new`."""
    with ThreadPoolExecutor(2) as pool:
        return compare_configurations(*pool.map(lambda spec: read_configurations(spec, cache_folder), (base, new)))


def compare_configurations(base: Configurations, new: Configurations) -> ConfigurationChanges:
    """Compare two registries; models with the same change form one group."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for kind, cause, model, detail in (*_tag_changes(base, new), *_default_changes(base, new)):
        groups.setdefault((kind, cause), {})[model] = detail
    order = sorted(groups, key=lambda key: (KINDS.index(key[0]), -len(groups[key]), key[1]))
    return ConfigurationChanges(
        base=base.timm,
        new=new.timm,
        base_tags=len(base.models),
        new_tags=len(new.models),
        groups=tuple(Group(*key, groups[key]) for key in order),
    )


_Found = Iterator[tuple[str, str, str, str]]
"""Kind, cause, model, detail."""


def _tag_changes(base: Configurations, new: Configurations) -> _Found:
    for tag, old in base.models.items():
        successor = new.renamed.get(tag)
        if tag in new.models:
            yield from _field_changes(tag, old, new.models[tag])
        elif successor in new.models:
            yield "renamed", "renamed by timm", tag, f"now {successor}"
            yield from _field_changes(tag, old, new.models[successor])
        else:
            yield "removed", "removed, without a successor in timm's table of renamed models", tag, ""
    for tag in sorted(new.models.keys() - base.models.keys() - set(new.renamed.values())):
        yield "added", "added", tag, ""


def _field_changes(tag: str, old: Mapping[str, Any], now: Mapping[str, Any]) -> _Found:
    for kind, names in _FIELDS.items():
        for phrase in changes(old, now, names):
            yield kind, phrase, tag, ""
    before, after = address_of(old), address_of(now)
    if before != after:
        yield "weights", "other weights file", tag, f"{before or 'none'} → {after or 'none'}"
    licences = old.get("license"), now.get("license")
    if licences[0] is None and licences[1]:
        yield "licence", "licence now recorded", tag, str(licences[1])
    elif licences[0] != licences[1]:
        yield "licence", change_text("licence", *licences), tag, ""


def _default_changes(base: Configurations, new: Configurations) -> _Found:
    for architecture, old in base.defaults.items():
        now = new.defaults.get(architecture) or new.renamed.get(architecture) or ""
        if old == now or (old and new.renamed.get(old) == now):
            continue
        before, after = (name.partition(".")[2] or "the one without a tag" for name in (old, now))
        if not now:
            yield "default", f"no default tag any more, was {before}", architecture, ""
        elif not old:
            yield "added", "architectures that had no weights now have a default tag", architecture, after
        else:
            yield "default", f"the default tag is now {after}, was {before}: another model", architecture, ""
