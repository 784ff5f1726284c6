"""A seeded subset of classes, and of images within each class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from embedcore.images.sources import LabelledImages


def choose(images: LabelledImages, *, max_classes: int, max_per_class: int, seed: int) -> list[int]:
    """Indices of the images kept, ascending.

    Which class or image goes first is decided by a hash of the seed and its name alone. So the choice of classes does
    not depend on how many images they have or are kept, a class more or less elsewhere changes little, and every
    machine chooses alike.

    ``max_classes``: 0 for all; classes with both a query and a reference are preferred to others. ``max_per_class``: 0
    for all; with queries and references it bounds each of the two.
    """
    kept = _first_classes(images, max_classes, seed)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, class_name in enumerate(images.class_names):
        if class_name in kept:
            groups[class_name, images.roles[index] if images.roles else ""].append(index)
    chosen: list[int] = []
    for members in groups.values():
        if max_per_class and len(members) > max_per_class:
            members = sorted(members, key=lambda index: (_draw(seed, images.source.name(index)), index))[:max_per_class]
        chosen += members
    return sorted(chosen)


def _first_classes(images: LabelledImages, max_classes: int, seed: int) -> set[str]:
    classes = set(images.class_names)
    if not max_classes or len(classes) <= max_classes:
        return classes
    sides = [_classes_with(images, role) for role in ("query", "reference")] if images.roles else []
    one_sided = {name for name in classes if not all(name in side for side in sides)}
    return set(sorted(classes, key=lambda name: (name in one_sided, _draw(seed, name), name))[:max_classes])


def _classes_with(images: LabelledImages, role: str) -> set[str]:
    roles: Sequence[str] = images.roles or ()
    return {name for name, own in zip(images.class_names, roles, strict=True) if own == role}


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n".encode() + name.encode("utf-8", "surrogateescape")).digest()
