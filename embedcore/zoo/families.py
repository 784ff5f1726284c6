"""Families: the architecture groups of the leaderboards, derived from timm's module of an architecture."""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from embedcore.errors import UsageError


@dataclass(frozen=True)
class Family:
    """One architecture group: users type its slug, tables show its title."""

    slug: str
    title: str


_TABLE = resources.files("embedcore.zoo").joinpath("families.txt").read_text(encoding="utf-8")
_ROWS = [[cell.strip() for cell in row.split("|")] for row in _TABLE.splitlines() if not row.startswith("#")]
FAMILIES = tuple(Family(slug, title) for slug, title, _ in _ROWS)
OTHER = FAMILIES[-1]
_MEMBERS = sorted(
    (
        (*member.partition(":")[::2], family)
        for family, (_, _, members) in zip(FAMILIES, _ROWS, strict=True)
        for member in members.split()
    ),
    key=lambda member: -len(member[1]),
)


@functools.cache
def family_of(model: str) -> Family:
    """Return the family of a tag or architecture; OTHER for an unknown one."""
    from embedcore.zoo import registry  # here, so that reports can name families without importing timm

    architecture, _ = registry.split_tag(model)
    return family_in_module(registry.module_of(architecture), architecture)


def family_in_module(module: str, architecture: str) -> Family:
    """Return the family of an architecture that a module of timm defines.

    >>> family_in_module("byobnet", "repvgg_b0").slug, family_in_module("byobnet", "resnet61q").slug
    ('vgg', 'resnet')
    """
    matches = (
        family for name, part, family in _MEMBERS if name == module and fnmatch.fnmatchcase(architecture, part or "*")
    )
    return next(matches, OTHER)


def family_of_slug(slug: str) -> Family:
    """Return the family of a slug. One that only an own model has is not in the table; its title is its slug."""
    return next((family for family in FAMILIES if family.slug == slug), Family(slug, slug))


def family_by_slug(slug: str, others: Sequence[str] = ()) -> Family:
    """Return the family that a user names, in the table or among ``others``. Raises UsageError for an unknown one."""
    slugs = {family.slug: family for family in FAMILIES} | {other.lower(): family_of_slug(other) for other in others}
    wanted = slug.strip().lower()
    if wanted in slugs:
        return slugs[wanted]
    close = difflib.get_close_matches(wanted, slugs, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown family {slug!r}{hint} (families: {', '.join(slugs)})")
